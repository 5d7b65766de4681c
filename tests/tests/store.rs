//! Journals that a daemon cannot or must not use: it says why and what to do, and leaves them alone.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use artel_tests::rehearsal::{TROUPE, plays, script};
use artel_tests::{Cli, Daemon, daemon};
use nix::sys::signal::Signal;

/// The byte of an SQLite file where the program's own version begins, https://sqlite.org/fileformat.html
const USER_VERSION: usize = 60;
const PAGE: usize = 4096;

/// A daemon that has run some tasks.
async fn used() -> Daemon {
    let daemon = daemon().with_yaml(TROUPE).in_rehearsal(&script()).start().await;
    for n in 0..40 {
        let play = plays().swap_remove(n % 4);
        daemon.run(play).await.end().await;
    }
    daemon
}

/// Its journal, after it has stopped.
async fn journal(mut daemon: Daemon) -> (Daemon, PathBuf) {
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit().await.code(), Some(0));
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
    let daemon = used().await;
    let data = daemon.dir().join("data");
    let (code, err) = serve(&data).await;
    assert_eq!((code, err.contains("another daemon uses this directory")), (1, true), "{err}");
    daemon.run(plays().swap_remove(0)).await.end().await.text();
    let (code, said) = check(&data).await;
    assert_eq!((code, said.contains("41 tasks")), (0, true), "{said}");
    let (_, out, err) = Cli::new(["doctor", "--json", "--data"]).arg(&data).run().await;
    let found: serde_json::Value = serde_json::from_str(out.trim()).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let journal = &found["journal"];
    assert_eq!((journal["running"].as_u64(), journal["failed"].as_u64()), (Some(0), Some(10)), "{out}");
    assert_eq!(found["retention"]["tasks"], 10_000, "{out}");
    assert!(found["disk_free_bytes"].as_u64() > Some(0) && found["devices"][0] == "CPU", "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_a_newer_program_is_refused_and_left_alone() {
    let (daemon, path) = journal(used().await).await;
    let mut bytes = fs::read(&path).unwrap();
    bytes[USER_VERSION..USER_VERSION + 4].copy_from_slice(&99u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let (code, err) = serve(path.parent().unwrap()).await;
    assert_eq!((code, err.contains("use the newer program")), (1, true), "{err}");
    let (code, said) = check(path.parent().unwrap()).await;
    assert_eq!((code, said.contains("use the newer program")), (1, true), "{said}");
    assert!(fs::read(&path).unwrap() == bytes, "nothing was written");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_are_found_by_the_check() {
    let (daemon, path) = journal(used().await).await;
    let (code, said) = check(path.parent().unwrap()).await;
    assert_eq!((code, said.starts_with("whole: 40 tasks")), (0, true), "{said}");
    let mut bytes = fs::read(&path).unwrap();
    // The last pages hold the newest events.
    let from = bytes.len() - 3 * PAGE;
    bytes[from..].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let (code, said) = check(path.parent().unwrap()).await;
    assert_eq!((code, said.contains("damaged")), (1, true), "{said}");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_goes_on_with_what_a_repair_kept() {
    let (daemon, path) = journal(used().await).await;
    let mut bytes = fs::read(&path).unwrap();
    let from = bytes.len() - 3 * PAGE;
    bytes[from..].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let data = path.parent().unwrap();
    let (code, out, err) = Cli::new(["journal", "repair", "--json", "--data"]).arg(data).run().await;
    assert_eq!(code, 0, "{out}{err}");
    let done: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    let (kept, failed) = (done["kept"].as_u64().unwrap(), done["failed"].as_array().unwrap().len());
    assert!(kept > 0 && kept < 40, "{out}");
    assert!(fs::read(Path::new(done["backup"].as_str().unwrap()).join("journal.sqlite")).unwrap() == bytes, "{out}");
    let (code, said) = check(data).await;
    let whole = format!("intact: {} tasks", kept as usize + failed);
    assert_eq!((code, said.starts_with(&whole)), (0, true), "{said}");
    let daemon = daemon.again().await;
    daemon.run(plays().swap_remove(0)).await.end().await.text();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    let (code, err) = serve(&file.join("data")).await;
    assert_eq!((code, err.contains("check that it exists")), (1, true), "{err}");
}
