//! Where engines come from.

use std::sync::Arc;

use artel_engine::EngineHandle;
use artel_placement::{DeviceBytes, KvCacheType, Device, DeviceChoice, DeviceKind, ModelFootprint, Placement, SplitMode};
use artel_roles::{Adapter, Model};
use async_trait::async_trait;

use crate::demand::Demand;

/// Takes the share of a model that is loaded, from 0 to 1.
pub type Progress = Arc<dyn Fn(f32) + Send + Sync>;

/// Loads models into engines, and knows what they take and what there is; the daemon does it with llama.cpp, tests with a
/// script.
#[async_trait]
pub trait Loader: Send + Sync + 'static {
    /// Loads the model onto these devices; the error says what is wrong and what to do.
    async fn load(&self, model: &Model, place: &Placement, progress: Progress) -> Result<EngineHandle, String>;

    /// What the model takes if this is asked of it. The error says why nobody can know.
    async fn need(&self, model: &Model, demand: Demand) -> Result<ModelFootprint, String> {
        Ok(nothing(model, demand.lanes))
    }

    /// The share of a model's file that is here, from 0 to 1, while it comes from elsewhere.
    fn coming(&self, model: &Model) -> Option<f32> {
        let _ = model;
        None
    }

    /// Sees to it that an adapter's file is here. The error says what is wrong and what to do.
    async fn fetch(&self, adapter: &Adapter) -> Result<(), String> {
        let _ = adapter;
        Ok(())
    }

    /// What there is to put models on; `taken` is what our engines take, which counts as free.
    async fn devices(&self, taken: &DeviceBytes) -> Vec<Device> {
        let _ = taken;
        vec![Device { name: "CPU".to_owned(), kind: DeviceKind::Cpu, total: u64::MAX, free: u64::MAX }]
    }
}

/// The need of a model that takes no memory, as a scripted one does.
pub fn nothing(model: &Model, lanes: u32) -> ModelFootprint {
    ModelFootprint {
        model: model.name.to_string(),
        layers: Vec::new(),
        input_bytes: 0,
        output_bytes: 0,
        tied_bytes: 0,
        kv_type: KvCacheType::F16,
        context_tokens: 1,
        sequences: 1,
        contexts: lanes,
        compute_bytes: 0,
        process_bytes: 0,
        devices: DeviceChoice::Auto,
        split: SplitMode::None,
        tensor_split: None,
    }
}
