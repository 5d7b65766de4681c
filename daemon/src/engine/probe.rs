//! Lists devices in a process of its own: a faulty driver or RPC server can only end that process.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::monitor::{self, GpuReading};
use super::own_program;
use crate::serve::telemetry;

/// How long a driver or an RPC server may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// A device that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProbedDevice {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) backend: String,
    pub(crate) kind: ProbedDeviceKind,
    /// Bytes.
    pub(crate) total: u64,
    /// Bytes.
    pub(crate) free: u64,
    /// Readings of its driver's monitor, if there is one.
    pub(crate) monitor: Option<GpuReading>,
}

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProbeResult {
    pub(crate) devices: Vec<ProbedDevice>,
    /// Why GPUs are not monitored. Human-readable.
    pub(crate) monitor_error: Option<String>,
}

/// The kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProbedDeviceKind {
    Cpu,
    Gpu,
    IntegratedGpu,
    Accelerator,
    Rpc,
}

/// `artel engine --probe`: prints the devices of this machine, or those of an RPC server, as JSON.
pub(super) fn run(rpc: Option<&str>) -> ExitCode {
    telemetry::start(true);
    match run_probe(rpc) {
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

fn run_probe(rpc: Option<&str>) -> Result<ProbeResult, String> {
    if let Some(address) = rpc {
        artel_llama::add_rpc_server(address)?;
    }
    let wanted =
        |device: &artel_llama::BackendDevice| (device.kind == artel_llama::BackendDeviceKind::Rpc) == rpc.is_some();
    let (readings, monitor_error) = match monitor::read() {
        Ok(readings) => (readings, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let devices = artel_llama::devices().into_iter().filter(wanted).map(|device| ProbedDevice {
        kind: match device.kind {
            artel_llama::BackendDeviceKind::Cpu => ProbedDeviceKind::Cpu,
            artel_llama::BackendDeviceKind::Gpu => ProbedDeviceKind::Gpu,
            artel_llama::BackendDeviceKind::IntegratedGpu => ProbedDeviceKind::IntegratedGpu,
            artel_llama::BackendDeviceKind::Accelerator => ProbedDeviceKind::Accelerator,
            artel_llama::BackendDeviceKind::Rpc => ProbedDeviceKind::Rpc,
        },
        name: device.name,
        description: device.description,
        backend: device.backend,
        total: device.total_memory,
        free: device.free_memory,
        monitor: device.pci_bus_id.and_then(|bus| monitor::reading_at(&readings, &bus).cloned()),
    });
    Ok(ProbeResult { devices: devices.collect(), monitor_error })
}

/// The devices of this machine, or those of an RPC server.
pub(crate) async fn devices(rpc: Option<&str>) -> Result<Vec<ProbedDevice>, String> {
    probe_devices(rpc).await.map(|probed| probed.devices)
}

/// The same, and why GPUs of this machine are not monitored.
pub(crate) async fn probe_devices(rpc: Option<&str>) -> Result<ProbeResult, String> {
    let mut command = Command::new(own_program()?);
    command.args(["engine", "--probe"]).args(rpc.iter().flat_map(|address| ["--rpc", *address]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let subject = rpc.map_or_else(|| "the devices".to_owned(), |address| format!("RPC server {address}"));
    let output = tokio::time::timeout(PROBE_TIMEOUT, command.output()).await;
    let output = output.map_err(|_| format!("{subject}: no answer within {} s", PROBE_TIMEOUT.as_secs()))?;
    let output = output.map_err(|e| format!("failed to start the device probe: {e}"))?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout)
            .map_err(|e| format!("{subject}: invalid answer from the device probe: {e}"));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rfind(|line| !line.trim().is_empty() && !line.starts_with('{'));
    Err(last.map_or_else(|| format!("{subject}: the device probe exited with {}", output.status), str::to_owned))
}
