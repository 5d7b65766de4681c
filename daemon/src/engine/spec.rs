//! What an engine is to load, and how: as the daemon writes it and the engine's process reads it.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_engine::{DraftMode, EngineHandle, SharedCpu, disk_prefix_cache};
use artel_llama::gguf::{self, HalfType};
use artel_llama::{GgmlType, LlamaBackend, LlamaSplitMode};
use artel_process::DeviceMemory;
use artel_roles::{CacheSetting, Model, SpeculationSetting, ModelPurpose};
use serde::{Deserialize, Serialize};

use crate::disk;

/// What to load, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) sha256: Option<String>,
    /// None: its weights are computed with as its own file has them.
    pub(crate) recast: Option<Recast>,
    pub(crate) context: Option<u32>,
    pub(crate) sequences: u32,
    pub(crate) threads: u32,
    /// RPC servers whose devices it may use.
    pub(crate) rpc: Vec<String>,
    pub(crate) devices: Option<Vec<String>>,
    pub(crate) split: Spread,
    pub(crate) shares: Vec<f32>,
    pub(crate) embedding: bool,
    pub(crate) template: Option<String>,
    pub(crate) cache: Form,
    pub(crate) drafts: bool,
    pub(crate) gap: Duration,
    /// Bytes of host memory for beginnings of prompts.
    pub(crate) prefixes: usize,
    /// Where these lie on disk, and how many bytes there may be.
    pub(crate) shelf: Option<(PathBuf, u64)>,
}

/// A recast file of a model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Recast {
    /// Where it lies.
    dir: PathBuf,
    /// Whether its numbers are BF16, or else F16.
    pub(crate) bf16: bool,
}

/// How a model is spread over its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Spread {
    #[default]
    None,
    Layer,
    Row,
}

/// The form of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
}

impl Form {
    /// Of a model that processors compute with weights recast to this, or of another one.
    pub(crate) fn of(cache: CacheSetting, recast: Option<HalfType>) -> Self {
        match cache {
            CacheSetting::Auto if recast == Some(HalfType::Bf16) => Self::Bf16,
            CacheSetting::Auto => Self::F16,
            CacheSetting::F32 => Self::F32,
            CacheSetting::F16 => Self::F16,
            CacheSetting::Bf16 => Self::Bf16,
            CacheSetting::Q8_0 => Self::Q8_0,
            CacheSetting::Q4_0 => Self::Q4_0,
        }
    }

    /// Keys and values in one form: llama.cpp's fast attention wants that.
    fn cache(self) -> artel_llama::KvCacheTypes {
        let form = match self {
            Self::F32 => GgmlType::F32,
            Self::F16 => GgmlType::F16,
            Self::Bf16 => GgmlType::Bf16,
            Self::Q8_0 => GgmlType::Q8_0,
            Self::Q4_0 => GgmlType::Q4_0,
        };
        artel_llama::KvCacheTypes { keys: form, values: form }
    }
}

/// What holds for every engine of a daemon.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) threads: u32,
    pub(crate) gap: Duration,
    pub(crate) prefixes: usize,
    pub(crate) shelf: Option<disk_prefix_cache::Options>,
    /// Where recast files lie.
    pub(crate) recast: PathBuf,
}

impl Spec {
    /// A model of the catalog whose file lies at `path`, wherever llama.cpp puts it, and as its own file has it.
    pub(crate) fn of(model: &Model, path: PathBuf, common: &Common) -> Self {
        Self {
            name: model.name.to_string(),
            path,
            sha256: model.sha256.clone(),
            recast: None,
            context: model.context,
            sequences: model.sequences,
            threads: model.threads.unwrap_or(common.threads).min(common.threads),
            rpc: Vec::new(),
            devices: None,
            split: Spread::None,
            shares: Vec::new(),
            embedding: model.purpose == ModelPurpose::Embedding,
            template: model.template.clone(),
            cache: Form::of(model.cache, None),
            drafts: model.speculation == SpeculationSetting::Auto,
            gap: common.gap,
            prefixes: common.prefixes,
            shelf: common.shelf.as_ref().map(|shelf| (shelf.dir.clone(), shelf.max_bytes)),
        }
    }

    /// The same with its weights recast.
    pub(crate) fn recast_to(self, half: Option<HalfType>, common: &Common) -> Self {
        let recast = half.map(|half| Recast { dir: common.recast.clone(), bf16: half == HalfType::Bf16 });
        Self { recast, ..self }
    }

    /// Loads it into this process.
    pub(crate) async fn load(
        self,
        turn: Option<SharedCpu>,
        progress: Arc<dyn Fn(f32) + Send + Sync>,
    ) -> Result<(EngineHandle, Vec<DeviceMemory>), String> {
        let (name, rpc, recast) = (self.name.clone(), self.rpc.clone(), self.recast.clone());
        let (mut model, mut engine) = self.options();
        engine.shared_cpu = turn;
        let memory = Arc::new(Mutex::new(Vec::new()));
        let found = memory.clone();
        let load = move || {
            rpc.iter().try_for_each(|address| artel_llama::add_rpc_server(address))?;
            let written = match recast {
                Some(recast) => cast(&mut model, &recast, &*progress)?,
                None => 0.0,
            };
            let rest = |share: f32| progress(written + share * (1.0 - written));
            let model = LlamaBackend::load_with_progress(model, &rest).map_err(|e| e.to_string())?;
            *found.lock().expect("nothing panics while it holds it") = model.device_buffers().to_vec();
            Ok(model)
        };
        let handle = EngineHandle::spawn(&name, engine, load).await.map_err(|e| match e {
            artel_engine::Error::Ended(reason) => reason,
            other => other.to_string(),
        })?;
        let memory = std::mem::take(&mut *memory.lock().expect("nothing panics while it holds it"));
        let shared = |m: artel_llama::DeviceBuffers| DeviceMemory {
            device: m.device,
            weights: m.weights,
            kv_cache: m.kv_cache,
            compute: m.compute,
        };
        Ok((handle, memory.into_iter().map(shared).collect()))
    }

    fn options(self) -> (artel_llama::Options, artel_engine::Options) {
        let model = artel_llama::Options {
            path: self.path,
            sha256: self.sha256,
            context: self.context,
            sequences: self.sequences,
            threads: self.threads,
            devices: self.devices,
            split_mode: match self.split {
                Spread::None => LlamaSplitMode::None,
                Spread::Layer => LlamaSplitMode::Layer,
                Spread::Row => LlamaSplitMode::Row,
            },
            tensor_split: self.shares,
            is_embedding: self.embedding,
            template: self.template,
            kv_cache: self.cache.cache(),
        };
        let engine = artel_engine::Options {
            target_itl: self.gap,
            prefix_cache_bytes: self.prefixes,
            disk_prefix_cache: self.shelf.map(|(dir, bytes)| disk_prefix_cache::Options { dir, max_bytes: bytes }),
            draft_mode: if self.drafts { DraftMode::Auto } else { DraftMode::Never },
            ..artel_engine::Options::default()
        };
        (model, engine)
    }
}

/// Has a model's recast file loaded in place of its own; of one that cannot be written, its own. Gives the share of the work
/// that this was.
fn cast(model: &mut artel_llama::Options, to: &Recast, progress: &dyn Fn(f32)) -> Result<f32, String> {
    if let Some(sha256) = &model.sha256 {
        gguf::verify_sha256(&model.path, sha256).map_err(|e| e.to_string())?;
    }
    let done = Cell::new(0.0);
    let writing = |share: f32| {
        // The other half is loading it.
        done.set(share / 2.0);
        progress(done.get());
    };
    let (dir, half) = (&to.dir, if to.bf16 { HalfType::Bf16 } else { HalfType::F16 });
    let room = disk::free(dir).map_or(u64::MAX, |free| free.saturating_sub(disk::SPARE));
    match gguf::dequantize(&model.path, dir, half, room, &writing) {
        Ok(path) => {
            tracing::info!(path = %path.display(), "the model's quantized matrices are computed with as {half:?}");
            (model.path, model.sha256) = (path, None);
        }
        Err(error @ gguf::Error::Write { .. }) => {
            tracing::warn!(%error, "the model is computed with as its file has it, which is slower");
        }
        Err(error) => return Err(error.to_string()),
    }
    Ok(done.get())
}
