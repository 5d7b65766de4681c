//! Models into engines, with llama.cpp.

mod visible;

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use artel_actors::{MemoryDemand, Loader, LoadProgress};
use artel_engine::{EngineHandle, SharedCpu};
use artel_llama::gguf::{self, HalfType};
use artel_placement::{self as placement, DeviceBytes, Device, DeviceChoice, DeviceKind, LayerFootprint, ModelFootprint, Placement};
use artel_process::{CpuLeaseBroker, DeviceMemory, EngineProgram};
use artel_roles::{Adapter, CacheSetting, GgufFile, Model, SplitSetting, ModelPurpose, WeightsSetting};
use async_trait::async_trait;

use super::config::{Config, EngineIsolation};
use super::files;
use super::hardware::Hardware;
use super::measured::Measured;
use crate::engine::{Common, Form, Spec, Spread, itself};
use crate::hub::Hub;
use visible::visible;

/// Tokens of one sequence when nobody says otherwise, as in `artel_llama`.
const CONTEXT: u32 = 4096;
/// What a process takes before it has a model, and what huge pages have in them that nobody uses: measured.
const PROCESS: u64 = 30 << 20;
/// What computing takes of a model that was never loaded in this shape: more than small ones need, less than large ones do
/// with large batches. It is measured when it is loaded.
const COMPUTE: u64 = 64 << 20;
/// Bytes of text in a token: most texts have more, so that what prefixes take is rather too much than too little.
const TOKEN: u64 = 3;

/// Whether the C library asks for huge pages.
const HUGE_PAGES: &str = "glibc.malloc.hugetlb";

/// Loads engines, each into a process of its own or all into this one. They take turns on the cores.
pub(crate) struct LlamaLoader {
    models: PathBuf,
    common: Common,
    place: Where,
    hardware: Hardware,
    measured: Measured,
    hub: Hub,
}

enum Where {
    Processes(CpuLeaseBroker),
    Here(SharedCpu),
}

impl LlamaLoader {
    pub(crate) fn new(config: &Config) -> Self {
        let common = Common {
            threads: config.threads,
            gap: config.gap,
            prefixes: config.prefixes,
            shelf: config.shelf.clone(),
            recast: config.recast(),
        };
        let place = match config.engines {
            EngineIsolation::Process => Where::Processes(CpuLeaseBroker::default()),
            EngineIsolation::InProcess => Where::Here(SharedCpu::default()),
        };
        Self {
            models: config.crew.models_dir.clone(),
            common,
            place,
            hardware: Hardware::new(config.rpc.clone(), config.budgets.clone()),
            measured: Measured::open(&config.data),
            hub: Hub::new(config.crew.models_dir.clone(), config.offline),
        }
    }

    /// What there is.
    pub(crate) fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// The file of a model, once it is here.
    async fn file(&self, model: &Model) -> Result<PathBuf, String> {
        match &model.file {
            GgufFile::Hf(address) => self.hub.get(address, model.sha256.as_deref(), |_| ()).await,
            GgufFile::Path(_) => files::of_model(model, &self.models).map_err(|fault| fault.to_string()),
        }
    }

    /// What the model takes if this is asked of it. Its file is not fetched for that.
    pub(crate) async fn reckon(&self, model: &Model, demand: MemoryDemand) -> Result<ModelFootprint, String> {
        let wrap = |reason: String| format!("model `{}`: {reason}", model.name);
        let path = files::of_model(model, &self.models).map_err(|fault| wrap(fault.to_string()))?;
        let anatomy = anatomy(path.clone()).await.map_err(wrap)?;
        let recasts = self.recasts(model, &anatomy).await;
        let spec = Spec::of(model, path, &self.common);
        let measured = |device: &str, recast| {
            let devices = Some(vec![device.to_owned()]);
            let cache = Form::of(model.cache, recast);
            self.measured.get(&Self::shape(&Spec { devices, cache, ..spec.clone().recast_to(recasts, &self.common) }))
        };
        let measured = measured("CPU", recasts).max(measured("GPU", recasts)).max(measured("GPU", None));
        // Adapters have as much for each layer as for any other.
        let adapters = demand.adapter_bytes.checked_div(anatomy.layers.len() as u64).unwrap_or(0);
        let trained = anatomy.trained_context.unwrap_or(CONTEXT).max(1);
        let layer = |layer: gguf::LayerMemory| LayerFootprint {
            weight_bytes: adapters.saturating_add(if recasts.is_some() { layer.dequantized } else { layer.weights }),
            file_bytes: adapters.saturating_add(layer.weights),
            kv_elements: layer.key_elements.saturating_add(layer.value_elements),
            window_tokens: None,
        };
        let layers: Vec<LayerFootprint> = anatomy.layers.iter().copied().map(layer).collect();
        let embeds = model.purpose == ModelPurpose::Embedding;
        let tokens = model.context.unwrap_or(CONTEXT.min(trained));
        // A text is embedded in one piece, and all of its tokens have outputs.
        let outputs = if embeds { anatomy.output_buffer_per_token.saturating_mul(u64::from(tokens.min(trained))) } else { 0 };
        let cached = layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(form(model.cache).bytes(layer.cached)));
        let prefixes = cached.saturating_mul(demand.prefix_bytes / TOKEN).min(self.common.prefixes as u64);
        Ok(ModelFootprint {
            model: model.name.to_string(),
            layers,
            input_bytes: anatomy.input,
            output_bytes: anatomy.output,
            tied_bytes: anatomy.tied,
            kv_type: form(model.cache),
            context_tokens: tokens,
            sequences: if embeds { 1 } else { model.sequences },
            contexts: demand.contexts,
            compute_bytes: measured.unwrap_or(COMPUTE),
            process_bytes: PROCESS.saturating_add(outputs).saturating_add(prefixes),
            devices: match model.placement.devices.is_empty() {
                true => DeviceChoice::Auto,
                false => DeviceChoice::Pinned(model.placement.devices.clone()),
            },
            split: match model.placement.split {
                SplitSetting::None => placement::SplitMode::None,
                SplitSetting::Layer => placement::SplitMode::Layer,
                SplitSetting::Row => placement::SplitMode::Row,
            },
            tensor_split: (!model.placement.tensor_split.is_empty())
                .then(|| model.placement.tensor_split.iter().map(|share| *share as f32).collect()),
        })
    }

    /// What the weights of a model are recast to: if it is up to us, where none but processors may compute, and where that is
    /// fast.
    async fn recasts(&self, model: &Model, anatomy: &gguf::MemoryEstimate) -> Option<HalfType> {
        if anatomy.layers.iter().all(|layer| layer.dequantized == layer.weights) {
            return None;
        }
        let pays = match model.weights {
            WeightsSetting::File => return None,
            WeightsSetting::F16 => return Some(HalfType::F16),
            WeightsSetting::Bf16 => return Some(HalfType::Bf16),
            WeightsSetting::Auto => anatomy.preferred_half_type?,
        };
        let on_processors = if model.placement.devices.is_empty() {
            let devices = self.hardware.devices(&DeviceBytes::new()).await;
            !devices.iter().any(|device| matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu))
        } else {
            model.placement.devices.iter().all(|name| counts_as_processor(name))
        };
        on_processors.then_some(pays)
    }

    async fn spec(&self, model: &Model, path: PathBuf, place: &Placement) -> Result<Spec, String> {
        let devices: Vec<String> = place.devices().into_iter().map(str::to_owned).collect();
        // Perhaps a GPU that was planned with is not seen just now.
        let on_processors = devices.iter().all(|name| counts_as_processor(name));
        let recasts = match on_processors || model.weights != WeightsSetting::Auto {
            true => self.recasts(model, &anatomy(path.clone()).await?).await,
            false => None,
        };
        let mut spec = Spec::of(model, path, &self.common).recast_to(recasts, &self.common);
        spec.cache = Form::of(model.cache, recasts.filter(|_| on_processors));
        for server in devices.iter().filter_map(|device| self.hardware.server_of(device)) {
            if !spec.rpc.contains(server) {
                spec.rpc.push(server.clone());
            }
        }
        if devices.len() > 1 {
            spec.split = match place.split {
                placement::SplitMode::Row => Spread::Row,
                _ => Spread::Layer,
            };
            spec.shares = place.parts.iter().map(|part| part.share).collect();
        }
        spec.devices = Some(devices);
        Ok(spec)
    }

    /// What computing takes on one device depends on all this.
    fn shape(spec: &Spec) -> String {
        let file = std::fs::metadata(&spec.path).ok();
        let modified = file.as_ref().and_then(|file| file.modified().ok());
        let modified = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let on_cpu = spec.devices.iter().flatten().all(|device| device == "CPU");
        Measured::key(&[
            &spec.path.to_string_lossy(),
            &format!("{} {modified:?}", file.map_or(0, |file| file.len())),
            &format!("{:?} {} {:?} {} {on_cpu}", spec.context, spec.sequences, spec.cache, spec.embedding),
            &spec.recast.as_ref().map_or_else(String::new, |recast| format!("recast {}", recast.bf16)),
        ])
    }

    async fn start(&self, mut spec: Spec, progress: LoadProgress) -> Result<(EngineHandle, Vec<DeviceMemory>), String> {
        let counter = match &self.place {
            Where::Here(turn) => return spec.load(Some(turn.clone()), progress).await,
            Where::Processes(counter) => counter,
        };
        let seen = visible(&spec.devices.take().unwrap_or_default(), |name| std::env::var(name).ok());
        spec.devices = Some(seen.inside);
        let program = program(&spec, seen.variables)?;
        // Those whom the processor does not compute for need no turn of it.
        let counter = spec.devices.iter().flatten().any(|device| device == "CPU").then_some(counter);
        let started = artel_process::start(program, counter, |share| progress(share)).await?;
        let memory = started.memory.into_iter().map(|memory| DeviceMemory {
            device: seen.outside.get(&memory.device).cloned().unwrap_or(memory.device),
            ..memory
        });
        Ok((started.handle, memory.collect()))
    }
}

#[async_trait]
impl Loader for LlamaLoader {
    async fn load(&self, model: &Model, place: &Placement, progress: LoadProgress) -> Result<EngineHandle, String> {
        let wrap = |reason: String| format!("model `{}`: {reason}", model.name);
        let path = self.file(model).await.map_err(wrap)?;
        let spec = self.spec(model, path, place).await.map_err(wrap)?;
        let shape = Self::shape(&spec);
        let remote = !spec.rpc.is_empty();
        match self.start(spec, progress).await {
            Ok((handle, memory)) => {
                if let Some(compute) = memory.iter().map(|memory| memory.compute).max() {
                    self.measured.put(shape, compute);
                }
                Ok(handle)
            }
            Err(reason) => {
                if remote {
                    // Perhaps a server is lost: whoever plans next should know.
                    self.hardware.doubt().await;
                }
                Err(wrap(reason))
            }
        }
    }

    async fn footprint(&self, model: &Model, demand: MemoryDemand) -> Result<ModelFootprint, String> {
        self.file(model).await.map_err(|reason| format!("model `{}`: {reason}", model.name))?;
        self.reckon(model, demand).await
    }

    fn download_progress(&self, model: &Model) -> Option<f32> {
        self.hub.share(model.file.uri()?)
    }

    async fn fetch_adapter(&self, adapter: &Adapter) -> Result<(), String> {
        match &adapter.file {
            GgufFile::Hf(address) => self.hub.get(address, None, |_| ()).await.map(drop),
            GgufFile::Path(_) => Ok(()),
        }
    }

    async fn devices(&self, taken: &DeviceBytes) -> Vec<Device> {
        self.hardware.devices(taken).await
    }
}

/// Of devices on other machines nobody knows what they are.
fn counts_as_processor(device: &str) -> bool {
    device == "CPU" || device.starts_with("RPC[")
}

/// What the header of a model's file says of the memory that it takes.
async fn anatomy(path: PathBuf) -> Result<gguf::MemoryEstimate, String> {
    let anatomy = tokio::task::spawn_blocking(move || gguf::estimate_memory(&path)).await;
    anatomy.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

fn form(cache: CacheSetting) -> placement::KvCacheType {
    match cache {
        CacheSetting::F32 => placement::KvCacheType::F32,
        // Those that it may be take the same.
        CacheSetting::Auto | CacheSetting::F16 => placement::KvCacheType::F16,
        CacheSetting::Bf16 => placement::KvCacheType::Bf16,
        CacheSetting::Q8_0 => placement::KvCacheType::Q8_0,
        CacheSetting::Q4_0 => placement::KvCacheType::Q4_0,
    }
}

/// What is asked of the C library, beside what was asked of it before: that what llama.cpp allocates lies in huge pages where
/// Linux gives them to those who ask. Of a cache of 750 MB every page is written to when it is made, and with pages of 4 KiB that
/// takes half a second.
fn tunables(before: Option<&str>) -> String {
    match before {
        Some(before) if before.contains(HUGE_PAGES) => before.to_owned(),
        Some(before) if !before.is_empty() => format!("{before}:{HUGE_PAGES}=1"),
        _ => format!("{HUGE_PAGES}=1"),
    }
}

fn program(spec: &Spec, mut env: Vec<(String, String)>) -> Result<EngineProgram, String> {
    // An abort says its place; a debugger that is called for more would hold everything up.
    env.push(("GGML_NO_BACKTRACE".to_owned(), "1".to_owned()));
    env.push(("GLIBC_TUNABLES".to_owned(), tunables(std::env::var("GLIBC_TUNABLES").ok().as_deref())));
    Ok(EngineProgram {
        path: itself()?,
        args: vec!["engine".to_owned(), spec.name.clone()],
        env,
        // Engines fetch nothing.
        removed_env: vec!["HF_TOKEN".to_owned()],
        name: spec.name.clone(),
        spec: serde_json::to_string(spec).map_err(|e| format!("the model cannot be described: {e}"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::tunables;

    #[test]
    fn what_the_user_asked_of_the_c_library_holds() {
        let huge = "glibc.malloc.hugetlb=1";
        assert_eq!([tunables(None), tunables(Some(""))], [huge, huge]);
        assert_eq!(tunables(Some("glibc.malloc.check=1")), format!("glibc.malloc.check=1:{huge}"));
        assert_eq!(tunables(Some("glibc.malloc.hugetlb=0")), "glibc.malloc.hugetlb=0");
    }
}
