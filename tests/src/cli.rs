//! Programs that the tests run: `artel` and Python.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// The binary, which `cargo xtask test` builds: beside the directory of test binaries.
pub fn artel() -> PathBuf {
    built("artel")
}

/// The binary with what tests alone need: scripted models, and death at a commit.
pub(crate) fn rehearsal() -> PathBuf {
    built("artel-failpoints")
}

fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join(name);
    assert!(path.exists(), "{} is missing: run these tests with `cargo xtask test`", path.display());
    path
}

/// The Python that `cargo xtask setup` prepared.
pub fn python() -> PathBuf {
    let path = std::env::var_os("ARTEL_TEST_PYTHON").map(PathBuf::from);
    path.expect("ARTEL_TEST_PYTHON is not set: run these tests with `cargo xtask test`")
}

/// What steers the program, and is not the caller's to give.
const VARIABLES: [&str; 9] = [
    "ARTEL_ADDRESS",
    "ARTEL_CONFIG",
    "ARTEL_DATA",
    "ARTEL_LISTEN",
    "ARTEL_MODELS",
    "ARTEL_OFFLINE",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "NO_COLOR",
];

/// A call of the command line.
pub struct Cli(Command);

impl Cli {
    /// `artel` with these arguments, without the caller's settings.
    pub fn new<const N: usize>(args: [&str; N]) -> Self {
        Self::program(&artel(), args)
    }

    /// Another program.
    pub fn program<const N: usize>(program: &Path, args: [&str; N]) -> Self {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        Self(command)
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(key, value);
        self
    }

    /// Runs it to its end: exit code, standard output, standard error.
    pub async fn run(mut self) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.0.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap_or(-1), text(stdout), text(stderr))
    }

    /// The command itself.
    pub fn into_command(self) -> Command {
        self.0
    }
}
