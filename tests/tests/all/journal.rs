//! Journals that a daemon cannot or must not use: the error says why and what to do, and the journal stays unchanged.

use std::fs;
use std::path::{Path, PathBuf};

use artel_tests::scripted::{SCRIPTED_CATALOG, model_script, scripted_requests};
use artel_tests::{Cli, Daemon, daemon};
use nix::sys::signal::Signal;

/// The offset of the user version in an SQLite file, https://sqlite.org/fileformat.html
const USER_VERSION_OFFSET_BYTES: usize = 60;
const PAGE_BYTES: usize = 4096;

/// A daemon that has run some tasks.
async fn daemon_with_tasks() -> Daemon {
    let daemon = daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script()).start().await;
    for n in 0..40 {
        let request = scripted_requests().swap_remove(n % 4);
        daemon.run(request).await.end().await;
    }
    daemon
}

/// The path of its journal, after it has stopped.
async fn stopped_journal(mut daemon: Daemon) -> (Daemon, PathBuf) {
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await.code(), Some(0));
    let path = daemon.dir().join("data/journal.sqlite");
    (daemon, path)
}

async fn serve(data: &Path) -> (i32, String) {
    let (code, _, err) = Cli::new(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).run().await;
    (code, err)
}

async fn check(data: &Path) -> (i32, String) {
    let (code, out, err) = Cli::new(["journal", "check", "--data"]).arg(data).run().await;
    (code, format!("{out}{err}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_one_directory_is_refused_and_the_first_goes_on() {
    let daemon = daemon_with_tasks().await;
    let data = daemon.dir().join("data");
    let (code, err) = serve(&data).await;
    assert_eq!((code, err.contains("another daemon uses this directory")), (1, true), "{err}");
    daemon.run(scripted_requests().swap_remove(0)).await.end().await.text();
    let (code, text) = check(&data).await;
    assert_eq!((code, text.contains("41 tasks")), (0, true), "{text}");
    let (_, out, err) = Cli::new(["doctor", "--json", "--data"]).arg(&data).run().await;
    let diagnosis: serde_json::Value = serde_json::from_str(out.trim()).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let journal = &diagnosis["journal"];
    assert_eq!((journal["running"].as_u64(), journal["failed"].as_u64()), (Some(0), Some(10)), "{out}");
    assert_eq!(diagnosis["retention"]["tasks"], 10_000, "{out}");
    assert!(diagnosis["disk_free_bytes"].as_u64() > Some(0) && diagnosis["devices"][0] == "CPU", "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_a_newer_program_is_refused_and_left_unchanged() {
    let (daemon, path) = stopped_journal(daemon_with_tasks().await).await;
    let mut bytes = fs::read(&path).unwrap();
    bytes[USER_VERSION_OFFSET_BYTES..USER_VERSION_OFFSET_BYTES + 4].copy_from_slice(&99u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let (code, err) = serve(path.parent().unwrap()).await;
    assert_eq!((code, err.contains("use the newer program")), (1, true), "{err}");
    let (code, text) = check(path.parent().unwrap()).await;
    assert_eq!((code, text.contains("use the newer program")), (1, true), "{text}");
    assert!(fs::read(&path).unwrap() == bytes, "nothing was written");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_are_found_by_the_check() {
    let (daemon, path) = stopped_journal(daemon_with_tasks().await).await;
    let (code, text) = check(path.parent().unwrap()).await;
    assert_eq!((code, text.starts_with("intact: 40 tasks")), (0, true), "{text}");
    let mut bytes = fs::read(&path).unwrap();
    // The last pages hold the newest events.
    let from = bytes.len() - 3 * PAGE_BYTES;
    bytes[from..].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let (code, text) = check(path.parent().unwrap()).await;
    assert_eq!((code, text.contains("damaged")), (1, true), "{text}");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_goes_on_with_a_repaired_journal() {
    let (daemon, path) = stopped_journal(daemon_with_tasks().await).await;
    let mut bytes = fs::read(&path).unwrap();
    let from = bytes.len() - 3 * PAGE_BYTES;
    bytes[from..].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let data = path.parent().unwrap();
    let (code, out, err) = Cli::new(["journal", "repair", "--json", "--data"]).arg(data).run().await;
    assert_eq!(code, 0, "{out}{err}");
    let repair: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    let (kept, failed) = (repair["kept"].as_u64().unwrap(), repair["failed"].as_array().unwrap().len());
    assert!(kept > 0 && kept < 40, "{out}");
    assert!(fs::read(Path::new(repair["backup"].as_str().unwrap()).join("journal.sqlite")).unwrap() == bytes, "{out}");
    let (code, text) = check(data).await;
    let expected = format!("intact: {} tasks", kept as usize + failed);
    assert_eq!((code, text.starts_with(&expected)), (0, true), "{text}");
    let daemon = daemon.restart().await;
    daemon.run(scripted_requests().swap_remove(0)).await.end().await.text();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    let (code, err) = serve(&file.join("data")).await;
    assert_eq!((code, err.contains("check that it exists")), (1, true), "{err}");
}
