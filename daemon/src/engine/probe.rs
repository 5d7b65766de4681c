//! Lists devices in a process of its own: a faulty driver or RPC server can only end that process.

use std::fmt;
use std::io;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use artel_grpc::GpuReading;
use artel_model::DeviceKind;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{environment, monitor};
use crate::host::own_program;
use crate::telemetry;

/// How long a driver or an RPC server may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why devices cannot be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The probe is not started.
    #[error("failed to start the device probe: {0}")]
    Start(#[source] io::Error),
    /// A driver or an RPC server blocks the probe.
    #[error("{0}: no answer within {timeout} s", timeout = PROBE_TIMEOUT.as_secs())]
    Timeout(ProbeSubject),
    /// The probe's output is not what this version prints.
    #[error("{0}: invalid answer from the device probe: {1}")]
    InvalidAnswer(ProbeSubject, #[source] serde_json::Error),
    /// The reason that the probe gave before it exited.
    #[error("{0}")]
    Failed(String),
    /// The probe gave no reason, such as when a driver aborted it.
    #[error("{0}: the device probe exited with {1}")]
    Exited(ProbeSubject, ExitStatus),
}

/// What is probed: this machine, or an RPC server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeSubject(Option<String>);

impl fmt::Display for ProbeSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("the devices"),
            Some(address) => write!(f, "RPC server {address}"),
        }
    }
}

/// A device that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProbedDevice {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) backend: String,
    pub(crate) kind: DeviceKind,
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

/// `artel engine --probe`: prints the devices of this machine, or those of an RPC server, as JSON.
pub(super) fn run(rpc: Option<&str>) -> ExitCode {
    telemetry::start_engine();
    match run_probe(rpc) {
        Ok(found) => {
            println!("{}", serde_json::json!(found));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run_probe(rpc: Option<&str>) -> Result<ProbeResult, artel_llama::DeviceError> {
    if let Some(address) = rpc {
        artel_llama::add_rpc_server(address)?;
    }
    let wanted = |device: &artel_llama::BackendDevice| (device.kind == DeviceKind::Rpc) == rpc.is_some();
    let (readings, monitor_error) = match monitor::read() {
        Ok(readings) => (readings, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let devices = artel_llama::devices().into_iter().filter(wanted).map(|device| ProbedDevice {
        kind: device.kind,
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
///
/// # Errors
/// The probe failed, or did not answer in time.
pub(crate) async fn devices(rpc: Option<&str>) -> Result<Vec<ProbedDevice>, Error> {
    probe_devices(rpc).await.map(|probed| probed.devices)
}

/// The same, and why GPUs of this machine are not monitored.
pub(crate) async fn probe_devices(rpc: Option<&str>) -> Result<ProbeResult, Error> {
    let mut command = Command::new(own_program().map_err(Error::Start)?);
    command.args(["engine", "--probe"]).args(rpc.iter().flat_map(|address| ["--rpc", *address]));
    command.env_clear().envs(environment::inherited());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let subject = ProbeSubject(rpc.map(str::to_owned));
    let output = match tokio::time::timeout(PROBE_TIMEOUT, command.output()).await {
        Ok(output) => output.map_err(Error::Start)?,
        Err(_) => return Err(Error::Timeout(subject)),
    };
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).map_err(|e| Error::InvalidAnswer(subject, e));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rfind(|line| !line.trim().is_empty() && !line.starts_with('{'));
    Err(last.map_or_else(|| Error::Exited(subject, output.status), |reason| Error::Failed(reason.to_owned())))
}
