//! Loads models into engines with llama.cpp, and estimates their memory.

mod planned_buffers;
mod visible_devices;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use artel_actors::{LoadProgress, Loader, MemoryDemand};
use artel_check::files;
use artel_engine::{EngineHandle, LoadError, SharedCpu};
use artel_gguf::{self as gguf, HalfType};
use artel_grpc::{DeviceStatus, Machine};
use artel_hub::HfDownloader;
use artel_log::LogHandle;
use artel_model::{DeviceKind, ExpertPlacement, GpuLayers, KeepLoaded, KvCacheType, SplitMode};
use artel_placement::{Device, DeviceBytes, DeviceChoice, LayerFootprint, ModelFootprint, PROCESS_BYTES, Placement};
use artel_process::{CpuLeaseBroker, DeviceMemory, EngineProgram, HangPolicy};
use artel_roles::{Adapter, CacheSetting, EngineIsolation, GgufFile, Model, WeightsSetting};
use async_trait::async_trait;

use super::compute_buffer_cache::{ComputeBufferCache, LayerDivision};
use super::config::Config;
use super::devices::DeviceInventory;
use super::verified_adapters::VerifiedAdapters;
use crate::engine::{EngineDefaults, EngineSpec, environment, kv_cache_type};
use crate::host::own_program;
use crate::log_config::FILTER_VARIABLE;
use planned_buffers::{BufferGuess, BufferKeys, PlannedBuffers};
use visible_devices::visible_devices;

/// The context of a sequence when the model does not set one, as in `artel_llama`.
pub(super) const DEFAULT_CONTEXT_TOKENS: u32 = 4096;
/// Bytes of text in a token. Most texts have more, so that the memory of prefixes is overestimated rather than underestimated.
const TOKEN_BYTES: u64 = 3;

/// Tokens of a question, which a sequence must hold beside a role's prompt and answer.
const MIN_QUESTION_TOKENS: u64 = 512;

/// The glibc tunable that requests huge pages.
const HUGE_PAGES_TUNABLE: &str = "glibc.malloc.hugetlb";

/// Loads engines, each into a process of its own or all into this one. They share the CPU cores by leases.
pub(crate) struct LlamaLoader {
    models: PathBuf,
    defaults: EngineDefaults,
    location: EngineLocation,
    devices: DeviceInventory,
    compute_buffers: ComputeBufferCache,
    verified_adapters: VerifiedAdapters,
    downloader: HfDownloader,
    core_dumps: bool,
    /// The log that engines write to, with its level.
    log: Option<LogHandle>,
}

/// Where engines run, with what shares the CPU cores among them.
enum EngineLocation {
    Processes {
        broker: CpuLeaseBroker,
        /// How long an engine may show no sign of life.
        hang_timeout: Duration,
    },
    InProcess(SharedCpu),
}

impl LlamaLoader {
    pub(crate) fn new(config: &Config) -> Self {
        let defaults = EngineDefaults {
            threads: config.threads,
            target_itl: config.target_itl,
            prefix_cache_bytes: config.prefix_cache_bytes,
            disk_prefix_cache: config.disk_prefix_cache.clone(),
            dequantized_dir: config.dequantized_dir(),
        };
        let location = match config.engines {
            EngineIsolation::Process => {
                EngineLocation::Processes { broker: CpuLeaseBroker::default(), hang_timeout: config.hang_timeout }
            }
            EngineIsolation::InProcess => EngineLocation::InProcess(SharedCpu::default()),
        };
        Self {
            models: config.runtime.models_dir.clone(),
            defaults,
            location,
            devices: DeviceInventory::new(config.rpc.clone(), config.budgets.clone()),
            compute_buffers: ComputeBufferCache::open(&config.data),
            verified_adapters: VerifiedAdapters::default(),
            downloader: HfDownloader::new(config.runtime.models_dir.clone(), config.offline)
                .with_token_file(config.hf_token_file.as_deref()),
            core_dumps: config.core_dumps,
            log: None,
        }
    }

    /// With the log that engines write to.
    pub(crate) fn with_log(self, log: LogHandle) -> Self {
        Self { log: Some(log), ..self }
    }

    /// The devices that engines can use.
    pub(crate) fn inventory(&self) -> &DeviceInventory {
        &self.devices
    }

    /// The path of the model file, downloaded first if necessary.
    async fn file(&self, model: &Model) -> Result<PathBuf, LoadError> {
        match &model.file {
            GgufFile::Hf(address) => {
                let downloaded = self.downloader.get(address, model.sha256.as_ref(), |_| ()).await;
                downloaded.map_err(|e| download_error(&e))
            }
            GgufFile::Path(_) => self.existing_file(model),
        }
    }

    /// The path of the model file, if it is here.
    fn existing_file(&self, model: &Model) -> Result<PathBuf, LoadError> {
        files::model_path(model, &self.models).map_err(|problem| LoadError::permanent(problem.to_string()))
    }

    /// Estimates the memory of a model under this workload. Does not download its file.
    pub(crate) async fn estimate(&self, model: &Model, demand: MemoryDemand) -> Result<ModelFootprint, LoadError> {
        let wrap = |error: LoadError| error.in_context(of_model(model));
        let path = self.existing_file(model).map_err(wrap)?;
        let header = memory_estimate(path.clone()).await.map_err(wrap)?;
        let half_type = self.half_type(model, &header).await;
        let trained = header.trained_context.unwrap_or(DEFAULT_CONTEXT_TOKENS).max(1);
        let tokens = wanted_context(model, header.trained_context);
        let mut spec = EngineSpec::of(model, path, &self.defaults);
        spec.context = Some(tokens);
        let spec = spec.with_dequantized_weights(half_type, &self.defaults);
        let with_cache = |half| EngineSpec { cache: kv_cache_type(model.cache, half), ..spec.clone() };
        let guess = BufferGuess {
            output_bytes: if model.purpose.pools() { 0 } else { header.output_buffer_per_token },
            largest_matrix_bytes: header.largest_layer_tensor,
        };
        let (halved, full) = (with_cache(half_type), with_cache(None));
        let division = stated_division(model, &header);
        let buffers = PlannedBuffers::of(&self.compute_buffers, &halved, [&halved, &full], division, guess);
        // An adapter has the same size in every layer.
        let adapter_bytes = demand.adapter_bytes.checked_div(header.layers.len() as u64).unwrap_or(0);
        let layer = |layer: gguf::LayerMemory| LayerFootprint {
            weight_bytes: adapter_bytes.saturating_add(if half_type.is_some() {
                layer.dequantized
            } else {
                layer.weights
            }),
            file_bytes: adapter_bytes.saturating_add(layer.weights),
            expert_bytes: layer.expert_weights,
            adapter_bytes,
            kv_elements: layer.key_elements.saturating_add(layer.value_elements),
            window_tokens: None,
        };
        let layers: Vec<LayerFootprint> = header.layers.iter().copied().map(layer).collect();
        let pools = model.purpose.pools();
        // A text is computed as a whole in one batch, and each of its tokens has an output.
        let outputs =
            if pools { header.output_buffer_per_token.saturating_mul(u64::from(tokens.min(trained))) } else { 0 };
        // The types that `auto` may choose have the same size.
        let kv_type = model.cache.or(KvCacheType::F16);
        let cached = layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(kv_type.bytes(layer.kv_elements)));
        let prefix_bytes =
            cached.saturating_mul(demand.prefix_bytes / TOKEN_BYTES).min(self.defaults.prefix_cache_bytes as u64);
        let role_tokens = (demand.longest_prefix_bytes / TOKEN_BYTES)
            .saturating_add(MIN_QUESTION_TOKENS)
            .saturating_add(u64::from(demand.max_output_tokens));
        let role_tokens = u32::try_from(role_tokens).unwrap_or(u32::MAX);
        // What was written is a promise. A model that pools computes a text in one batch, whose size is its context.
        let has_own_context = model.context.is_some() || pools;
        let sequences = if pools { 1 } else { model.sequences() };
        Ok(ModelFootprint {
            model: model.name.to_string(),
            layers,
            input_bytes: header.input,
            output_bytes: header.output,
            tied_bytes: header.tied,
            kv_type,
            written_kv_type: match model.cache {
                CacheSetting::Auto => None,
                CacheSetting::Fixed(written) => Some(written),
            },
            context_tokens: tokens,
            min_context_tokens: if has_own_context { tokens } else { role_tokens.min(tokens) },
            sequences,
            min_sequences: if pools || model.sequences.is_some() { sequences } else { 1 },
            role_tokens,
            cache_size: model.cache_size,
            compute_bytes: buffers.device,
            cpu_compute_bytes: buffers.cpu,
            mixed_compute_bytes: buffers.mixed,
            beside_compute_bytes: buffers.beside,
            process_bytes: PROCESS_BYTES.saturating_add(outputs).saturating_add(prefix_bytes),
            devices: match model.placement.devices.is_empty() {
                true => DeviceChoice::Auto,
                false => DeviceChoice::Pinned(model.placement.devices.clone()),
            },
            split: model.placement.split,
            tensor_split: (!model.placement.tensor_split.is_empty())
                .then(|| model.placement.tensor_split.iter().map(|share| *share as f32).collect()),
            gpu_layers: model.gpu_layers,
            experts: model.experts,
            is_kept: model.keep == KeepLoaded::Forever,
            weight_elements: header.weight_elements,
        })
    }

    /// The type to which the weights of a model are dequantized. With `auto`, only if just CPUs may compute the model and it is
    /// faster there.
    async fn half_type(&self, model: &Model, header: &gguf::MemoryEstimate) -> Option<HalfType> {
        if header.layers.iter().all(|layer| layer.dequantized == layer.weights) {
            return None;
        }
        let half_type = match model.weights {
            WeightsSetting::File => return None,
            WeightsSetting::F16 => return Some(HalfType::F16),
            WeightsSetting::Bf16 => return Some(HalfType::Bf16),
            WeightsSetting::Auto => artel_llama::fast_half_type().filter(|_| header.is_faster_dequantized)?,
        };
        (!self.may_use_gpus(model).await).then_some(half_type)
    }

    /// Whether a GPU may compute the model.
    async fn may_use_gpus(&self, model: &Model) -> bool {
        if model.placement.devices.is_empty() {
            let devices = self.devices.devices(&DeviceBytes::new()).await;
            devices.iter().any(|device| matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu))
        } else {
            !model.placement.devices.iter().all(|name| counts_as_cpu(name))
        }
    }

    async fn spec(&self, model: &Model, path: PathBuf, placement: &Placement) -> Result<EngineSpec, LoadError> {
        let devices: Vec<String> = placement.devices().into_iter().map(str::to_owned).collect();
        // The devices may differ from the estimate: a GPU that was planned with may be missing at the moment.
        let on_cpus = devices.iter().all(|name| counts_as_cpu(name));
        let half_type = match on_cpus || model.weights != WeightsSetting::Auto {
            true => self.half_type(model, &memory_estimate(path.clone()).await?).await,
            false => None,
        };
        let mut spec = EngineSpec::of(model, path, &self.defaults).with_dequantized_weights(half_type, &self.defaults);
        spec.cache = kv_cache_type(model.cache, half_type.filter(|_| on_cpus));
        for server in devices.iter().filter_map(|device| self.devices.server_of(device)) {
            if !spec.rpc.contains(server) {
                spec.rpc.push(server.clone());
            }
        }
        if devices.len() > 1 {
            spec.split = if placement.split == SplitMode::Row { SplitMode::Row } else { SplitMode::Layer };
            spec.tensor_split = placement.parts.iter().map(|part| part.share).collect();
        }
        spec.devices = Some(devices);
        spec.gpu_layers = placement.gpu_layers;
        spec.cpu_expert_layers = placement.cpu_expert_layers;
        spec.context = Some(placement.context_tokens);
        if !model.purpose.pools() {
            spec.sequences = placement.sequences;
        }
        Ok(spec)
    }

    async fn start(
        &self,
        mut spec: EngineSpec,
        progress: LoadProgress,
    ) -> Result<(EngineHandle, Vec<DeviceMemory>), LoadError> {
        let (broker, hang_timeout) = match &self.location {
            EngineLocation::InProcess(turn) => return spec.load(Some(turn.clone()), progress).await,
            EngineLocation::Processes { broker, hang_timeout } => (broker, *hang_timeout),
        };
        let visible = visible_devices(&spec.devices.take().unwrap_or_default(), |name| std::env::var(name).ok());
        spec.devices = Some(visible.inner_names);
        let uses_cpu = spec.uses_cpu();
        let is_cpu_only = uses_cpu && spec.devices.iter().flatten().all(|device| device == "CPU");
        let policy = HangPolicy { timeout: hang_timeout, is_cpu_only, rpc_servers: spec.rpc.clone() };
        let program = self.program(&spec, visible.variables, policy)?;
        // An engine that does not compute on the CPU needs no lease of it.
        let broker = uses_cpu.then_some(broker);
        let started = artel_process::start(program, broker, |share| progress(share)).await?;
        let memory = started.memory.into_iter().map(|memory| DeviceMemory {
            device: visible.outer_names.get(&memory.device).cloned().unwrap_or(memory.device),
            ..memory
        });
        Ok((started.handle, memory.collect()))
    }

    fn program(
        &self,
        spec: &EngineSpec,
        variables: Vec<(String, String)>,
        hang_policy: HangPolicy,
    ) -> Result<EngineProgram, LoadError> {
        let mut env: Vec<(OsString, OsString)> = environment::inherited();
        let mut set = |name: &str, value: String| env.push((name.into(), value.into()));
        variables.into_iter().for_each(|(name, value)| set(&name, value));
        // An abort message names the source line. Without this, ggml starts a debugger for a backtrace, which blocks the exit.
        set("GGML_NO_BACKTRACE", "1".to_owned());
        set("GLIBC_TUNABLES", tunables(std::env::var("GLIBC_TUNABLES").ok().as_deref()));
        let mut log_levels = self.log.as_ref().map(|log| log.filter().changes());
        if let Some(levels) = &mut log_levels {
            set(FILTER_VARIABLE, levels.borrow_and_update().clone());
        }
        let core_dumps = self.core_dumps.then(|| "--core-dumps".to_owned());
        Ok(EngineProgram {
            path: own_program()
                .map_err(|e| LoadError::transient(format!("failed to find the path of the running program: {e}")))?,
            args: ["engine".to_owned(), spec.name.clone()].into_iter().chain(core_dumps).collect(),
            env,
            name: spec.name.clone(),
            spec: serde_json::to_string(spec)
                .map_err(|e| LoadError::permanent(format!("failed to serialize the engine spec: {e}")))?,
            hang_policy,
            log_levels,
        })
    }
}

#[async_trait]
impl Loader for LlamaLoader {
    async fn load(
        &self,
        model: &Model,
        placement: &Placement,
        progress: LoadProgress,
    ) -> Result<EngineHandle, LoadError> {
        let wrap = |error: LoadError| error.in_context(of_model(model));
        let path = self.file(model).await.map_err(wrap)?;
        let spec = self.spec(model, path, placement).await.map_err(wrap)?;
        let keys = BufferKeys::of(&spec);
        let remote = !spec.rpc.is_empty();
        match self.start(spec, progress).await {
            Ok((handle, memory)) => {
                keys.store(&self.compute_buffers, &memory);
                Ok(handle)
            }
            Err(error) => {
                if remote {
                    // An RPC server may be lost: the next plan needs fresh data.
                    self.devices.invalidate().await;
                }
                Err(wrap(error))
            }
        }
    }

    async fn footprint(&self, model: &Model, demand: MemoryDemand) -> Result<ModelFootprint, LoadError> {
        self.file(model).await.map_err(|error| error.in_context(of_model(model)))?;
        self.estimate(model, demand).await
    }

    fn download_progress(&self, model: &Model) -> Option<f32> {
        self.downloader.fraction(model.file.uri()?)
    }

    async fn fetch_adapter(&self, adapter: &Adapter) -> Result<(), LoadError> {
        if let GgufFile::Hf(address) = &adapter.file {
            self.downloader.get(address, adapter.sha256.as_ref(), |_| ()).await.map_err(|e| download_error(&e))?;
        }
        self.verified_adapters.verify(adapter, &self.models).await
    }

    async fn devices(&self, taken: &DeviceBytes) -> Vec<Device> {
        self.devices.devices(taken).await
    }
}

#[async_trait]
impl Machine for LlamaLoader {
    async fn device_statuses(&self, taken: &DeviceBytes) -> Vec<DeviceStatus> {
        self.devices.statuses(taken).await
    }

    async fn estimate_footprint(&self, model: &Model, demand: MemoryDemand) -> Result<ModelFootprint, LoadError> {
        self.estimate(model, demand).await
    }
}

/// The context that a model wants, trained with contexts of `trained` tokens.
fn wanted_context(model: &Model, trained: Option<u32>) -> u32 {
    model.context.unwrap_or(DEFAULT_CONTEXT_TOKENS.min(trained.unwrap_or(DEFAULT_CONTEXT_TOKENS).max(1)))
}

/// How the settings of a model divide its layers between the CPU and other devices; none if they leave that to the planner.
fn stated_division(model: &Model, header: &gguf::MemoryEstimate) -> Option<LayerDivision> {
    let layers = u32::try_from(header.layers.len()).unwrap_or(u32::MAX);
    let GpuLayers::Count(count) = model.gpu_layers else { return None };
    let cpu_expert_layers = match model.experts {
        ExpertPlacement::Cpu => layers,
        ExpertPlacement::Auto if header.layers.iter().all(|layer| layer.expert_weights == 0) => 0,
        ExpertPlacement::Auto => return None,
    };
    // The output counts as one more layer.
    Some(LayerDivision { gpu_layers: (count <= layers).then_some(count), cpu_expert_layers })
}

/// The context of an error in loading a model.
fn of_model(model: &Model) -> String {
    format!("model `{}`", model.name)
}

fn download_error(error: &artel_hub::Error) -> LoadError {
    let message = error.to_string();
    if error.is_transient() { LoadError::transient(message) } else { LoadError::permanent(message) }
}

/// Whether a device counts as a CPU. The kind of a device on another machine is not known.
fn counts_as_cpu(device: &str) -> bool {
    device == "CPU" || device.starts_with("RPC[")
}

/// The memory of a model, from the header of its file.
async fn memory_estimate(path: PathBuf) -> Result<gguf::MemoryEstimate, LoadError> {
    let header = tokio::task::spawn_blocking(move || gguf::estimate_memory(&path)).await;
    let header = header.map_err(|e| LoadError::transient(format!("reading the header of the file panicked: {e}")))?;
    header.map_err(|error| artel_llama::Error::from(error).into())
}

/// The value of `GLIBC_TUNABLES` with huge pages for the allocations of llama.cpp, where Linux grants them on request. Every page
/// of a KV cache is written when the cache is created, which is slow with pages of 4 KiB. A value that the user has set is kept.
fn tunables(user_value: Option<&str>) -> String {
    match user_value {
        Some(value) if value.contains(HUGE_PAGES_TUNABLE) => value.to_owned(),
        Some(value) if !value.is_empty() => format!("{value}:{HUGE_PAGES_TUNABLE}=1"),
        _ => format!("{HUGE_PAGES_TUNABLE}=1"),
    }
}

#[cfg(test)]
mod tests {
    use super::tunables;

    #[test]
    fn tunables_set_by_the_user_are_kept() {
        let huge = "glibc.malloc.hugetlb=1";
        assert_eq!([tunables(None), tunables(Some(""))], [huge, huge]);
        assert_eq!(tunables(Some("glibc.malloc.check=1")), format!("glibc.malloc.check=1:{huge}"));
        assert_eq!(tunables(Some("glibc.malloc.hugetlb=0")), "glibc.malloc.hugetlb=0");
    }
}
