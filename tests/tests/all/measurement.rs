//! `artel measure` as the daemon runs it: the loss of the real demo model, in a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;

use artel_process::measurement::{Error, Measured, Program, Progress, Request, measure};
use artel_tests::{artel, models, repository};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

fn program() -> Program {
    let args = vec!["measure".into()];
    Program { path: artel(), args, env: Vec::new(), name: "measure".to_owned() }
}

/// A request for two samples of few tokens.
fn request(dir: &Path) -> Request {
    let samples = dir.join("held_out.jsonl");
    let sample = |origin: &str, answer: &str| {
        format!(
            "{{\"origin\":\"{origin}\",\"prompt\":[1,9690,198,2683],\"answer\":{answer},\"messages\":[],\"text\":\"\"}}\n"
        )
    };
    fs::write(&samples, sample("a.jsonl:1", "[504,3575,282,2]") + &sample("a.jsonl:7", "[28,2]")).unwrap();
    Request {
        model: models().join("SmolLM2-135M-Instruct.Q4_1.gguf"),
        adapters: Vec::new(),
        samples,
        f16: None,
        threads: 2,
        context: None,
        devices: Some(vec!["CPU".to_owned()]),
        gpu_layers: None,
    }
}

async fn result(request: &Request) -> (Result<Measured, Error>, Vec<Progress>) {
    let progress = Mutex::new(Vec::new());
    let take = |of| progress.lock().unwrap().push(of);
    let result = measure(&program(), request, &CancellationToken::new(), take).await;
    (result, progress.into_inner().unwrap())
}

#[tokio::test]
async fn a_loss_is_measured_of_the_model_of_its_copy_in_f16_and_with_an_adapter() {
    let dir = TempDir::new().unwrap();
    let request = request(dir.path());
    let (plain, progress) = result(&request).await;
    let plain = plain.unwrap();
    assert_eq!((plain.samples, plain.tokens, plain.f16_bytes), (2, 6, None));
    assert_eq!(progress, [Progress::Computed { samples: 2, of: 2 }]);
    let to = dir.path().join("m.f16.gguf");
    let (copy, progress) = result(&Request { f16: Some(to.clone()), ..request.clone() }).await;
    let copy = copy.unwrap();
    assert_eq!(copy.f16_bytes, Some(fs::metadata(&to).unwrap().len()));
    assert!(matches!(progress[0], Progress::Dequantized { .. }), "{progress:?}");
    // The answers are no text, and so their likelihood is small and rounding makes more of a difference.
    assert!((copy.mean() - plain.mean()).abs() < 0.05 * plain.mean(), "{copy:?}, not dequantized {plain:?}");
    let adapter = repository().join("tests/fixtures/adapters/velo.gguf");
    let with = result(&Request { model: to, adapters: vec![(adapter, 1.0)], ..request.clone() }).await.0.unwrap();
    assert!((with.mean() - copy.mean()).abs() > 0.01, "{with:?}, without {copy:?}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_the_sample_that_it_is_about() {
    let dir = TempDir::new().unwrap();
    let request = request(dir.path());
    let error = result(&Request { context: Some(7), ..request.clone() }).await.0.unwrap_err();
    assert!(error.to_string().starts_with("a.jsonl:1: the sample has 4 tokens of its prompt and 4"), "{error}");
    let lost = Request { model: PathBuf::from("/nowhere/m.gguf"), ..request.clone() };
    let error = result(&lost).await.0.unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/m.gguf: no such file") && !error.is_transient(), "{error}");
    fs::write(&request.samples, "{}\n").unwrap();
    let error = result(&request).await.0.unwrap_err();
    assert!(error.to_string().contains("held_out.jsonl:1: no sample"), "{error}");
}

#[tokio::test]
async fn the_process_ends_when_its_standard_input_closes_and_leaves_no_part_of_a_copy() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("m.f16.gguf");
    let request = Request { f16: Some(to), ..request(dir.path()) };
    let mut command = tokio::process::Command::new(artel());
    let mut child = command.arg("measure").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all((serde_json::to_string(&request).unwrap() + "\n").as_bytes()).await.unwrap();
    drop(stdin);
    assert!(!child.wait().await.unwrap().success());
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["held_out.jsonl"]);
}
