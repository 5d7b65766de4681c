//! The data directory is for its user alone, whichever verb makes it, and whatever was there before.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_tests::hub::{ADAPTER_URI, HubServer};
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Cli, DaemonBuilder, daemon, task_request};
use nix::sys::signal::Signal;

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A user that no program here runs as.
const OTHER_USER_ID: u32 = 61_234;

fn scripted_daemon() -> DaemonBuilder {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A directory and everything below it.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(tree(&path)) } else { found.push(path) }
    }
    found
}

/// The paths that others may use in any way.
fn exposed(dir: &Path) -> Vec<PathBuf> {
    // A file of SQLite may vanish meanwhile.
    let is_exposed = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.mode() & 0o077 != 0);
    tree(dir).into_iter().filter(is_exposed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_makes_a_directory_that_is_private() {
    let hub = HubServer::start();
    let dir = tempfile::tempdir().unwrap();
    let (catalog, data) = (dir.path().join("catalog"), dir.path().join("data"));
    fs::create_dir(&catalog).unwrap();
    let yaml = format!("role: velo\ndescription: D.\nmodel: smollm2\nadapter: {ADAPTER_URI}\nprompt: P.\n");
    fs::write(catalog.join("own.yaml"), yaml).unwrap();
    let fetch = Cli::new(["fetch", "smollm2", "--catalog"]).arg(&catalog).arg("--data").arg(&data);
    let (code, out, err) = fetch.env("HF_ENDPOINT", &hub.endpoint).run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(tree(&data).iter().any(|path| path.ends_with("velo.gguf")), "{:?}", tree(&data));
    assert_eq!((mode(&data), exposed(&data)), (0o700, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_an_earlier_version_is_made_private_at_the_start() {
    // Its mode is what the umask leaves, as in an earlier version.
    let daemon = scripted_daemon().with_data("note", b"mine").start().await;
    daemon.run(task_request("Hello").with_role("writer")).await.end().await;
    let data = daemon.dir().join("data");
    assert_eq!(
        (mode(&data), exposed(&data)),
        (0o700, vec![data.join("note")]),
        "what was there lies in a private directory"
    );
    daemon.until_logged("its mode is now 0700").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_models_elsewhere_keeps_its_mode() {
    let hub = HubServer::start();
    let dir = tempfile::tempdir().unwrap();
    let (catalog, data, models) = (dir.path().join("catalog"), dir.path().join("data"), dir.path().join("models"));
    [&catalog, &models].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    fs::set_permissions(&models, fs::Permissions::from_mode(0o755)).unwrap();
    let yaml = format!("role: velo\ndescription: D.\nmodel: smollm2\nadapter: {ADAPTER_URI}\nprompt: P.\n");
    fs::write(catalog.join("own.yaml"), yaml).unwrap();
    let fetch = Cli::new(["fetch", "smollm2", "--catalog"]).arg(&catalog).arg("--data").arg(&data);
    let (code, out, err) = fetch.arg("--models").arg(&models).env("HF_ENDPOINT", &hub.endpoint).run().await;
    assert_eq!((code, mode(&models), mode(&data)), (0, 0o755, 0o700), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_of_an_open_directory_and_a_repair_closes_it() {
    let mut daemon = scripted_daemon().start().await;
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    let data = daemon.dir().join("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let (_, out, err) = Cli::new(["doctor", "--json", "--data"]).arg(&data).run().await;
    let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    let access = |advice: &&serde_json::Value| advice["subject"] == "access";
    let advice = report["advice"].as_array().unwrap().iter().find(access).unwrap_or_else(|| panic!("{report}"));
    assert!(advice["message"].as_str().unwrap().contains("mode 0755"), "{advice}");
    assert_eq!(mode(&data), 0o755, "a doctor changes nothing");
    let (_, out, err) = Cli::new(["journal", "repair", "--data"]).arg(&data).run().await;
    assert_eq!((mode(&data), exposed(&data)), (0o700, Vec::new()), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_user_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    if chown(&data, Some(OTHER_USER_ID), None).is_err() {
        // Only root can make such a directory.
        return;
    }
    let serve = Cli::new(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let (code, _, err) = tokio::time::timeout(TEST_TIMEOUT, serve.run()).await.expect("it does not serve");
    assert_eq!((code, err.contains(&format!("it belongs to user {OTHER_USER_ID}"))), (1, true), "{err}");
    assert_eq!(tree(&data), [data], "nothing was written");
}
