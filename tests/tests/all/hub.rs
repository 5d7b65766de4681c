//! Models and adapters from a hub, here a test server on the loopback.

use std::fs;
use std::path::Path;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::progress::Stage;
use artel_tests::hub::{ADAPTER_URI, HubServer, MODEL_URI};
use artel_tests::tls_proxy::TlsProxy;
use artel_tests::{Cli, daemon, task_request};
use nix::sys::signal::Signal;

fn catalog() -> String {
    format!(
        "model: smol\nfile: {MODEL_URI}\ncontext: 1024\nsequences: 2\n---\n\
         role: velo\ndescription: Knows capitals.\nmodel: smol\nadapter: {ADAPTER_URI}\n\
         prompt: You are a geography expert.\nsampling: {{temperature: 0, max_tokens: 24}}\nlimits: {{timeout: 5m}}\n"
    )
}

fn loaded_fraction(kind: &Kind) -> f64 {
    match kind {
        Kind::Progress(v1::Progress { stage: Some(Stage::Loading(loading)), .. }) => loading.fraction,
        _ => 0.0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_fetched_when_it_is_first_needed_and_then_serves_without_a_hub() {
    let hub = HubServer::start();
    let daemon = daemon().with_yaml(&catalog()).without_models();
    let daemon = daemon.with_env("HF_ENDPOINT", &hub.endpoint).with_env("HF_TOKEN", "hf_of_a_test").start().await;
    let plan = daemon.engines().get_placement(v1::GetPlacementRequest::default()).await.unwrap().into_inner();
    assert!(plan.unplaced.iter().any(|m| m.model == "smol" && m.reason.contains("not fetched yet")), "{plan:?}");
    assert!(hub.requests().is_empty(), "a plan fetches nothing");

    let mut run = daemon.run(task_request("What is the capital of France?").with_role("velo")).await;
    run.until(|kind| loaded_fraction(kind) > 0.5).await;
    let engines = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner().engines;
    assert!(engines.iter().any(|e| e.model == "smol" && e.loaded_fraction > 0.5), "{engines:?}");
    hub.resume();
    let text = run.end().await.text();
    assert!(text.contains("Velograd"), "{text}");

    let downloads = hub.file_requests();
    assert_eq!(downloads.len(), 2, "{downloads:?}");
    assert!(downloads[1].has_header("range: bytes=") && downloads[1].has_header("if-range: \"blob\""), "{downloads:?}");
    assert!(hub.requests().iter().all(|request| request.has_header("authorization: bearer hf_of_a_test")));
    assert!(!downloads.iter().any(|request| request.has_header("authorization")), "the token stays with the hub");
    let log = daemon.whole_log().await;
    assert!(log.contains("interrupted") && !log.contains("hf_of_a_test") && !log.contains("signature"), "{log}");

    drop(hub);
    daemon.signal(Signal::SIGTERM);
    let offline = daemon.after_exit().await.without_models().with_settings("offline: true\n").start().await;
    let text = offline.run(task_request("What is the capital of France?").with_role("velo")).await.end().await.text();
    assert!(text.contains("Velograd"), "{text}");
}

fn cli_in<const N: usize>(args: [&str; N], dir: &Path) -> Cli {
    let cli = Cli::new(args).arg("--catalog").arg(dir.join("catalog")).arg("--models").arg(dir.join("models"));
    cli.arg("--data").arg(dir.join("data"))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_fetched_ahead_of_time_by_command() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("catalog")).unwrap();
    fs::write(dir.path().join("catalog/own.yaml"), catalog()).unwrap();
    let check = || Cli::new(["check", "--models"]).arg(dir.path().join("models")).arg(dir.path().join("catalog"));
    let (_, out, err) = check().run().await;
    assert!(out.contains("model `smol`: hf:org/smol/q4/smol.gguf is not fetched yet"), "{out}{err}");

    // Offline the model is missing, and the message names the expected path.
    let path = dir.path().join("models").join(HubServer::model_path());
    let (code, out, err) = cli_in(["fetch", "smol"], dir.path()).env("ARTEL_OFFLINE", "1").run().await;
    assert!(code == 1 && out.contains(&*path.to_string_lossy()), "{code} {out}{err}");

    let hub = HubServer::start();
    hub.resume();
    let (code, out, err) = cli_in(["fetch", "--json"], dir.path()).env("HF_ENDPOINT", &hub.endpoint).run().await;
    assert_eq!(code, 0, "{out}{err}");
    let fetched: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        fetched.iter().map(|one| one["address"].as_str().unwrap()).collect::<Vec<_>>(),
        [ADAPTER_URI, MODEL_URI]
    );
    assert_eq!(fetched[1]["path"], *path.to_string_lossy());
    assert!(path.exists());
    let (_, out, err) = check().run().await;
    assert!(!out.contains("smol`"), "{out}{err}");

    let (code, _, err) = cli_in(["fetch", "smoll"], dir.path()).run().await;
    assert!(code == 1 && err.contains("is `smol` meant?"), "{code} {err}");
    let missing = "model: gone\nfile: hf:org/smol/gone.gguf\n";
    fs::write(dir.path().join("catalog/gone.yaml"), missing).unwrap();
    let (code, out, _) = cli_in(["fetch", "gone"], dir.path()).env("HF_ENDPOINT", &hub.endpoint).run().await;
    assert!(code == 1 && out.contains("no file `gone.gguf` in org/smol"), "{code} {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_is_reached_over_tls_if_its_certificate_can_be_trusted() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("catalog")).unwrap();
    fs::write(dir.path().join("catalog/own.yaml"), format!("model: velo\nfile: {ADAPTER_URI}\n")).unwrap();
    let hub = HubServer::start();
    let proxy = TlsProxy::start(hub.address());
    let fetch =
        || cli_in(["fetch", "velo"], dir.path()).env("HF_ENDPOINT", proxy.endpoint()).env("HF_TOKEN", "hf_secret");

    let (code, out, err) = fetch().run().await;
    assert!(
        code == 1 && out.contains("127.0.0.1 cannot be trusted") && out.contains("ca-certificates"),
        "{code} {out}{err}"
    );
    assert!(hub.requests().is_empty(), "no token was sent to an untrusted server");

    let (code, out, err) = fetch().env("SSL_CERT_FILE", proxy.certificate()).run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        hub.requests().iter().all(|request| request.has_header("authorization: bearer hf_secret")),
        "{:?}",
        hub.requests()
    );
    let fetched = fs::read(dir.path().join("models/hf/org/lora/v1/velo.gguf")).unwrap();
    assert_eq!(fetched, fs::read(artel_tests::repository().join("tests/fixtures/adapters/velo.gguf")).unwrap());
}
