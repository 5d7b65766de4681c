//! A daemon of a verb's own, on a free port of the loopback.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running daemon. Dropping it kills it.
pub(crate) struct LocalDaemon {
    child: Child,
    artel: PathBuf,
    data: PathBuf,
    /// Where it listens.
    pub(crate) address: String,
    /// The file of its log.
    pub(crate) log: PathBuf,
}

impl LocalDaemon {
    /// Starts `artel` with its state in a directory, these further arguments and variables, and waits until it listens.
    pub(crate) fn start(artel: &Path, data: &Path, args: &[&OsStr], env: &[(String, String)]) -> Result<Self> {
        fs::create_dir_all(data).with_context(|| format!("failed to create {}", data.display()))?;
        let log = data.join("log");
        let file = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        let mut child = Command::new(artel)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("failed to start {}", artel.display()))?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the daemon's output is piped")?;
        BufReader::new(stdout).read_line(&mut line).context("failed to read from the daemon")?;
        let address = serde_json::from_str::<serde_json::Value>(&line)
            .ok()
            .and_then(|ready| ready["listening"].as_str().map(str::to_owned));
        let Some(address) = address else {
            bail!("the daemon did not start: {}", last_message(&fs::read_to_string(&log).unwrap_or_default()));
        };
        Ok(Self { child, artel: artel.to_owned(), data: data.to_owned(), address, log })
    }

    /// A verb of the command line against it, as its owner.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.artel);
        command.arg(verb).env("ARTEL_ADDRESS", &self.address).env("ARTEL_DATA", &self.data);
        command.env_remove("ARTEL_TOKEN").env_remove("ARTEL_TOKEN_FILE");
        command
    }

    /// Lets it finish what runs, and waits for its end.
    pub(crate) fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).context("failed to stop the daemon")?;
        let ended = self.child.wait().context("failed to wait for the daemon")?;
        if ended.success() { Ok(()) } else { bail!("the daemon ended with {ended}; its log is {}", self.log.display()) }
    }
}

/// The message of the last line of a log.
fn last_message(log: &str) -> String {
    message(log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("its log is empty"))
}

/// The message of a line of a log in JSON, or the line as it is: a panic is none.
pub(crate) fn message(line: &str) -> String {
    let record: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let message = record.and_then(|record| record["fields"]["message"].as_str().map(str::to_owned));
    message.unwrap_or_else(|| line.to_owned())
}

impl Drop for LocalDaemon {
    fn drop(&mut self) {
        // A daemon that was stopped is gone already.
        let _ = self.child.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_says_last_why_it_does_not_start() {
        let log = "{\"fields\":{\"message\":\"the limits\"}}\n{\"fields\":{\"message\":\"the catalog is invalid\"}}\n";
        assert_eq!(last_message(log), "the catalog is invalid");
        assert_eq!(last_message("thread 'main' panicked\n\n"), "thread 'main' panicked");
        assert_eq!(last_message(""), "its log is empty");
    }
}
