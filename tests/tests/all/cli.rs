//! The command line, as a person and as a program use it.

use std::fs;
use std::process::Stdio;

use artel_tests::{Cli, daemon, repository, test_catalog};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

fn objects(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_run_shown_listed_and_watched() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let france = "What is the capital of France?";
    let (code, out, err) = daemon.cli(["run", "--role", "zork", "--label", "user=me", france]).run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("zork") && out.contains("Zorkville"), "{out}");
    let (code, out, _) = daemon.cli(["--json", "run", "--graph", "chain", france]).run().await;
    let events = objects(&out);
    let last = events.last().unwrap();
    assert_eq!((code, last["state"].as_str(), last["event"].as_str()), (0, Some("completed"), Some("completed")));
    assert!(events.iter().any(|event| event["event"] == "token"), "{out}");
    let id = last["id"].as_str().unwrap();
    let (_, out, _) = daemon.cli(["task", "get", "--json"]).arg(id).run().await;
    let task = &objects(&out)[0];
    assert_eq!((task["id"].as_str(), task["state"].as_str()), (Some(id), Some("completed")));
    let (_, out, _) = daemon.cli(["task", "show"]).arg(id).run().await;
    assert!(out.contains("say") && out.contains("check") && out.contains("judge"), "{out}");
    let (_, out, _) = daemon.cli(["task", "list", "--json", "--label", "user=me"]).run().await;
    assert_eq!(objects(&out).iter().filter(|line| line["role"] == "zork").count(), 1, "{out}");
    let (code, out, _) = daemon.cli(["task", "watch", "--json"]).arg(id).run().await;
    let seqs: Vec<u64> =
        objects(&out).iter().filter_map(|event| event["seq"].as_u64()).filter(|seq| *seq > 0).collect();
    assert_eq!((code, seqs.clone()), (0, (1..=seqs.len() as u64).collect()));
    let (code, out, _) = daemon.cli(["task", "submit", "--json", "--role", "brief", "Hello"]).run().await;
    assert_eq!((code, objects(&out)[0]["id"].as_str().unwrap().len()), (0, 36));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_cancels_the_task() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let mut command = daemon.cli(["run", "--json", "--role", "teller", "Go on."]).into_command();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = Value::Null;
    let mut interrupted = false;
    while let Some(line) = lines.next_line().await.unwrap() {
        last = serde_json::from_str(&line).unwrap();
        if last["event"] == "token" && !interrupted {
            interrupted = true;
            kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
        }
    }
    assert_eq!((child.wait().await.unwrap().code(), last["event"].as_str()), (Some(1), Some("cancelled")), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_the_router_and_the_devices_are_shown() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let (code, out, err) = daemon.cli(["route", "--json", "How do I turn a PEFT adapter into GGUF?"]).run().await;
    assert_eq!(code, 0, "{err}");
    let route = &objects(&out)[0];
    assert_eq!((route["role"].as_str(), route["otherwise"].as_bool()), (Some("lora"), Some(false)), "{out}");
    assert!(route["confidence"].as_f64().unwrap() > 0.5, "{out}");
    let (_, out, _) = daemon.cli(["catalog", "list"]).run().await;
    for name in ["mentor", "council", "gguf", "smollm2", "teller"] {
        assert!(out.contains(name), "{name} in {out}");
    }
    let (_, out, _) = daemon.cli(["catalog", "show", "role", "teller"]).run().await;
    assert!(out.contains("You tell stories that never end."), "{out}");
    let (_, out, _) = daemon.cli(["graph", "show", "mentor", "--format", "mermaid"]).run().await;
    assert!(out.starts_with("flowchart"), "{out}");
    let (code, out, _) = daemon.cli(["devices", "--json"]).run().await;
    assert!(code == 0 && objects(&out).iter().any(|device| device["name"] == "CPU"), "{out}");
    let (code, out, err) = daemon.cli(["load", "talk"]).run().await;
    assert_eq!(code, 0, "{out}{err}");
    let (_, out, _) = daemon.cli(["engines", "--json"]).run().await;
    assert!(objects(&out).iter().any(|engine| engine["model"] == "talk" && engine["state"] == "ready"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_name_the_kind_of_failure() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let code = async |args: [&str; 3]| daemon.cli(args).run().await.0;
    assert_eq!(code(["run", "--role=brief", "Hello"]).await, 0);
    assert_eq!(code(["run", "--role=unknown", "Hello"]).await, 2);
    assert_eq!(code(["run", "--nonsense", "Hello"]).await, 2);
    let long = "many words ".repeat(3000);
    assert_eq!(daemon.cli(["run", "--role", "short"]).arg(&long).run().await.0, 1, "the task fails");
    let no_daemon = Cli::new(["devices"]).env("ARTEL_ADDRESS", "127.0.0.1:1");
    let (code, _, err) = no_daemon.run().await;
    assert_eq!((code, err.contains("artel serve")), (3, true), "{err}");
    let (code, _, err) = daemon.cli(["task", "answer", "0198c0de-0000-7000-8000-000000000000", "yes"]).run().await;
    assert_eq!((code != 0, err.contains("there is no task")), (true, true), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_every_broken_catalog_without_a_panic() {
    let mut dirs: Vec<_> =
        fs::read_dir(repository().join("roles/tests/broken")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let generated_dir = tempfile::tempdir().unwrap();
    let generated: [(&str, Vec<u8>); 4] = [
        ("large", b"# a comment that goes on and on\n".repeat(330_000)),
        ("binary", b"role: x\n\xc3\x28\x00\x01\x02".to_vec()),
        ("utf16", b"\xff\xfer\0o\0l\0e\0".to_vec()),
        ("deep", format!("role: x\nexamples: {}", "[".repeat(500_000)).into_bytes()),
    ];
    for (name, bytes) in generated {
        let dir = generated_dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("broken.yaml"), bytes).unwrap();
        dirs.push(dir);
    }
    assert!(dirs.len() >= 20);
    for dir in dirs {
        let (code, out, err) = Cli::new(["check"]).arg(&dir).run().await;
        assert_eq!(code, 1, "{}: {out}{err}", dir.display());
        assert!(!err.contains("panicked") && (out.contains(".yaml") || err.contains(".yaml")), "{out}{err}");
        let (code, out, _) = Cli::new(["check", "--json"]).arg(&dir).run().await;
        let objects = objects(&out);
        let last = objects.last().unwrap();
        assert_eq!((code, last["valid"].as_bool()), (1, Some(false)), "{out}");
        assert!(objects.len() > 1 && objects[0]["message"].is_string(), "{out}");
    }
    let (code, out, _) = Cli::new(["check"]).run().await;
    assert_eq!((code, out.contains("role")), (0, true), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_measures_a_daemon_of_its_own() {
    let model = artel_tests::models().join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let bench = Cli::new(["bench", "stall", "--json", "--repeats", "1", "--model"]).arg(&model);
    let (code, out, err) = bench.run().await;
    assert_eq!(code, 0, "{out}{err}");
    let rows = objects(&out);
    assert_eq!(rows.len(), 2, "{out}");
    for row in rows {
        // A story may end before the long prompt arrives, and then there is no gap.
        let least = if row["metric"].as_str().unwrap().contains("gap") { -1.0 } else { 0.0 };
        assert!(row["values"]["artel"]["median"].as_f64().unwrap() > least, "{row}");
        assert!(row["ratio"].is_null(), "there was no baseline: {row}");
    }
    let (code, _, err) = Cli::new(["bench", "roles", "--model", "missing.gguf"]).run().await;
    assert_eq!((code, err.contains("missing.gguf")), (1, true), "{err}");
}
