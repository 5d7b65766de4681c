//! What the edge asks of the machine below the runtime, and the values of the answers.

use artel_actors::MemoryDemand;
use artel_engine::LoadError;
use artel_placement::{Device, DeviceBytes, DeviceKind, ModelFootprint};
use artel_roles::Model;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// The devices, and the memory that models would take of them. The daemon implements it beside its loader of engines; nothing
/// here loads, downloads or reserves anything.
#[async_trait]
pub trait Machine: Send + Sync + 'static {
    /// Every known device, and every RPC server that does not answer. `taken` is the memory that our engines use.
    async fn device_statuses(&self, taken: &DeviceBytes) -> Vec<DeviceStatus>;

    /// The memory that a model would take under this demand.
    ///
    /// # Errors
    /// Its file is not here, or its header cannot be used.
    async fn estimate_footprint(&self, model: &Model, demand: MemoryDemand) -> Result<ModelFootprint, LoadError>;
}

/// A device, or an RPC server that does not answer.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceStatus {
    /// Its name, as in a model's `devices`.
    pub name: String,
    /// Its kind; `Rpc` for a server that does not answer.
    pub kind: DeviceKind,
    /// What its driver calls it. Empty for a server that does not answer.
    pub description: String,
    /// The backend of ggml that computes on it.
    pub backend: String,
    /// Why no model can be placed on it at the moment.
    pub problem: Option<String>,
    /// The address of the RPC server that offers it.
    pub rpc_address: Option<String>,
    /// Bytes that engines may use.
    pub total: u64,
    /// Bytes of `total` that would be free without our engines.
    pub free: u64,
    /// Readings of its driver's monitor, if there is one.
    pub reading: Option<GpuReading>,
}

impl DeviceStatus {
    /// The device as models are placed on it; none if none can be.
    pub fn to_placeable(&self) -> Option<Device> {
        let device = || Device { name: self.name.clone(), kind: self.kind, total: self.total, free: self.free };
        self.problem.is_none().then(device)
    }
}

/// Readings of one GPU. Values that the GPU does not report are absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GpuReading {
    /// The GPU's name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its PCI bus id.
    pub bus: String,
    /// The version of the driver.
    pub driver: String,
    /// Bytes of its memory in use by all programs.
    pub used: Option<u64>,
    /// The fraction of the last sample period in which it was computing, from 0 to 1.
    pub load: Option<f64>,
    /// Its temperature.
    pub celsius: Option<f64>,
    /// Its power draw.
    pub watts: Option<f64>,
}
