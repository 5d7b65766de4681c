//! Setups with a real interpreter and a stand-in for uv, which fails as it is told.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use artel_trainer::{
    Environment, EnvironmentOptions, EnvironmentState, InterpreterError, ReadyEnvironment, SetupError, SetupProgress,
    TrainerSource,
};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The time for something that must happen, on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(120);

/// Notes its calls, makes environments without packages, and installs by the script `sync` beside it.
const STAND_IN: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/calls"
env > "$here/variables"
case "$1 $2" in
venv*) for last; do :; done; exec "$UV_PYTHON" -m venv --without-pip --clear "$last" ;;
"pip sync") . "$here/sync" ;;
*) exit 64 ;;
esac
"#;

/// Installs a package of some size, and leaves what uv leaves in its cache.
const INSTALL: &str = r#"
echo "Downloading torch (1.0MiB)" >&2
mkdir -p "$UV_CACHE_DIR"; echo wheel > "$UV_CACHE_DIR/wheel"
site=$(echo ../trainer/environment/lib/python3*/site-packages)
mkdir -p "$site/torch-2.15.0.dist-info"
head -c 1000000 /dev/zero > "$site/torch.bin"
"#;

struct SetupStage {
    dir: TempDir,
    options: EnvironmentOptions,
    progress: Mutex<Vec<SetupProgress>>,
    told: Notify,
}

impl SetupStage {
    /// A stage where packages are installed by this script.
    fn new(sync: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let uv = dir.path().join("uv");
        fs::write(&uv, STAND_IN).unwrap();
        fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
        let mut options = EnvironmentOptions::below(dir.path().join("trainer"));
        options.source = source("1", "1");
        options.uv = Some(uv);
        options.needed_bytes = 1 << 20;
        options.reserved_bytes = 0;
        let stage = Self { dir, options, progress: Mutex::default(), told: Notify::new() };
        stage.installs_by(sync);
        stage
    }

    fn installs_by(&self, sync: &str) {
        fs::write(self.dir.path().join("sync"), sync).unwrap();
    }

    fn environment(&self) -> Environment {
        Environment::new(self.options.clone())
    }

    async fn setup(&self) -> Result<ReadyEnvironment, SetupError> {
        self.setup_until(&CancellationToken::new()).await
    }

    async fn setup_until(&self, cancel: &CancellationToken) -> Result<ReadyEnvironment, SetupError> {
        let progress = |progress| {
            self.progress.lock().unwrap().push(progress);
            self.told.notify_one();
        };
        let environment = self.environment();
        tokio::time::timeout(DEADLINE, environment.setup(progress, cancel)).await.expect("it takes too long")
    }

    /// Waits until progress of a step was told.
    async fn has_told(&self, step: &str) {
        let told = async {
            while !self.progress.lock().unwrap().iter().any(|progress| progress.step.contains(step)) {
                self.told.notified().await;
            }
        };
        tokio::time::timeout(DEADLINE, told).await.expect("it is not told");
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.dir.path().join("calls"));
        text.lines()
            .map(|call| call.split(' ').take_while(|word| !word.starts_with('-')).collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("trainer").join(name)
    }
}

fn source(lock: &str, module: &str) -> TrainerSource {
    let files = [("requirements.lock", lock), ("artel_trainer/__init__.py", module)];
    TrainerSource::of_files(files.map(|(path, text)| (path.to_owned(), text.to_owned()))).unwrap()
}

#[tokio::test]
async fn a_setup_makes_an_environment_that_is_ready() {
    let stage = SetupStage::new(INSTALL);
    assert_eq!(stage.environment().inspect().await, EnvironmentState::Missing);
    let refused = stage.environment().interpreter().await.unwrap_err();
    assert!(matches!(refused, InterpreterError::NotReady { state: EnvironmentState::Missing, .. }), "{refused}");
    assert!(refused.to_string().ends_with("it is not set up; run `artel train setup`"), "{refused}");
    let ready = stage.setup().await.unwrap();
    assert_eq!(stage.environment().inspect().await, EnvironmentState::Ready(ready.clone()));
    assert!((11..=13).contains(&ready.python.minor) && ready.bytes >= 1_000_000, "{ready:?}");
    assert!(ready.packages.iter().any(|package| package.name == "torch" && package.version == "2.15.0"), "{ready:?}");
    assert_eq!(stage.calls(), ["venv", "pip sync"]);
    stage.has_told("install the packages: Downloading torch (1.0MiB)").await;
    assert!(!stage.path("cache").exists(), "what was fetched is installed");
    stage.environment().interpreter().await.unwrap();

    stage.setup().await.unwrap();
    assert!(stage.calls().is_empty(), "there is nothing to do");
}

#[tokio::test]
async fn uv_gets_what_it_needs_and_no_secret() {
    let stage = SetupStage::new(INSTALL);
    stage.setup().await.unwrap();
    let text = fs::read_to_string(stage.dir.path().join("variables")).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert!(
        std::env::vars().any(|(name, _)| name.starts_with("CARGO"))
            && !names.iter().any(|name| name.starts_with("CARGO"))
    );
    for name in ["PATH", "UV_PYTHON", "UV_CACHE_DIR", "UV_LINK_MODE"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(text.contains("UV_PYTHON_DOWNLOADS=never"));
}

#[tokio::test]
async fn another_source_needs_no_packages_and_another_lock_keeps_the_environment() {
    let mut stage = SetupStage::new(INSTALL);
    stage.setup().await.unwrap();
    stage.calls();
    stage.options.source = source("1", "2");
    assert_eq!(stage.environment().inspect().await, EnvironmentState::Outdated { needs_packages: false });
    let refused = stage.environment().interpreter().await.unwrap_err().to_string();
    assert!(refused.contains("it is of another version of this program; run `artel train setup`"), "{refused}");
    let ready = stage.setup().await.unwrap();
    assert!(stage.calls().is_empty());
    assert_eq!(stage.environment().inspect().await, EnvironmentState::Ready(ready));
    assert_eq!(fs::read_to_string(stage.path("source/artel_trainer/__init__.py")).unwrap(), "2");

    stage.options.source = source("2", "2");
    assert_eq!(stage.environment().inspect().await, EnvironmentState::Outdated { needs_packages: true });
    stage.setup().await.unwrap();
    assert_eq!(stage.calls(), ["pip sync"]);
    assert!(matches!(stage.environment().inspect().await, EnvironmentState::Ready(_)));
}

#[tokio::test]
async fn a_setup_that_failed_goes_on_where_it_ended() {
    let stage = SetupStage::new(
        "mkdir -p \"$UV_CACHE_DIR\"; echo half > \"$UV_CACHE_DIR/wheel\"
         echo 'Resolved 3 packages in 1ms' >&2
         echo 'error: Request failed after 3 retries' >&2; echo '  cause: Failed to fetch: torch' >&2; exit 2",
    );
    let error = stage.setup().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, SetupError::Registry { .. }), "{text}");
    assert!(text.contains("error: Request failed after 3 retries | cause: Failed to fetch: torch"), "{text}");
    assert!(matches!(stage.environment().inspect().await, EnvironmentState::Incomplete { .. }));
    assert_eq!(stage.calls(), ["venv", "pip sync"]);
    assert!(stage.path("cache/wheel").exists());
    stage.installs_by(INSTALL);
    stage.setup().await.unwrap();
    assert_eq!(stage.calls(), ["pip sync"]);
}

#[tokio::test]
async fn a_full_disk_a_kill_and_another_failure_are_told_apart() {
    let stage = SetupStage::new("head -c 1000000 /dev/zero > /dev/full");
    let full = stage.setup().await.unwrap_err();
    assert!(matches!(full, SetupError::DiskFull { .. }), "{full}");
    stage.installs_by("kill -9 $$");
    let killed = stage.setup().await.unwrap_err();
    assert!(matches!(killed, SetupError::Killed { signal: 9, .. }), "{killed}");
    stage.installs_by("echo 'error: no wheel of torch fits' >&2; exit 1");
    let failed = stage.setup().await.unwrap_err();
    assert!(matches!(failed, SetupError::Failed { .. }), "{failed}");
    assert!(failed.to_string().contains("exit status: 1): error: no wheel of torch fits"), "{failed}");
}

#[tokio::test]
async fn too_little_space_is_told_before_anything_is_fetched() {
    let mut stage = SetupStage::new(INSTALL);
    stage.options.needed_bytes = 1 << 60;
    let error = stage.setup().await.unwrap_err();
    assert!(matches!(error, SetupError::TooLittleSpace { .. }), "{error}");
    assert!(error.to_string().contains("it still needs 1152921504.7 GB and the disk has "), "{error}");
    assert!(stage.calls().is_empty());
}

#[tokio::test]
async fn a_cancelled_setup_leaves_no_process_and_lets_another_begin() {
    let stage =
        SetupStage::new("echo 'begun' >&2; sleep 600 & echo $! > \"$here/child\"; echo 'has a child' >&2; wait");
    let cancel = CancellationToken::new();
    let (error, ()) = tokio::join!(stage.setup_until(&cancel), async {
        stage.has_told("has a child").await;
        cancel.cancel();
    });
    assert!(matches!(error, Err(SetupError::Cancelled)), "{error:?}");
    stage.installs_by(INSTALL);
    // The child holds the lock as long as it lives.
    stage.setup().await.unwrap();
}

#[tokio::test]
async fn a_setup_that_hangs_is_ended() {
    const STEP: &str = "install the packages";
    let mut stage = SetupStage::new(INSTALL);
    stage.setup().await.unwrap();
    stage.progress.lock().unwrap().clear();
    // The one program of this setup, which neither says nor writes anything, however slow the machine is.
    stage.options.source = source("2", "1");
    stage.installs_by("exec sleep 600");
    stage.options.stall_timeout = Duration::from_secs(1);
    let error = stage.setup().await.unwrap_err();
    assert!(matches!(error, SetupError::Stalled { step: STEP, .. }), "{error}");
    let told = stage.progress.lock().unwrap().iter().filter(|progress| progress.step == STEP).count();
    assert!(told > 2, "progress is told while nothing happens: {told} times");
}

#[tokio::test]
async fn two_setups_do_not_run_at_once() {
    let stage = SetupStage::new("echo 'begun' >&2; sleep 600");
    let (cancel, other) = (CancellationToken::new(), CancellationToken::new());
    let (first, second) = tokio::join!(stage.setup_until(&cancel), async {
        stage.has_told("begun").await;
        let second = stage.environment().setup(|_| {}, &other).await;
        cancel.cancel();
        second
    });
    assert!(matches!(second, Err(SetupError::Busy { .. })), "{second:?}");
    assert!(matches!(first, Err(SetupError::Cancelled)), "{first:?}");
}

#[tokio::test]
async fn an_environment_whose_python_was_removed_is_made_anew() {
    let stage = SetupStage::new(INSTALL);
    stage.setup().await.unwrap();
    stage.calls();
    for name in ["python", "python3"] {
        let link = stage.path("environment/bin").join(name);
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink("/no/such/python", &link).unwrap();
    }
    let state = stage.environment().inspect().await;
    assert!(matches!(&state, EnvironmentState::Incomplete { reason } if reason.ends_with(" is gone")), "{state:?}");
    stage.setup().await.unwrap();
    assert_eq!(stage.calls(), ["venv", "pip sync"]);
}
