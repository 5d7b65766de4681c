//! The interface that the daemon implements to load models into engines.

use std::sync::Arc;

use artel_engine::{EngineHandle, LoadError};
use artel_placement::{
    CacheSize, Device, DeviceBytes, DeviceChoice, DeviceKind, ExpertPlacement, GpuLayers, KvCacheType, ModelFootprint,
    Placement, SplitMode,
};
use artel_roles::{Adapter, Model};
use async_trait::async_trait;

use crate::model_workload::MemoryDemand;

/// Receives the fraction of a model that is loaded, from 0 to 1.
pub type LoadProgress = Arc<dyn Fn(f32) + Send + Sync>;

/// Loads models into engines, estimates their memory and lists the devices. The daemon implements it with llama.cpp, tests with
/// scripted engines.
#[async_trait]
pub trait Loader: Send + Sync + 'static {
    /// Loads the model onto the devices of this placement. The error says what failed and what to do; after a permanent one,
    /// the model is asked for again in pauses that grow.
    async fn load(
        &self,
        model: &Model,
        placement: &Placement,
        progress: LoadProgress,
    ) -> Result<EngineHandle, LoadError>;

    /// The memory that the model takes under this demand. The error says why it cannot be estimated; a permanent one is treated
    /// as that of [`load`](Self::load).
    async fn footprint(&self, model: &Model, demand: MemoryDemand) -> Result<ModelFootprint, LoadError> {
        let _ = demand;
        Ok(zero_footprint(model))
    }

    /// The downloaded fraction of a model's file, from 0 to 1; `None` if no download is running.
    fn download_progress(&self, model: &Model) -> Option<f32> {
        let _ = model;
        None
    }

    /// Makes an adapter's file available locally, and compares it with the hash that its document states. The error says what failed and what to do.
    async fn fetch_adapter(&self, adapter: &Adapter) -> Result<(), LoadError> {
        let _ = adapter;
        Ok(())
    }

    /// The devices that models can be placed on; `in_use` is the memory of our own engines, which counts as free.
    async fn devices(&self, in_use: &DeviceBytes) -> Vec<Device> {
        let _ = in_use;
        vec![Device { name: "CPU".to_owned(), kind: DeviceKind::Cpu, total: u64::MAX, free: u64::MAX }]
    }
}

/// The footprint of a model that takes no memory, such as a scripted one.
pub fn zero_footprint(model: &Model) -> ModelFootprint {
    ModelFootprint {
        model: model.name.to_string(),
        layers: Vec::new(),
        input_bytes: 0,
        output_bytes: 0,
        tied_bytes: 0,
        kv_type: KvCacheType::F16,
        written_kv_type: None,
        context_tokens: 1,
        min_context_tokens: 1,
        sequences: 1,
        min_sequences: 1,
        role_tokens: 0,
        cache_size: CacheSize::Fitting,
        compute_bytes: 0,
        cpu_compute_bytes: 0,
        mixed_compute_bytes: 0,
        beside_compute_bytes: 0,
        process_bytes: 0,
        devices: DeviceChoice::Auto,
        split: SplitMode::None,
        tensor_split: None,
        gpu_layers: GpuLayers::Auto,
        experts: ExpertPlacement::Auto,
        is_kept: false,
        weight_elements: 0,
    }
}
