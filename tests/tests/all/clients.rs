//! Clients in another language: a generic one that uses reflection, and the documented one.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use artel_proto::v1;
use artel_tests::scripts::{python_modules, script};
use artel_tests::{Cli, daemon, python, repository, test_catalog};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_client_learns_everything_by_reflection() {
    let python = python();
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let address = daemon.address.trim_start_matches("http://").to_owned();
    let cli = Cli::program(&python, []).arg(script("reflect.py")).arg(&address).arg("zork").arg("teller");
    let cli = cli.env("ARTEL_TOKEN", &daemon.token);
    let (code, out, err) = cli.run().await;
    assert_eq!(code, 0, "{out}{err}");
    let line =
        |prefix: &str| out.lines().find(|line| line.starts_with(prefix)).unwrap_or_else(|| panic!("{prefix}: {out}"));
    for service in ["Tasks", "Catalog", "Router", "Engines", "Access", "Admin"] {
        assert!(line("services").contains(&format!("artel.v1.{service}")), "{out}");
    }
    assert!(line("services").contains("grpc.health.v1.Health"));
    for kind in ["accepted", "step_started", "token", "step_finished", "completed"] {
        assert!(line("stream").contains(kind), "{out}");
    }
    assert!(line("text").contains("Zorkville"), "{out}");
    assert_eq!(line("cancelled"), "cancelled TASK_STATE_CANCELLED enough True");
}

/// The documented client, beside the modules that the command of its first lines makes.
async fn documented_client(dir: &Path) -> PathBuf {
    let client = dir.join("artel_client.py");
    std::fs::copy(repository().join("docs/clients/artel_client.py"), &client).unwrap();
    python_modules(dir).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_client_submits_streams_and_cancels() {
    let python = python();
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let address = daemon.address.trim_start_matches("http://").to_owned();
    let dir = tempfile::tempdir().unwrap();
    let client = documented_client(dir.path()).await;
    assert!(std::fs::read_to_string(&client).unwrap().lines().count() <= 32, "it is a short client");
    let call = |role: &str, text: &str| {
        let call = Cli::program(&python, []).arg(&client).arg(&address).arg(role).arg(text);
        call.env("ARTEL_TOKEN", &daemon.token)
    };
    let (code, out, err) = call("mirk", "What is the capital of France?").run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("Mirkholm") && out.contains("TASK_STATE_COMPLETED"), "{out}");

    let mut command = call("teller", "Tell a long story.").into_command();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id = lines.next_line().await.unwrap().unwrap().trim_start_matches("task ").to_owned();
    daemon.watch(&id, 0).await.until_token().await;
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        last = line;
    }
    assert_eq!((child.wait().await.unwrap().code(), last.as_str()), (Some(1), "state TASK_STATE_CANCELLED"));
    let task = daemon.task(&id).await;
    assert_eq!((task.state(), task.cancel_reason.as_str()), (v1::TaskState::Cancelled, "Ctrl-C"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_service_answers() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let daemon = daemon().start().await;
    let mut health = HealthClient::new(daemon.channel());
    let services = ["Tasks", "Catalog", "Router", "Engines", "Access", "Admin"].map(|name| format!("artel.v1.{name}"));
    for service in services.into_iter().chain([String::new()]) {
        let request = HealthCheckRequest { service: service.clone() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
}
