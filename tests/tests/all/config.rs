//! Settings: where each comes from, what is misspelt, and secrets that lie in files.

use std::fs;
use std::path::Path;

use artel_tests::hub::{ADAPTER_URI, HubServer};
use artel_tests::{Cli, daemon};
use serde_json::{Value, json};

/// A token that must be seen nowhere but by the hub.
const TOKEN: &str = "hf_canary_of_a_test";

/// The rows of `artel config show --json`, and what it said on standard error.
async fn shown(cli: Cli) -> (Vec<Value>, String) {
    let (code, out, err) = cli.arg("--json").run().await;
    assert_eq!(code, 0, "{out}{err}");
    (out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), err)
}

fn row<'r>(rows: &'r [Value], key: &str) -> &'r Value {
    rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("no {key} in {rows:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_says_where_it_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("artel.yaml");
    fs::write(&file, "# mine\ndata: state\ntasks: 7\nretention:\n  age: 7d\nhf_token_file: token\n").unwrap();
    fs::write(dir.path().join("token"), TOKEN).unwrap();
    let show = || Cli::new(["config", "show", "--config"]).arg(&file);
    let (rows, err) = shown(show().arg("--log-level").arg("debug").env("ARTEL_MODELS", "/srv/gguf")).await;
    let (path, line) = (file.to_str().unwrap(), |line: u32| json!(line));
    let data = row(&rows, "data");
    assert_eq!((&data["value"], &data["source"]), (&json!(dir.path().join("state")), &json!("file")), "{data}");
    assert_eq!((&data["file"], &data["line"]), (&json!(path), &line(2)), "{data}");
    assert_eq!(row(&rows, "tasks")["value"], 7);
    assert_eq!((&row(&rows, "retention.age")["value"], &row(&rows, "retention.age")["line"]), (&json!("7d"), &line(5)));
    let models = row(&rows, "models");
    let expected =
        json!({"key": "models", "value": "/srv/gguf", "unit": null, "source": "environment", "name": "ARTEL_MODELS"});
    assert_eq!(models, &expected);
    let level = row(&rows, "log.level");
    assert_eq!(
        (&level["value"], &level["source"], &level["name"]),
        (&json!("debug"), &json!("flag"), &json!("--log-level"))
    );
    let disk = row(&rows, "prefix_cache.disk");
    assert_eq!((&disk["value"], &disk["unit"], &disk["source"]), (&json!(4096), &json!("MiB"), &json!("default")));
    let token = row(&rows, "hf_token_file");
    assert_eq!((&token["value"], &token["line"]), (&json!(dir.path().join("token")), &line(6)), "{token}");
    assert!(err.contains("warning: ") && err.contains("other users can read the token"), "{err}");
    assert!(!format!("{rows:?}{err}").contains(TOKEN));

    let (code, out, err) = show().run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.lines().any(|line| line.starts_with("tasks ") && line.ends_with(&format!("{path}:3"))), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_variable_is_named_at_the_start_and_by_the_doctor() {
    let words = "ARTEL_DATE is unknown and has no effect; did you mean ARTEL_DATA?";
    let daemon = daemon().with_env("ARTEL_DATE", "/nowhere").start().await;
    daemon.until_logged(words).await;
    let (_, out, err) = Cli::new(["doctor", "--data"]).arg(daemon.dir()).env("ARTEL_DATE", "/nowhere").run().await;
    assert!(out.contains(words) && !out.contains("/nowhere"), "{out}{err}");
}

/// Fetches an adapter from a hub; whether the hub got the token, and everything that was printed.
async fn fetched(dir: &Path, cli: impl FnOnce(Cli) -> Cli) -> (bool, String) {
    let catalog = dir.join("catalog");
    fs::create_dir_all(&catalog).unwrap();
    fs::write(catalog.join("own.yaml"), format!("model: velo\nfile: {ADAPTER_URI}\n")).unwrap();
    let hub = HubServer::start();
    let fetch = Cli::new(["fetch", "velo", "--catalog"]).arg(&catalog).arg("--data").arg(dir.join("data"));
    let (code, out, err) = cli(fetch.env("HF_ENDPOINT", &hub.endpoint)).run().await;
    assert_eq!(code, 0, "{out}{err}");
    fs::remove_dir_all(dir.join("data")).unwrap();
    let requests = hub.requests();
    assert!(!requests.is_empty());
    let header = format!("authorization: bearer {TOKEN}");
    (requests.iter().all(|request| request.has_header(&header)), out + &err)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_hub_lies_in_a_file_or_a_credential() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hf_token"), format!("{TOKEN}\n")).unwrap();
    let (was_sent, printed) = fetched(dir.path(), |fetch| fetch.env("CREDENTIALS_DIRECTORY", dir.path())).await;
    assert!(was_sent && !printed.contains(TOKEN), "{printed}");
    let settings = dir.path().join("artel.yaml");
    fs::write(&settings, "hf_token_file: hf_token\n").unwrap();
    let (was_sent, printed) = fetched(dir.path(), |fetch| fetch.arg("--config").arg(&settings)).await;
    assert!(was_sent && !printed.contains(TOKEN), "{printed}");
    let (was_sent, _) = fetched(dir.path(), |fetch| fetch).await;
    assert!(!was_sent);
}
