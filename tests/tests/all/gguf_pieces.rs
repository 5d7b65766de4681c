//! Models in pieces: the demo model in three, by path and from a hub.

use std::fs;
use std::path::Path;

use artel_proto::v1;
use artel_tests::gguf_split::{GgufPiece, split_gguf};
use artel_tests::hub::HubServer;
use artel_tests::{Cli, TaskOutcome, daemon, models, task_request};
use sha2::{Digest as _, Sha256};

const DEMO_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

fn pieces() -> Vec<GgufPiece> {
    split_gguf(&fs::read(models().join(DEMO_FILE)).unwrap(), "smol", 3)
}

fn hashes(pieces: &[GgufPiece]) -> Vec<String> {
    let hash = |piece: &GgufPiece| Sha256::digest(&piece.bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    pieces.iter().map(hash).collect()
}

/// A model with this file and a role that answers always in the same way.
fn model(name: &str, file: &str) -> String {
    format!(
        "---\nmodel: {name}\nfile: {file}\ncontext: 512\nsequences: 1\n---\nrole: of-{name}\ndescription: D.\nmodel: {name}\n\
         prompt: You answer in one sentence.\nsampling: {{temperature: 0, max_tokens: 24}}\n\
         limits: {{timeout: 5m, retries: 0}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_pieces_answers_as_the_whole_one_whichever_piece_is_named() {
    let yaml = model("whole", DEMO_FILE) + &model("pieces", "smol-00002-of-00003.gguf");
    let pieces = pieces();
    let mut builder = daemon().with_yaml(&yaml);
    for piece in &pieces {
        builder = builder.with_file(&piece.name, &piece.bytes);
    }
    let daemon = builder.start().await;
    let ask = |role: &'static str| daemon.run(task_request("What is a sail?").with_role(role));
    let whole = ask("of-whole").await.end().await.text();
    assert!(whole.len() > 20, "{whole}");
    assert_eq!(ask("of-pieces").await.end().await.text(), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_piece_is_named_before_anything_is_loaded() {
    let [first, _, last] = &pieces()[..] else { panic!("there are three") };
    let builder = daemon().with_yaml(&model("pieces", "smol-00001-of-00003.gguf"));
    let builder = builder.with_file(&first.name, &first.bytes).with_file(&last.name, &last.bytes);
    let daemon = builder.start().await;
    let outcome = daemon.run(task_request("Hello").with_role("of-pieces")).await.end().await;
    let TaskOutcome::Failed(code, message) = outcome else { panic!("it cannot be loaded") };
    assert_eq!(code, v1::FailureCode::ModelUnavailable, "{message}");
    assert!(message.contains("smol-00001-of-00003.gguf: piece 2 of 3 not found in "), "{message}");
    let check = Cli::new(["check", "--models"]).arg(models()).arg(daemon.dir().join("catalog"));
    let (code, out, err) = check.run().await;
    assert!(code == 1 && out.contains("piece 2 of 3 not found in "), "{code} {out}{err}");
}

/// `artel` with a catalog, a directory of models and one of data, all in `dir`.
fn cli_in<const N: usize>(args: [&str; N], dir: &Path) -> Cli {
    let cli = Cli::new(args).arg("--catalog").arg(dir.join("catalog")).arg("--models").arg(dir.join("models"));
    cli.arg("--data").arg(dir.join("data"))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pieces_are_fetched_and_verified_as_one_model() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces();
    let bytes: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
    let yaml = format!(
        "model: big\nfile: hf:org/pieces/smol-00003-of-00003.gguf\nsha256: [{}]\n",
        hashes(&pieces).iter().map(|hash| format!("\"{hash}\"")).collect::<Vec<_>>().join(", ")
    );
    fs::create_dir(dir.path().join("catalog")).unwrap();
    fs::write(dir.path().join("catalog/own.yaml"), yaml).unwrap();
    let hub = HubServer::start_with_pieces(pieces);
    let (code, out, err) = cli_in(["fetch", "--json"], dir.path()).env("HF_ENDPOINT", &hub.endpoint).run().await;
    assert_eq!(code, 0, "{out}{err}");
    let fetched: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(fetched["address"], "hf:org/pieces/smol-00001-of-00003.gguf");
    assert_eq!((fetched["bytes"].as_u64(), fetched["pieces"].as_u64()), (Some(bytes as u64), Some(3)), "{out}");
    let asked = hub.requests().iter().filter(|request| request.method == "HEAD").count();
    assert_eq!((asked, hub.file_requests().len()), (3, 3));
    // After the first answer, all are asked for by the commit that it names.
    let by_revision = hub.requests().iter().filter(|request| request.path.contains("/resolve/main/")).count();
    assert_eq!(by_revision, 1);

    let check = || Cli::new(["check", "--models"]).arg(dir.path().join("models")).arg(dir.path().join("catalog"));
    let (_, out, err) = check().run().await;
    assert!(!out.contains("model `big`"), "{out}{err}");
    let second = dir.path().join("models/hf/org/pieces/main/smol-00002-of-00003.gguf");
    let mut damaged = fs::read(&second).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&second, damaged).unwrap();
    let (code, out, err) = check().run().await;
    assert!(code == 1 && out.contains("smol-00002-of-00003.gguf: its sha256 is "), "{code} {out}{err}");
    fs::remove_file(&second).unwrap();
    let (_, out, err) = check().run().await;
    assert!(out.contains("hf:org/pieces/smol-00001-of-00003.gguf is not fetched yet"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_the_hub_has_not_is_named_before_anything_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("catalog")).unwrap();
    let yaml = "model: big\nfile: hf:org/pieces/smol-00001-of-00003.gguf\n";
    fs::write(dir.path().join("catalog/own.yaml"), yaml).unwrap();
    let mut pieces = pieces();
    pieces.remove(1);
    let hub = HubServer::start_with_pieces(pieces);
    let (code, out, err) = cli_in(["fetch"], dir.path()).env("HF_ENDPOINT", &hub.endpoint).run().await;
    assert!(code == 1 && out.contains("the hub lacks piece 2 of 3 in org/pieces"), "{code} {out}{err}");
    assert!(hub.file_requests().is_empty() && !dir.path().join("models/hf").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_fetches_a_model_in_pieces_when_it_is_first_needed() {
    let hub = HubServer::start_with_pieces(pieces());
    let yaml = model("big", "hf:org/pieces/smol-00002-of-00003.gguf");
    let daemon = daemon().with_yaml(&yaml).without_models().with_env("HF_ENDPOINT", &hub.endpoint).start().await;
    let text = daemon.run(task_request("What is a sail?").with_role("of-big")).await.end().await.text();
    assert!(text.len() > 20, "{text}");
    assert_eq!(hub.file_requests().len(), 3);
}
