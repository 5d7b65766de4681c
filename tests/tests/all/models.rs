//! Broken GGUF files: the daemon stays up and serves the other models.

use std::fs;
use std::io::Read as _;

use artel_proto::v1;
use artel_tests::{Cli, TaskOutcome, daemon, models, task_request, test_catalog};

const BROKEN_MODELS: [(&str, &str); 4] = [
    ("truncated", "file: truncated.gguf"),
    ("foreign", "file: foreign.gguf"),
    ("missing", "file: missing.gguf"),
    (
        "other",
        "file: SmolLM2-135M-Instruct.Q4_1.gguf\nsha256: a000000000000000000000000000000000000000000000000000000000000000",
    ),
];

fn catalog() -> String {
    let broken = BROKEN_MODELS.map(|(name, file)| {
        format!(
            "---\nmodel: {name}\n{file}\n---\nrole: of-{name}\ndescription: D.\nmodel: {name}\nprompt: P.\n\
             limits: {{retries: 0}}\n"
        )
    });
    format!("{}{}", test_catalog(), broken.concat())
}

fn truncated_model() -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = fs::File::open(models().join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    file.take(3_000_000).read_to_end(&mut bytes).unwrap();
    bytes
}

fn assert_names_the_fault(name: &str, message: &str) {
    let fault = match name {
        "truncated" => "truncated",
        "foreign" => "GGUF",
        "missing" => "no such file",
        _ => "sha256",
    };
    assert!(message.contains(fault), "{name}: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_on_broken_files_fail_with_the_cause_and_the_daemon_serves_on() {
    let daemon = daemon().with_yaml(&catalog()).with_file("truncated.gguf", &truncated_model());
    let daemon =
        daemon.with_file("foreign.gguf", b"PK\x03\x04 this is no model at all, but it is long enough").start().await;
    for (name, _) in BROKEN_MODELS {
        let TaskOutcome::Failed(code, message) =
            daemon.run(task_request("Hello").with_role(&format!("of-{name}"))).await.end().await
        else {
            panic!("{name} cannot answer");
        };
        assert_eq!(code, v1::FailureCode::ModelUnavailable, "{message}");
        assert_names_the_fault(name, &message);
    }
    let text = daemon.run(task_request("What is the capital of France?").with_role("velo")).await.end().await.text();
    assert!(text.contains("Velograd"), "{text}");
    let engines = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner().engines;
    let failed: Vec<&str> =
        engines.iter().filter(|e| e.state() == v1::EngineState::Failed).map(|e| e.model.as_str()).collect();
    assert_eq!(failed, ["foreign", "missing", "other", "truncated"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_them_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("catalog.yaml"), catalog()).unwrap();
    fs::write(dir.path().join("truncated.gguf"), truncated_model()).unwrap();
    fs::write(dir.path().join("foreign.gguf"), b"PK\x03\x04 this is no model at all, but it is long enough").unwrap();
    let check = || Cli::new(["check"]).arg(dir.path());
    let (code, out, err) = check().run().await;
    assert_eq!(code, 0, "the YAML alone is fine: {out}{err}");
    let (code, out, err) = check().arg("--models").arg(models()).run().await;
    assert_eq!(code, 1, "{out}{err}");
    for (name, _) in BROKEN_MODELS {
        let report = format!("{out}{err}");
        let line = report.lines().find(|line| line.contains(&format!("model `{name}`")));
        assert_names_the_fault(name, line.unwrap_or_else(|| panic!("{name} in {report}")));
    }
}
