//! Calls of the command line.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::prerequisites::artel;

/// Variables that configure the program, which the environment of the tests must not set.
const VARIABLES: [&str; 20] = [
    "ARTEL_ADDRESS",
    "ARTEL_CA",
    "ARTEL_CLIENT_CERT",
    "ARTEL_CLIENT_KEY",
    "ARTEL_CONFIG",
    "ARTEL_DATA",
    "ARTEL_LISTEN",
    "ARTEL_LOG",
    "ARTEL_LOG_FORMAT",
    "ARTEL_MODELS",
    "ARTEL_OFFLINE",
    "ARTEL_TOKEN",
    "ARTEL_TOKEN_FILE",
    "ARTEL_TRACES_ENDPOINT",
    "ARTEL_TRACES_SAMPLE",
    "CREDENTIALS_DIRECTORY",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "JOURNAL_STREAM",
    "NO_COLOR",
];

/// A call of the command line.
pub struct Cli(Command);

impl Cli {
    /// `artel` with these arguments, without the settings of the environment.
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

    /// With an environment variable.
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
