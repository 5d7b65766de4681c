//! Clients of other languages: one that knows nothing but reflection, and the one of the documentation.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;

use artel_proto::v1;
use artel_tests::{Cli, crew, daemon, python, repository};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_client_learns_everything_by_reflection() {
    let daemon = daemon().with_yaml(&crew()).start().await;
    let address = daemon.address.trim_start_matches("http://").to_owned();
    let script = repository().join("tests/scripts/reflect.py");
    let cli = Cli::program(&python(), []).arg(script).arg(&address).arg("zork").arg("teller");
    let (code, out, err) = cli.run().await;
    assert_eq!(code, 0, "{out}{err}");
    let line = |word: &str| out.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{word}: {out}"));
    for service in ["Tasks", "Catalog", "Router", "Engines"] {
        assert!(line("services").contains(&format!("artel.v1.{service}")), "{out}");
    }
    assert!(line("services").contains("grpc.health.v1.Health"));
    for kind in ["accepted", "step_started", "token", "step_finished", "completed"] {
        assert!(line("stream").contains(kind), "{out}");
    }
    assert!(line("text").contains("Zorkville"), "{out}");
    assert_eq!(line("cancelled"), "cancelled TASK_STATE_CANCELLED enough True");
}

/// The documented client, and the modules that its first lines say how to generate.
async fn documented(dir: &std::path::Path) -> std::path::PathBuf {
    let client = dir.join("artel_client.py");
    std::fs::copy(repository().join("docs/clients/artel_client.py"), &client).unwrap();
    let protos = ["tasks", "events", "router"].map(|name| format!("artel/v1/{name}.proto"));
    let [tasks, events, router] = &protos;
    let generate = Cli::program(&python(), ["-m", "grpc_tools.protoc", tasks, events, router]);
    let generate = generate.arg(format!("-I{}", repository().join("proto/proto").display()));
    let generate = generate.arg(format!("--python_out={}", dir.display()));
    let (code, out, err) = generate.arg(format!("--grpc_python_out={}", dir.display())).run().await;
    assert_eq!(code, 0, "{out}{err}");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_client_submits_streams_and_cancels() {
    let daemon = daemon().with_yaml(&crew()).start().await;
    let address = daemon.address.trim_start_matches("http://").to_owned();
    let dir = tempfile::tempdir().unwrap();
    let client = documented(dir.path()).await;
    assert!(std::fs::read_to_string(&client).unwrap().lines().count() <= 32, "it is a short client");
    let call = |role: &str, text: &str| Cli::program(&python(), []).arg(&client).arg(&address).arg(role).arg(text);
    let (code, out, err) = call("mirk", "What is the capital of France?").run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("Mirkholm") && out.contains("TASK_STATE_COMPLETED"), "{out}");

    let mut command = call("teller", "Tell a long story.").into_command();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id = lines.next_line().await.unwrap().unwrap().trim_start_matches("task ").to_owned();
    daemon.watch(&id, 0).await.until_it_speaks().await;
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
    for service in ["", "artel.v1.Tasks", "artel.v1.Catalog", "artel.v1.Router", "artel.v1.Engines"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
}
