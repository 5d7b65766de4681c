//! The process of a stand-in trainer: a package of a few lines, run by a real interpreter.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use artel_trainer::{
    Environment, EnvironmentOptions, EnvironmentState, Interpreter, InterpreterError, SetupError, TailedEvent,
    TrainerEvent, TrainerOutcome, TrainerProcess, TrainerSource,
};
use futures::{Stream, StreamExt as _};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// The time for something that must happen, on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(120);

/// Does what `settings.json` of the run says, line by line of Python.
const STAND_IN: &str = r#"
import json, os, signal, subprocess, sys, threading, time

verb, run = sys.argv[1:]
assert verb == "train", verb

def watch():
    os.read(0, 1)  # Not sys.stdin, whose lock would abort the interpreter at its end.
    open(os.path.join(run, "lost"), "w").close()
    os._exit(9)

threading.Thread(target=watch, daemon=True).start()

def say(event, end="\n", **fields):
    with open(os.path.join(run, "events.jsonl"), "a") as file:
        file.write(json.dumps({"event": event, "at": time.time(), **fields}) + end)

def wait():
    while True:
        time.sleep(600)

exec(open(os.path.join(run, "script.py")).read())
"#;

struct ProcessStage {
    dir: TempDir,
    environment: Environment,
}

impl ProcessStage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = EnvironmentOptions::below(dir.path().join("trainer"));
        let files = [("artel_trainer/__init__.py", ""), ("artel_trainer/__main__.py", STAND_IN)];
        options.source = TrainerSource::of_files(files.map(|(path, text)| (path.to_owned(), text.to_owned()))).unwrap();
        options.required_packages = Vec::new();
        options.existing = Some(python());
        Self { dir, environment: Environment::new(options) }
    }

    fn run(&self) -> &Path {
        self.dir.path()
    }

    async fn interpreter(&self) -> Interpreter {
        self.environment.interpreter().await.unwrap()
    }

    async fn start(&self, script: &str) -> TrainerProcess {
        fs::write(self.run().join("script.py"), script).unwrap();
        TrainerProcess::start(self.interpreter().await, self.run()).unwrap()
    }

    /// Makes a pipe of this name in the run's directory. What is written to it comes when no process has it open any more.
    fn pipe(&self, name: &str) -> oneshot::Receiver<String> {
        let path = self.run().join(name);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let (sender, written) = oneshot::channel();
        // A thread of its own, which a runtime does not wait for.
        std::thread::spawn(move || sender.send(fs::read_to_string(path).unwrap()));
        written
    }
}

/// The first interpreter on the path that runs.
fn python() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut all = std::env::split_paths(&path).map(|dir| dir.join("python3")).filter(|path| path.is_file());
    all.next().expect("the tests need python3 on the path")
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it takes too long")
}

type ProcessEvents<'p> = Pin<Box<dyn Stream<Item = TailedEvent> + Send + 'p>>;

fn events(process: &TrainerProcess, offset_bytes: u64) -> ProcessEvents<'_> {
    Box::pin(process.events(offset_bytes).map(Result::unwrap))
}

const FINISH: &str = "
say('checkpoint', step=1)
say('checkpoint', step=2)
say('finished', step=2, samples_per_second=0.5, peak_bytes=7)
";

#[tokio::test]
async fn a_run_is_heard_to_its_end_and_from_any_of_its_events_on() {
    let stage = ProcessStage::new();
    let process = stage.start(FINISH).await;
    let all: Vec<TailedEvent> = within(events(&process, 0).collect()).await;
    assert_eq!(all.len(), 3);
    assert_eq!(all[1].event, TrainerEvent::Checkpoint { step: 2 });
    let outcome = TrainerOutcome::Finished { step: 2, samples_per_second: 0.5, peak_bytes: 7 };
    assert_eq!(within(process.ended()).await, outcome);
    let rest: Vec<TailedEvent> = within(events(&process, all[0].next_offset_bytes).collect()).await;
    assert_eq!(rest, all[1..]);
}

#[tokio::test]
async fn a_run_that_goes_on_writes_behind_the_half_line_of_one_that_was_killed() {
    let stage = ProcessStage::new();
    let first = stage.start(FINISH).await;
    assert!(matches!(within(first.ended()).await, TrainerOutcome::Finished { .. }));
    let killed = stage.start("say('checkpoint', end='', step=3)\nos.kill(os.getpid(), 9)").await;
    // What the first one wrote does not speak for this one.
    let outcome = within(killed.ended()).await;
    assert!(matches!(outcome, TrainerOutcome::Killed { signal: 9, .. }), "{outcome:?}");
    let second = stage.start("say('checkpoint', step=5)").await;
    let all: Vec<TailedEvent> = within(events(&second, 0).collect()).await;
    assert_eq!(all.last().unwrap().event, TrainerEvent::Checkpoint { step: 5 });
    let outcome = within(second.ended()).await;
    assert!(matches!(outcome, TrainerOutcome::Ended { code: Some(0), .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_stopped_run_pauses_and_one_that_does_not_is_killed_with_its_children() {
    let stage = ProcessStage::new();
    let pause = "
def pause(*_):
    say('paused', step=3)
    os._exit(4)
signal.signal(signal.SIGTERM, pause)
say('checkpoint', step=3)
wait()
";
    let process = stage.start(pause).await;
    within(events(&process, 0).next()).await.unwrap();
    assert_eq!(within(process.stop(DEADLINE)).await, TrainerOutcome::Paused { step: 3 });

    let stage = ProcessStage::new();
    let ignore = "
signal.signal(signal.SIGTERM, signal.SIG_IGN)
alive = open(run + '/alive', 'w')
child = subprocess.Popen(['sleep', '600'], pass_fds=[alive.fileno()])
say('checkpoint', step=1)
wait()
";
    let alive = stage.pipe("alive");
    let process = stage.start(ignore).await;
    assert!(within(events(&process, 0).next()).await.is_some());
    let outcome = within(process.stop(Duration::from_millis(100))).await;
    assert!(matches!(outcome, TrainerOutcome::Killed { signal: 9, .. }), "{outcome:?}");
    within(alive).await.unwrap();
}

#[tokio::test]
async fn a_dropped_run_is_gone_with_its_children() {
    let stage = ProcessStage::new();
    let script = "
alive = open(run + '/alive', 'w')
child = subprocess.Popen(['sleep', '600'], stdin=subprocess.DEVNULL, pass_fds=[alive.fileno()])
say('checkpoint', step=1)
wait()
";
    let alive = stage.pipe("alive");
    let process = stage.start(script).await;
    assert!(within(events(&process, 0).next()).await.is_some());
    drop(process);
    within(alive).await.unwrap();
    assert!(!stage.run().join("lost").exists(), "it was killed, and did not see its standard input end first");
}

#[test]
fn a_run_ends_with_the_runtime() {
    let stage = ProcessStage::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let alive = stage.pipe("alive");
    let script = "alive = open(run + '/alive', 'w')\nsay('checkpoint', step=1)\nwait()";
    let process = runtime.block_on(stage.start(script));
    runtime.block_on(async { within(events(&process, 0).next()).await });
    // As when the runtime ends before its tasks: none is there to wait for the process.
    drop(runtime);
    drop(process);
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    waiting.block_on(within(alive)).unwrap();
}

/// The directory of the daemon that is to be killed; only its process has this variable.
const DOOMED_DIR: &str = "DOOMED_DAEMON_DIR";

/// Not a test by itself: the daemon that the test below kills.
#[tokio::test]
async fn doomed_daemon() {
    let Some(dir) = std::env::var_os(DOOMED_DIR) else { return };
    let stage = ProcessStage::new();
    fs::write(stage.run().join("script.py"), format!("run = {dir:?}\nopen(run + '/begun', 'w').close()\nwait()"))
        .unwrap();
    let process = TrainerProcess::start(stage.interpreter().await, stage.run()).unwrap();
    process.ended().await;
}

#[tokio::test]
async fn a_run_sees_that_its_daemon_was_killed() {
    let stage = ProcessStage::new();
    let mut daemon = tokio::process::Command::new(std::env::current_exe().unwrap());
    daemon.args(["--exact", "doomed_daemon"]).env(DOOMED_DIR, stage.run()).kill_on_drop(true);
    let (begun, lost) = (stage.pipe("begun"), stage.pipe("lost"));
    let mut daemon = daemon.spawn().unwrap();
    within(begun).await.unwrap();
    daemon.kill().await.unwrap();
    within(lost).await.unwrap();
}

#[tokio::test]
async fn a_run_that_fails_says_why_and_one_that_dies_leaves_its_last_words() {
    let stage = ProcessStage::new();
    let process = stage.start("say('failed', kind='memory', message='too little memory')\nsys.exit(3)").await;
    let outcome = within(process.ended()).await;
    assert!(
        matches!(&outcome, TrainerOutcome::Failed(failure) if failure.message == "too little memory"),
        "{outcome:?}"
    );

    let process = stage.start("print('of no use', file=sys.stdout)\nraise ValueError('no such thing')").await;
    let outcome = within(process.ended()).await;
    let TrainerOutcome::Ended { code: Some(1), stderr } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(stderr.last().unwrap(), "ValueError: no such thing");
    assert!(outcome.to_string().ends_with("| ValueError: no such thing"), "{outcome}");
}

#[tokio::test]
async fn a_run_reads_no_variable_of_the_daemon_but_those_that_it_needs() {
    let stage = ProcessStage::new();
    let script = "
open(run + '/seen', 'w').write(json.dumps([dict(os.environ), sys.path, os.getcwd(), os.getpgid(0) == os.getpid()]))
";
    let seen = stage.pipe("seen");
    let process = stage.start(script).await;
    let seen: serde_json::Value = serde_json::from_str(&within(seen).await.unwrap()).unwrap();
    within(process.ended()).await;
    let variables = seen[0].as_object().unwrap();
    assert_eq!(variables["HF_HUB_OFFLINE"], "1");
    assert!(
        std::env::vars().any(|(name, _)| name.starts_with("CARGO"))
            && !variables.keys().any(|n| n.starts_with("CARGO"))
    );
    assert_eq!(seen[1][0], stage.run().join("trainer/source").to_str().unwrap(), "no module of the working directory");
    assert_eq!((&seen[2], &seen[3]), (&stage.run().to_str().unwrap().into(), &true.into()));
}

#[tokio::test]
async fn no_setup_changes_what_a_run_uses() {
    let stage = ProcessStage::new();
    let process = stage.start("say('checkpoint', step=1)\nwait()").await;
    let cancel = tokio_util::sync::CancellationToken::new();
    let busy = within(stage.environment.setup(|_| {}, &cancel)).await;
    assert!(matches!(busy, Err(SetupError::Busy { .. })), "{busy:?}");
    within(process.stop(Duration::ZERO)).await;
    let ready = within(stage.environment.setup(|_| {}, &cancel)).await.unwrap();
    assert_eq!((ready.python.major, ready.bytes), (3, 0));
}

#[tokio::test]
async fn an_existing_interpreter_that_is_none_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EnvironmentOptions::below(dir.path());
    options.existing = Some("/no/such/python".into());
    let environment = Environment::new(options);
    let state = environment.inspect().await;
    let EnvironmentState::Incomplete { reason } = state else { panic!("{state:?}") };
    assert!(
        reason.starts_with("the interpreter /no/such/python of `trainer_python`: it cannot be started"),
        "{reason}"
    );
    let error = environment.interpreter().await.unwrap_err();
    assert!(matches!(error, InterpreterError::Setup(SetupError::Existing { .. })) && error.is_passing(), "{error}");
    assert_eq!(error.to_string(), format!("use {reason}"));
    let cancel = tokio_util::sync::CancellationToken::new();
    let refused = within(environment.setup(|_| {}, &cancel)).await.unwrap_err();
    assert_eq!(refused.to_string(), error.to_string());
}

#[tokio::test]
async fn an_existing_interpreter_needs_the_packages_of_the_trainer_where_a_training_looks_for_them() {
    let dir = tempfile::tempdir().unwrap();
    // As an owner may have it: a script that tells the interpreter where packages are.
    let script = dir.path().join("python-of-ours");
    let text = "#!/bin/sh\nPYTHONPATH=\"$PYTHONPATH:$(dirname \"$0\")/packages\" exec '{}' \"$@\"\n";
    fs::write(&script, text.replace("{}", python().to_str().unwrap())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut options = EnvironmentOptions::below(dir.path().join("trainer"));
    options.existing = Some(script);
    options.required_packages = ["artel-one", "artel-other"].map(str::to_owned).to_vec();
    let environment = Environment::new(options);
    let install = |name: &str| {
        let facts = dir.path().join(format!("packages/{}-1.2.dist-info", name.replace('-', "_")));
        fs::create_dir_all(&facts).unwrap();
        fs::write(facts.join("METADATA"), format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")).unwrap();
    };
    for missing in ["it lacks artel-one, artel-other; install", "it lacks artel-other; install"] {
        let state = environment.inspect().await;
        let EnvironmentState::Incomplete { reason } = state else { panic!("{state:?}") };
        assert!(reason.contains(missing), "{reason}");
        install("artel-one");
    }
    install("artel-other");
    let state = environment.inspect().await;
    let EnvironmentState::Ready(ready) = state else { panic!("{state:?}") };
    let found: Vec<String> = ready.packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect();
    assert_eq!(found, ["artel-one 1.2", "artel-other 1.2"]);
}
