//! `artel measure` as the daemon runs it: the loss of the real demo model, in a process of its own.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use artel_process::measurement::{Error, Measured, MeasurementRequest, Program, measure};
use artel_tests::{artel, models, repository};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

/// The time for something that must happen, on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(120);

fn program() -> Program {
    let args = vec!["measure".into()];
    Program { path: artel(), args, env: Vec::new(), name: "measure".to_owned() }
}

fn sample(origin: &str, answer: &str) -> String {
    format!(
        "{{\"origin\":\"{origin}\",\"prompt\":[1,9690,198,2683],\"answer\":{answer},\"messages\":[],\"text\":\"\"}}\n"
    )
}

/// A request for two samples of few tokens.
fn request(dir: &Path) -> MeasurementRequest {
    let samples = dir.join("held_out.jsonl");
    fs::write(&samples, sample("a.jsonl:1", "[504,3575,282,2]") + &sample("a.jsonl:7", "[28,2]")).unwrap();
    let model = models().join("SmolLM2-135M-Instruct.Q4_1.gguf");
    MeasurementRequest { model, adapter: None, samples, f16: None, threads: 2 }
}

async fn result(request: &MeasurementRequest) -> Result<Measured, Error> {
    measure(&program(), request).await
}

#[tokio::test]
async fn a_loss_is_measured_of_the_model_of_its_copy_in_f16_and_with_an_adapter() {
    let dir = TempDir::new().unwrap();
    let request = request(dir.path());
    let plain = result(&request).await.unwrap();
    assert_eq!(plain.tokens, 6);
    let to = dir.path().join("m.f16.gguf");
    let copy = result(&MeasurementRequest { f16: Some(to.clone()), ..request.clone() }).await.unwrap();
    assert!(fs::metadata(&to).unwrap().len() > fs::metadata(&request.model).unwrap().len());
    // The answers are no text, and so their likelihood is small and rounding makes more of a difference.
    assert!((copy.mean() - plain.mean()).abs() < 0.05 * plain.mean(), "{copy:?}, not dequantized {plain:?}");
    let adapter = repository().join("tests/fixtures/adapters/velo.gguf");
    let with = result(&MeasurementRequest { model: to, adapter: Some(adapter), ..request.clone() }).await.unwrap();
    assert!((with.mean() - copy.mean()).abs() > 0.01, "{with:?}, without {copy:?}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_the_sample_that_it_is_about() {
    let dir = TempDir::new().unwrap();
    let request = request(dir.path());
    let lost = MeasurementRequest { model: PathBuf::from("/nowhere/m.gguf"), ..request.clone() };
    let error = result(&lost).await.unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/m.gguf: no such file") && !error.is_transient(), "{error}");
    fs::write(&request.samples, sample("a.jsonl:1", "[28,2]") + &sample("a.jsonl:7", "[1000000,2]")).unwrap();
    let error = result(&request).await.unwrap_err();
    assert!(error.to_string().starts_with("a.jsonl:7: the sample has the token 1000000, and"), "{error}");
    assert!(!error.is_transient(), "{error}");
    fs::write(&request.samples, "{}\n").unwrap();
    let error = result(&request).await.unwrap_err();
    assert!(error.to_string().contains("held_out.jsonl:1: no sample"), "{error}");
}

#[tokio::test]
async fn the_process_ends_when_its_standard_input_closes_and_leaves_no_part_of_a_copy() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("m.f16.gguf");
    let request = MeasurementRequest { f16: Some(to), ..request(dir.path()) };
    let mut command = tokio::process::Command::new(artel());
    let mut child =
        command.arg("measure").stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all((serde_json::to_string(&request).unwrap() + "\n").as_bytes()).await.unwrap();
    let part = dir.path().join("m.f16.gguf.part");
    let begun = async {
        while !part.exists() {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before it wrote anything");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, begun).await.expect("no copy is begun");
    // Some hundred megabytes are still to be written, at the lowest priority.
    drop(stdin);
    let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it goes on").unwrap();
    assert_eq!(status.signal(), Some(9), "it ends by itself, in the middle of its work: {status}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["held_out.jsonl"]);
}
