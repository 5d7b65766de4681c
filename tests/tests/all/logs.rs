//! The log: in three formats, in a level that changes, and to a reader that may stop.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::Duration;

use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Cli, Daemon, DaemonBuilder, daemon, task_request, test_catalog};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a pipe on Linux: a log that nothing reads fills it.
const PIPE_BYTES: usize = 64 << 10;
/// Tasks that log more than a pipe holds, at the level `trace`.
const TASKS: usize = 20;

fn scripted_daemon() -> DaemonBuilder {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script())
}

/// What the daemon says of its log.
async fn level(daemon: &Daemon) -> String {
    let (code, out, err) = daemon.cli(["log", "level"]).run().await;
    assert_eq!(code, 0, "{out}{err}");
    out.trim_end().to_owned()
}

/// Runs tasks, although nothing reads the log.
async fn run_tasks(daemon: &Daemon) {
    for _ in 0..TASKS {
        let mut task = daemon.run(task_request("Which sail for a storm?").with_graph("line")).await;
        let text = tokio::time::timeout(TEST_TIMEOUT, task.end()).await.expect("it ends").text();
        assert_eq!(text, "<<<<Which sail for a storm?>>>>");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nothing_reads_holds_up_neither_tasks_nor_the_end() {
    let mut daemon = scripted_daemon().with_env("ARTEL_LOG", "trace").with_unread_log().start().await;
    run_tasks(&daemon).await;
    daemon.signal(Signal::SIGTERM);
    let status = tokio::time::timeout(TEST_TIMEOUT, daemon.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(0));
    let mut log = Vec::new();
    daemon.unread_log().read_to_end(&mut log).await.unwrap();
    // Lines are written as they come, so that the last pages of the pipe need not be full.
    assert!(log.len() > PIPE_BYTES / 2 && log.len() <= PIPE_BYTES, "the pipe was full: {} bytes", log.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_back_gets_what_was_kept() {
    let mut daemon = scripted_daemon().with_env("ARTEL_LOG", "trace").with_unread_log().start().await;
    run_tasks(&daemon).await;
    let mut reader = daemon.unread_log();
    let reading = tokio::spawn(async move {
        let mut log = String::new();
        reader.read_to_string(&mut log).await.unwrap();
        log
    });
    daemon.signal(Signal::SIGTERM);
    let status = tokio::time::timeout(TEST_TIMEOUT, daemon.wait()).await.expect("it ends");
    let log = tokio::time::timeout(TEST_TIMEOUT, reading).await.expect("the pipe is closed").unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(log.len() > 2 * PIPE_BYTES, "more than the pipe held: {}", log.len());
    let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = records.last().unwrap()["fields"]["message"].as_str().unwrap();
    assert!(last.starts_with("stopped; unfinished tasks resume"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_changes_while_the_daemon_runs_until_it_reads_its_settings_again() {
    let daemon = scripted_daemon().with_settings("log: {level: warn}\n").start().await;
    assert_eq!(level(&daemon).await, "warn");
    let (code, out, err) = daemon.cli(["log", "level", "debug"]).run().await;
    assert_eq!((code, out.as_str()), (0, "debug, before: warn\n"), "{err}");
    daemon.until_logged("Admin/SetLogLevel").await;
    daemon.run(task_request("Hello").with_role("writer")).await.end().await;
    daemon.until_logged("\"level\":\"DEBUG\"").await;
    let (code, _, err) = daemon.cli(["log", "level", "info,artel=loud"]).run().await;
    assert!(code != 0 && err.contains("`info,artel=loud` is no filter of the log"), "{code} {err}");
    assert_eq!(level(&daemon).await, "debug");

    fs::write(daemon.dir().join("settings.yaml"), "log: {level: error}\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("the level of the log is that of the settings again").await;
    let back = async { while level(&daemon).await != "error" {} };
    tokio::time::timeout(TEST_TIMEOUT, back).await.expect("the level is that of the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_runs_follows_the_level() {
    const DETAIL: &str = "the request is finished";
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let request = || task_request("What is the capital of France?").with_role("short");
    daemon.run(request()).await.end().await;
    let (code, out, err) = daemon.cli(["log", "level", "info,artel_engine=debug"]).run().await;
    assert_eq!(code, 0, "{out}{err}");
    daemon.until_logged("Admin/SetLogLevel").await;
    let before = daemon.log();
    assert!(!before.contains(DETAIL), "{before}");
    let logged = async {
        while !daemon.log().contains(DETAIL) {
            daemon.run(request()).await.end().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, logged).await.expect("the engine logs more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_log_has_plain_values() {
    let daemon = scripted_daemon().start().await;
    daemon.run(task_request("Hello").with_role("writer")).await.end().await;
    daemon.until_logged("the engine is ready").await;
    let log = daemon.log();
    let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ready = records.iter().find(|record| record["fields"]["message"] == "the engine is ready").unwrap();
    let fields = &ready["fields"];
    assert!(fields["context_tokens"].is_u64() && fields["seconds"].is_f64(), "{fields}");
    let is_debug_output = |value: &Value| value.as_str().is_some_and(|text| text.contains(" { "));
    for record in &records {
        let fields = record["fields"].as_object().unwrap();
        assert!(!fields.values().any(is_debug_output), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_for_the_journal_have_priorities() {
    let daemon = scripted_daemon().with_env("ARTEL_LOG_FORMAT", "journald").with_env("ARTEL_MODLES", "m").start().await;
    daemon.until_logged("the limits of connections").await;
    let log = daemon.log();
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    let warning = log.lines().find(|line| line.contains("ARTEL_MODLES")).unwrap_or_else(|| panic!("{log}"));
    assert!(warning.starts_with("<4>") && warning.contains("did you mean ARTEL_MODELS?"), "{warning}");
    assert!(log.lines().any(|line| line.starts_with("<6>")), "{log}");
}

/// The log of a daemon that finds this in `JOURNAL_STREAM`, from its start to its end.
async fn log_with_journal_stream(stream: impl FnOnce(&File) -> String) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = File::create(&path).unwrap();
    let serve = Cli::new(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(dir.path().join("data"));
    let mut command = serve.env("JOURNAL_STREAM", stream(&log)).into_command();
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().expect("it listens");
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    tokio::time::timeout(TEST_TIMEOUT, child.wait()).await.expect("it ends").unwrap();
    fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_recognized_if_it_reads_the_log() {
    let log = log_with_journal_stream(|log| {
        let log = log.metadata().unwrap();
        format!("{}:{}", log.dev(), log.ino())
    });
    let log = log.await;
    assert!(log.contains("stopped; unfinished") && log.lines().all(|line| line.starts_with('<')), "{log}");
    let log = log_with_journal_stream(|_| "1:2".to_owned()).await;
    assert!(log.contains("stopped; unfinished") && !log.lines().any(|line| line.starts_with('<')), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_filter_or_format_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let serve = || Cli::new(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(dir.path());
    let (code, _, err) = serve().env("ARTEL_LOG", "info,artel=loud").run().await;
    assert!(code == 1 && err.contains("ARTEL_LOG is invalid: `info,artel=loud` is no filter of the log"), "{err}");
    let (code, _, err) = serve().arg("--log-format").arg("xml").run().await;
    assert!(code == 2 && err.contains("[possible values: text, json, journald]"), "{err}");
}
