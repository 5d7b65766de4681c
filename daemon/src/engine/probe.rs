//! Which devices there are, found out in a process of its own: drivers and RPC servers that misbehave end that process alone.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::itself;
use super::monitor::{self, Reading};
use crate::serve::telemetry;

/// A driver that takes longer than this is not there.
const PATIENCE: Duration = Duration::from_secs(20);

/// A device that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) backend: String,
    pub(crate) kind: Kind,
    /// Bytes.
    pub(crate) total: u64,
    /// Bytes.
    pub(crate) free: u64,
    /// What its driver's monitor says, if there is one.
    pub(crate) monitor: Option<Reading>,
}

/// What a probe finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Probed {
    pub(crate) devices: Vec<Found>,
    /// Why there is nothing that monitors GPUs, in words.
    pub(crate) unmonitored: Option<String>,
}

/// What sort a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Cpu,
    Gpu,
    IntegratedGpu,
    Accelerator,
    Rpc,
}

/// `artel engine --probe`: prints the devices of this machine, or those of an RPC server, as JSON.
pub(super) fn run(rpc: Option<&str>) -> ExitCode {
    telemetry::start(true);
    match probe(rpc) {
        Ok(found) => {
            println!("{}", serde_json::json!(found));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn probe(rpc: Option<&str>) -> Result<Probed, String> {
    if let Some(address) = rpc {
        artel_llama::add_rpc_server(address)?;
    }
    let wanted = |device: &artel_llama::BackendDevice| (device.kind == artel_llama::BackendDeviceKind::Rpc) == rpc.is_some();
    let (readings, unmonitored) = match monitor::read() {
        Ok(readings) => (readings, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let devices = artel_llama::devices().into_iter().filter(wanted).map(|device| Found {
        kind: match device.kind {
            artel_llama::BackendDeviceKind::Cpu => Kind::Cpu,
            artel_llama::BackendDeviceKind::Gpu => Kind::Gpu,
            artel_llama::BackendDeviceKind::IntegratedGpu => Kind::IntegratedGpu,
            artel_llama::BackendDeviceKind::Accelerator => Kind::Accelerator,
            artel_llama::BackendDeviceKind::Rpc => Kind::Rpc,
        },
        name: device.name,
        description: device.description,
        backend: device.backend,
        total: device.total_memory,
        free: device.free_memory,
        monitor: device.pci_bus_id.and_then(|bus| monitor::at(&readings, &bus).cloned()),
    });
    Ok(Probed { devices: devices.collect(), unmonitored })
}

/// The devices of this machine, or those of an RPC server; or why they cannot be told.
pub(crate) async fn devices(rpc: Option<&str>) -> Result<Vec<Found>, String> {
    look(rpc).await.map(|probed| probed.devices)
}

/// The same, and whether GPUs of this machine are monitored.
pub(crate) async fn look(rpc: Option<&str>) -> Result<Probed, String> {
    let mut command = Command::new(itself()?);
    command.args(["engine", "--probe"]).args(rpc.iter().flat_map(|address| ["--rpc", *address]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let about = rpc.map_or_else(|| "the devices".to_owned(), |address| format!("RPC server {address}"));
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.map_err(|_| format!("{about}: no answer within {} s", PATIENCE.as_secs()))?;
    let output = output.map_err(|e| format!("failed to look for devices: {e}"))?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).map_err(|e| format!("{about}: a strange answer: {e}"));
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rfind(|line| !line.trim().is_empty() && !line.starts_with('{'));
    Err(last.map_or_else(|| format!("{about}: the probe ended with {}", output.status), str::to_owned))
}
