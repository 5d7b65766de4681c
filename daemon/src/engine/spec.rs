//! The spec of an engine: written by the daemon, read by the engine process.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_engine::{DraftMode, EngineHandle, LoadError, SharedCpu, disk_prefix_cache};
use artel_gguf::{self as gguf, HalfType};
use artel_hub::disk;
use artel_llama::{KvCacheTypes, LlamaBackend};
use artel_model::{DeviceMemory, KvCacheType, ModelPurpose, PieceHashes, SplitMode};
use artel_roles::{CacheSetting, Model, SpeculationSetting};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What an engine loads, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineSpec {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) sha256: Option<PieceHashes>,
    /// None: the weights are computed with as stored in the file.
    pub(crate) dequantized: Option<DequantizedWeights>,
    pub(crate) context: Option<u32>,
    pub(crate) sequences: u32,
    pub(crate) threads: u32,
    /// RPC servers whose devices it may use.
    pub(crate) rpc: Vec<String>,
    pub(crate) devices: Option<Vec<String>>,
    pub(crate) split: SplitMode,
    pub(crate) tensor_split: Vec<f32>,
    /// The layers on `devices`, counted from the last one, the output as one of them; the others are on the CPU. None: all.
    pub(crate) gpu_layers: Option<u32>,
    /// The first layers whose experts are on the CPU.
    pub(crate) cpu_expert_layers: u32,
    pub(crate) purpose: ModelPurpose,
    pub(crate) template: Option<String>,
    pub(crate) template_kwargs: Map<String, Value>,
    /// The names of its variants are part of stored keys of compute buffer sizes.
    pub(crate) cache: KvCacheType,
    /// Whether speculative decoding may be used.
    pub(crate) speculation: bool,
    pub(crate) target_itl: Duration,
    /// Bytes of host memory for the prefix cache.
    pub(crate) prefix_cache_bytes: usize,
    /// The directory of the prefix cache on disk, and its limit in bytes.
    pub(crate) disk_prefix_cache: Option<(PathBuf, u64)>,
}

/// The file of a model with dequantized weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DequantizedWeights {
    /// Its directory.
    dir: PathBuf,
    /// True: BF16. False: F16.
    pub(crate) bf16: bool,
}

/// The type of a KV cache by a model's setting. `half_type` is that of the dequantized weights of a model on CPUs.
pub(crate) fn kv_cache_type(cache: CacheSetting, half_type: Option<HalfType>) -> KvCacheType {
    cache.or(if half_type == Some(HalfType::Bf16) { KvCacheType::Bf16 } else { KvCacheType::F16 })
}

/// Settings of all engines of a daemon.
#[derive(Debug, Clone)]
pub(crate) struct EngineDefaults {
    pub(crate) threads: u32,
    pub(crate) target_itl: Duration,
    /// Bytes of host memory for the prefix cache of each engine.
    pub(crate) prefix_cache_bytes: usize,
    pub(crate) disk_prefix_cache: Option<disk_prefix_cache::Options>,
    /// The directory of dequantized model files.
    pub(crate) dequantized_dir: PathBuf,
}

impl EngineSpec {
    /// The spec of a catalog model whose file is `path`, on the default devices of llama.cpp and with the weights of the file.
    pub(crate) fn of(model: &Model, path: PathBuf, defaults: &EngineDefaults) -> Self {
        Self {
            name: model.name.to_string(),
            path,
            sha256: model.sha256.clone(),
            dequantized: None,
            context: model.context,
            sequences: model.sequences(),
            threads: model.threads.unwrap_or(defaults.threads).min(defaults.threads),
            rpc: Vec::new(),
            devices: None,
            split: SplitMode::None,
            tensor_split: Vec::new(),
            gpu_layers: None,
            cpu_expert_layers: 0,
            purpose: model.purpose,
            template: model.template.clone(),
            template_kwargs: (*model.template_kwargs).clone(),
            cache: kv_cache_type(model.cache, None),
            speculation: model.speculation == SpeculationSetting::Auto,
            target_itl: defaults.target_itl,
            prefix_cache_bytes: defaults.prefix_cache_bytes,
            disk_prefix_cache: defaults.disk_prefix_cache.as_ref().map(|cache| (cache.dir.clone(), cache.max_bytes)),
        }
    }

    /// The same spec with the weights dequantized to a type.
    pub(crate) fn with_dequantized_weights(self, half_type: Option<HalfType>, defaults: &EngineDefaults) -> Self {
        let weights = |half| DequantizedWeights { dir: defaults.dequantized_dir.clone(), bf16: half == HalfType::Bf16 };
        Self { dequantized: half_type.map(weights), ..self }
    }

    /// Whether the CPU computes, alone or beside other devices.
    pub(crate) fn uses_cpu(&self) -> bool {
        self.is_mixed() || self.devices.iter().flatten().any(|device| device == "CPU")
    }

    /// Whether the CPU computes a part of the model and other devices the rest.
    pub(crate) fn is_mixed(&self) -> bool {
        self.gpu_layers.is_some() || self.cpu_expert_layers > 0
    }

    /// Loads the engine into this process.
    pub(crate) async fn load(
        self,
        turn: Option<SharedCpu>,
        progress: Arc<dyn Fn(f32) + Send + Sync>,
    ) -> Result<(EngineHandle, Vec<DeviceMemory>), LoadError> {
        let (name, rpc, dequantized) = (self.name.clone(), self.rpc.clone(), self.dequantized.clone());
        let (mut model, mut engine) = self.options();
        engine.shared_cpu = turn;
        let memory = Arc::new(Mutex::new(Vec::new()));
        let loaded_memory = memory.clone();
        let load = move || -> Result<LlamaBackend, LoadError> {
            rpc.iter().try_for_each(|address| artel_llama::add_rpc_server(address))?;
            let done = match dequantized {
                Some(weights) => use_dequantized_weights(&mut model, &weights, &*progress)?,
                None => 0.0,
            };
            let remaining = |fraction: f32| progress(done + fraction * (1.0 - done));
            if !rpc.is_empty() {
                artel_llama::enable_tcp_keepalive();
            }
            let model = LlamaBackend::load_with_progress(model, &remaining)?;
            if !rpc.is_empty() {
                // llama.cpp connects to a server anew when it first needs it.
                artel_llama::enable_tcp_keepalive();
            }
            *loaded_memory.lock().expect("no code panics while it holds the lock") = model.device_buffers().to_vec();
            Ok(model)
        };
        let handle = EngineHandle::spawn(&name, engine, load).await?;
        let memory = std::mem::take(&mut *memory.lock().expect("no code panics while it holds the lock"));
        Ok((handle, memory))
    }

    fn options(self) -> (artel_llama::Options, artel_engine::Options) {
        let model = artel_llama::Options {
            path: self.path,
            dequantized: None,
            sha256: self.sha256,
            context: self.context,
            sequences: self.sequences,
            threads: self.threads,
            devices: self.devices,
            split_mode: self.split,
            tensor_split: self.tensor_split,
            gpu_layers: self.gpu_layers,
            cpu_expert_layers: self.cpu_expert_layers,
            purpose: self.purpose,
            template: self.template,
            template_kwargs: self.template_kwargs,
            // llama.cpp's flash attention requires the same type of both.
            kv_cache: KvCacheTypes { keys: self.cache, values: self.cache },
        };
        let engine = artel_engine::Options {
            target_itl: self.target_itl,
            prefix_cache_bytes: self.prefix_cache_bytes,
            disk_prefix_cache: self
                .disk_prefix_cache
                .map(|(dir, bytes)| disk_prefix_cache::Options { dir, max_bytes: bytes }),
            draft_mode: if self.speculation { DraftMode::Auto } else { DraftMode::Never },
            ..artel_engine::Options::default()
        };
        (model, engine)
    }
}

/// Loads a model from its dequantized file, which is written if it does not exist. If it cannot be written, the
/// original file is loaded. Returns the fraction of the loading work that this took.
fn use_dequantized_weights(
    model: &mut artel_llama::Options,
    weights: &DequantizedWeights,
    progress: &dyn Fn(f32),
) -> Result<f32, artel_llama::Error> {
    if let Some(sha256) = &model.sha256 {
        gguf::verify_sha256(&model.path, sha256)?;
    }
    let done = Cell::new(0.0);
    let writing = |fraction: f32| {
        // Loading the file is the other half.
        done.set(fraction / 2.0);
        progress(done.get());
    };
    let (dir, half) = (&weights.dir, if weights.bf16 { HalfType::Bf16 } else { HalfType::F16 });
    let free_bytes = disk::free_bytes(dir).map_or(u64::MAX, |free| free.saturating_sub(disk::RESERVED_BYTES));
    match gguf::dequantize(&model.path, dir, half, free_bytes, &artel_llama::dequantize_blocks, &writing) {
        Ok(path) => {
            tracing::info!(path = %path.display(), "loading the model with matrices dequantized to {half:?}");
            (model.dequantized, model.sha256) = (Some(path), None);
        }
        Err(error @ gguf::Error::Write { .. }) => {
            tracing::warn!(%error, "failed to write the dequantized model; loading the original file, which computes more slowly");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(done.get())
}
