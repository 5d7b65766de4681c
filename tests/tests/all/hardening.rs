//! What others may see of the daemon's processes: no secret, no core dump, and no memory.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use artel_tests::{Cli, OTHER_USER_ID, daemon, program_for_other_user, task_request, test_catalog};
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::engines::load;

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Secrets in the environment of the daemon.
const CANARIES: [(&str, &str); 3] = [
    ("HF_TOKEN", "hf_canary_one_of_a_test"),
    ("ARTEL_TOKEN", "canary_two_of_a_test"),
    ("SOME_API_KEY", "canary_three_of_a_test"),
];

/// The soft and the hard limit of core dumps.
fn core_limits(process: u32) -> (String, String) {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let mut values = line.split_whitespace().map(str::to_owned);
    (values.next().unwrap(), values.next().unwrap())
}

/// The user who owns the memory of a process in `/proc`: root, if the process is not dumpable.
fn owner_of_memory(process: u32) -> u32 {
    fs::metadata(format!("/proc/{process}/mem")).unwrap().uid()
}

async fn until_not_dumpable(process: u32) {
    let changed = async {
        while owner_of_memory(process) != 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, changed).await.expect("its memory belongs to root");
}

/// Every file below a directory that has one of these texts.
fn files_with(dir: &Path, texts: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, texts));
            continue;
        }
        // A file of SQLite may vanish meanwhile.
        let bytes = fs::read(&path).unwrap_or_default();
        let has = |text: &&str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        found.extend(texts.iter().any(has).then_some(path));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_the_environment_reach_neither_engines_nor_the_log_nor_the_disk() {
    let builder = daemon().with_yaml(&test_catalog()).with_env("OMP_NUM_THREADS", "1").with_env("ARTEL_LOG", "debug");
    let builder = CANARIES.iter().fold(builder, |builder, (name, value)| builder.with_env(name, value));
    let daemon = builder.start().await;
    daemon.run(task_request("Hello").with_role("short")).await.end().await;
    let engine = load(&daemon, "talk").await;
    let environment = fs::read_to_string(format!("/proc/{}/environ", engine.process_id)).unwrap();
    let texts: Vec<&str> = CANARIES.iter().flat_map(|(name, value)| [*name, *value]).collect();
    assert!(environment.contains("PATH=") && environment.contains("OMP_NUM_THREADS=1"), "{environment}");
    assert!(environment.contains("ARTEL_LOG=debug"), "{environment}");
    assert!(!texts.iter().any(|text| environment.contains(text)), "{environment}");
    let values: Vec<&str> = CANARIES.iter().map(|(_, value)| *value).collect();
    // Its catalog, its data, its log.
    assert_eq!(files_with(daemon.dir(), &values), Vec::<PathBuf>::new());
    daemon.until_logged("the environment (HF_TOKEN)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_the_daemon_nor_its_engines_dump_core_unless_the_settings_say_so() {
    let none = ("0".to_owned(), "0".to_owned());
    let daemon_without = daemon().with_yaml(&test_catalog()).start().await;
    let engine = load(&daemon_without, "talk").await;
    assert_eq!([daemon_without.process_id(), engine.process_id].map(core_limits), [none.clone(), none]);
    if getrlimit(Resource::RLIMIT_CORE).unwrap().1 == 0 {
        // Nothing could be allowed.
        return;
    }
    let daemon_with = daemon().with_yaml(&test_catalog()).with_settings("core_dumps: true\n").start().await;
    let engine = load(&daemon_with, "talk").await;
    for (soft, hard) in [daemon_with.process_id(), engine.process_id].map(core_limits) {
        assert!(soft == hard && soft != "0", "{soft} {hard}");
    }
}

/// Whether a program of the same user can read a file.
async fn can_nobody_read(path: &str) -> bool {
    let mut cat = Cli::program(Path::new("/bin/cat"), []).arg(path).into_command();
    cat.uid(OTHER_USER_ID)
        .gid(OTHER_USER_ID)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .unwrap()
        .success()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_daemon_is_closed_to_its_own_user_and_the_daemon_works() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = program_for_other_user(dir.path()) else { return };
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(OTHER_USER_ID), Some(OTHER_USER_ID)).unwrap();
    let serve = Cli::program(&program, ["serve", "--json", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let mut command = serve.env("HOME", &data).into_command();
    let mut child = command.uid(OTHER_USER_ID).gid(OTHER_USER_ID).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready: serde_json::Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let process = child.id().unwrap();
    assert_eq!(owner_of_memory(process), 0);
    assert_eq!(core_limits(process), ("0".to_owned(), "0".to_owned()));
    assert!(can_nobody_read(&format!("/proc/{process}/status")).await, "it is the same user");
    assert!(!can_nobody_read(&format!("/proc/{process}/environ")).await);
    // The probe of the devices is a process of the daemon's own program.
    let devices = Cli::new(["devices", "--json"]).env("ARTEL_ADDRESS", ready["listening"].as_str().unwrap());
    let devices = devices.arg("--data").arg(&data);
    let (code, out, err) = devices.run().await;
    assert!(code == 0 && out.contains("\"CPU\""), "{code} {out}{err}");
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_an_engine_is_closed_to_its_own_user() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = program_for_other_user(dir.path()) else { return };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Cli::program(&program, ["engine", "talk"]).into_command();
    let command = command.uid(OTHER_USER_ID).gid(OTHER_USER_ID).stdin(OwnedFd::from(theirs)).stderr(Stdio::null());
    let mut engine = command.spawn().unwrap();
    let process = engine.id().unwrap();
    until_not_dumpable(process).await;
    assert!(!can_nobody_read(&format!("/proc/{process}/environ")).await);
    drop(ours);
    tokio::time::timeout(TEST_TIMEOUT, engine.wait()).await.expect("it ends with its socket").unwrap();
}
