//! The process of a daemon that the bench starts on a free port, killed on drop.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use artel_args::DaemonAddress;
use artel_client::{DaemonClient, DaemonLocation};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A program beside this one.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe().context("failed to find this program")?.with_file_name(name);
    if !path.is_file() {
        let help = match name {
            "artel" => "`cargo build --workspace` builds it, and a release archive contains it",
            _ => "`cargo build --workspace` builds it",
        };
        bail!("there is no {}: {help}", path.display());
    }
    Ok(path)
}

/// Starts a daemon in a directory with `settings.yaml` and `catalog`, and waits until it listens.
pub(crate) async fn launch(name: &str, dir: &Path, models: &Path) -> Result<(Child, DaemonAddress)> {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log"));
    let mut child = Command::new(program(name)?)
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--config"])
        .arg(dir.join("settings.yaml"))
        .arg("--data")
        .arg(dir.join("data"))
        .arg("--catalog")
        .arg(dir.join("catalog"))
        .arg("--models")
        .arg(models)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.context("failed to open the daemon's log")?)
        .kill_on_drop(true)
        .spawn()
        .context("failed to start the daemon")?;
    let stdout = child.stdout.take().context("the daemon's output is piped")?;
    let line = BufReader::new(stdout).lines().next_line().await.context("failed to read from the daemon")?;
    let ready: Option<Value> = line.and_then(|line| serde_json::from_str(&line).ok());
    let listening = ready.as_ref().and_then(|ready| ready["listening"].as_str());
    let Some(listening) = listening else {
        bail!("the daemon did not start: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default());
    };
    Ok((child, listening.parse().map_err(anyhow::Error::msg)?))
}

/// A connection of the owner of the daemon in this directory.
pub(crate) async fn connect_owner(address: DaemonAddress, dir: &Path) -> Result<DaemonClient> {
    let location = DaemonLocation::of_own(address, &dir.join("data")).context("failed to find the daemon's token")?;
    DaemonClient::connect(&location).await.context("failed to connect to the daemon of the bench")
}
