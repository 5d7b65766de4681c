//! The compute buffers that a model is planned with: as they were measured, or a guess before that.

use std::time::UNIX_EPOCH;

use artel_model::{DeviceMemory, piece_paths};

use crate::engine::EngineSpec;
use crate::serve::compute_buffer_cache::{ComputeBufferCache, EngineShape, KnownSize, LayerDivision};

/// The least compute buffers of a model that was never loaded in this configuration: more than small models need. The size is
/// measured when the model is loaded.
const DEFAULT_COMPUTE_BYTES: u64 = 64 << 20;
/// The tokens of a batch where a device other than the CPU computes, as in `artel_llama`; those of other machines are such devices
/// too. llama.cpp reserves the outputs of all of them, which are most of the compute buffers of a model with a large vocabulary.
const DEVICE_BATCH_TOKENS: u64 = 512;
/// The same where the CPU alone computes.
const CPU_BATCH_TOKENS: u64 = 144;

/// What a guess depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct BufferGuess {
    /// Bytes of the outputs of a token, of which a batch has as many as tokens; 0 if they are reserved elsewhere.
    pub(super) output_bytes: u64,
    /// Bytes of the largest matrix of a layer, of which a device has a copy if it computes layers of the CPU.
    pub(super) largest_matrix_bytes: u64,
}

/// Bytes of the compute buffers on each device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedBuffers {
    /// If the CPU computes everything.
    pub(super) cpu: u64,
    /// If other devices compute everything.
    pub(super) device: u64,
    /// If other devices and the CPU compute a part each: on a device other than the CPU.
    pub(super) mixed: u64,
    /// The same on the CPU.
    pub(super) beside: u64,
}

/// Whose buffers a size is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BufferOwner {
    /// Each device, if all of them are alike: the CPU alone, or devices other than it.
    Every,
    /// A device other than the CPU, which computes a part.
    Device,
    /// The CPU, which computes a part.
    Cpu,
}

impl BufferOwner {
    /// A part of stored keys.
    fn key(self) -> &'static str {
        match self {
            Self::Every => "",
            Self::Device => "mixed",
            Self::Cpu => "beside",
        }
    }
}

/// Where the sizes of the buffers of an engine are stored when it is loaded.
pub(super) struct BufferKeys {
    /// Of its devices, but for a CPU that computes a part.
    family: String,
    /// Of the CPU, if it computes a part.
    beside: Option<String>,
    shape: EngineShape,
}

impl BufferKeys {
    /// Those of an engine that is to be loaded.
    pub(super) fn of(spec: &EngineSpec) -> Self {
        let division = LayerDivision { gpu_layers: spec.gpu_layers, cpu_expert_layers: spec.cpu_expert_layers };
        let shape = EngineShape { context: spec.context.unwrap_or_default(), sequences: spec.sequences, division };
        let of = |owner| family(spec, spec.devices.as_deref().unwrap_or_default(), owner);
        let is_mixed = spec.is_mixed();
        Self {
            family: of(if is_mixed { BufferOwner::Device } else { BufferOwner::Every }),
            beside: is_mixed.then(|| of(BufferOwner::Cpu)),
            shape,
        }
    }

    /// Stores what a loaded engine has.
    pub(super) fn store(self, cache: &ComputeBufferCache, memory: &[DeviceMemory]) {
        let is_beside = |memory: &&DeviceMemory| self.beside.is_some() && memory.device == "CPU";
        let (on_cpu, on_devices): (Vec<&DeviceMemory>, Vec<&DeviceMemory>) = memory.iter().partition(is_beside);
        let most = |memory: &[&DeviceMemory]| memory.iter().map(|memory| memory.compute).max();
        if let Some(bytes) = most(&on_devices) {
            cache.put(self.family, self.shape, bytes);
        }
        if let Some((family, bytes)) = self.beside.zip(most(&on_cpu)) {
            cache.put(family, self.shape, bytes);
        }
    }
}

impl PlannedBuffers {
    /// Those of an engine with the cache that its model wants. On devices it may be one of two, which differ in the type of the cache.
    /// A model whose settings leave it to the planner how its layers are divided has no division.
    pub(super) fn of(
        measured: &ComputeBufferCache,
        on_cpu: &EngineSpec,
        on_devices: [&EngineSpec; 2],
        division: Option<LayerDivision>,
        guess: BufferGuess,
    ) -> Self {
        let known = |spec: &EngineSpec, device: &str, owner, division| {
            let cache = (spec.context.unwrap_or_default(), spec.sequences);
            measured.get(&family(spec, &[device.to_owned()], owner), cache, division)
        };
        let on_devices = |owner, division: Option<LayerDivision>| {
            let known = on_devices.map(|spec| known(spec, "GPU", owner, division));
            known.into_iter().max().unwrap_or(KnownSize::Unknown)
        };
        let whole = Some(LayerDivision::default());
        let of_batch = |tokens: u64| DEFAULT_COMPUTE_BYTES.max(guess.output_bytes.saturating_mul(tokens));
        let device = on_devices(BufferOwner::Every, whole).or_guess(of_batch(DEVICE_BATCH_TOKENS));
        Self {
            cpu: known(on_cpu, "CPU", BufferOwner::Every, whole).or_guess(of_batch(CPU_BATCH_TOKENS)),
            device,
            mixed: on_devices(BufferOwner::Device, division)
                .or_guess(device.saturating_add(guess.largest_matrix_bytes)),
            beside: on_devices(BufferOwner::Cpu, division).or_guess(device),
        }
    }
}

/// What the size of a compute buffer depends on, beside the shape of the engine. The texts are part of stored keys.
fn family(spec: &EngineSpec, devices: &[String], owner: BufferOwner) -> String {
    let pieces: Vec<String> = piece_paths(&spec.path)
        .iter()
        .map(|path| {
            let file = std::fs::metadata(path).ok();
            let modified = file.as_ref().and_then(|file| file.modified().ok());
            let modified = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            format!("{} {modified:?}", file.map_or(0, |file| file.len()))
        })
        .collect();
    let on_cpu = devices.iter().all(|device| device == "CPU");
    ComputeBufferCache::family(&[
        &spec.path.to_string_lossy(),
        &pieces.join(" "),
        &format!("{:?} {} {on_cpu}", spec.cache, spec.purpose.pools()),
        &spec.dequantized.as_ref().map_or_else(String::new, |weights| format!("recast {}", weights.bf16)),
        owner.key(),
    ])
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use artel_roles::{Catalog, YamlSource};

    use super::*;
    use crate::engine::EngineDefaults;

    /// Of a model with a vocabulary of a quarter of a million.
    const GUESS: BufferGuess = BufferGuess { output_bytes: 1 << 20, largest_matrix_bytes: 1000 };
    const MIB: u64 = 1 << 20;

    fn spec(path: PathBuf, context: u32, devices: &[&str]) -> EngineSpec {
        let text = "model: m\nfile: m.gguf\nsequences: 4\n".to_owned();
        let source = YamlSource { path: "m.yaml".to_owned(), dir: Some("/nowhere".into()), text };
        let catalog = Catalog::parse(vec![vec![source]]).unwrap();
        let defaults = EngineDefaults {
            threads: 1,
            target_itl: Duration::from_millis(100),
            prefix_cache_bytes: 0,
            disk_prefix_cache: None,
            dequantized_dir: "/nowhere".into(),
        };
        let devices = devices.iter().map(|device| (*device).to_owned()).collect();
        let spec = EngineSpec::of(catalog.model("m").unwrap(), path, &defaults);
        EngineSpec { context: Some(context), devices: Some(devices), ..spec }
    }

    fn planned(cache: &ComputeBufferCache, wanted: &EngineSpec, division: Option<LayerDivision>) -> PlannedBuffers {
        PlannedBuffers::of(cache, wanted, [wanted, wanted], division, GUESS)
    }

    /// Of a mixed engine, the CPU has a tenth of what the device has.
    fn load(cache: &ComputeBufferCache, spec: &EngineSpec, bytes: u64) {
        let memory =
            |device: &str, compute| DeviceMemory { device: device.to_owned(), compute, ..DeviceMemory::default() };
        let device = spec.devices.iter().flatten().next().unwrap();
        let beside = spec.is_mixed().then(|| memory("CPU", bytes / 10));
        let memory: Vec<DeviceMemory> = beside.into_iter().chain([memory(device, bytes)]).collect();
        BufferKeys::of(spec).store(cache, &memory);
    }

    #[test]
    fn a_device_of_another_machine_is_planned_with_the_batch_that_its_engine_takes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ComputeBufferCache::open(dir.path());
        let wanted = spec("/nowhere/m.gguf".into(), 4096, &[]);
        let guessed = PlannedBuffers { cpu: 144 * MIB, device: 512 * MIB, mixed: 512 * MIB + 1000, beside: 512 * MIB };
        assert_eq!(planned(&cache, &wanted, None), guessed);
        load(&cache, &spec("/nowhere/m.gguf".into(), 4096, &["RPC[box:1]"]), 300 * MIB);
        let measured = PlannedBuffers { device: 300 * MIB, mixed: 300 * MIB + 1000, beside: 300 * MIB, ..guessed };
        assert_eq!(planned(&cache, &wanted, None), measured, "what the CPU has is not what others have");
    }

    #[test]
    fn an_engine_with_a_smaller_cache_than_wanted_does_not_say_what_the_wanted_one_takes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ComputeBufferCache::open(dir.path());
        let of = |context| spec("/nowhere/m.gguf".into(), context, &["CPU"]);
        load(&cache, &of(512), 20 * MIB);
        assert_eq!(planned(&cache, &of(4096), None).cpu, 144 * MIB);
        load(&cache, &of(1024), 200 * MIB);
        assert_eq!(planned(&cache, &of(4096), None).cpu, 200 * MIB, "but that it takes as much");
        load(&cache, &of(4096), 250 * MIB);
        assert_eq!(planned(&cache, &of(4096), None).cpu, 250 * MIB);
    }

    #[test]
    fn buffers_beside_the_cpu_are_those_of_as_many_layers() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ComputeBufferCache::open(dir.path());
        let wanted = spec("/nowhere/m.gguf".into(), 4096, &[]);
        let with = |gpu_layers, cpu_expert_layers| {
            let on_gpu = spec("/nowhere/m.gguf".into(), 4096, &["CUDA0"]);
            EngineSpec { gpu_layers, cpu_expert_layers, ..on_gpu }
        };
        for (spec, bytes) in [(with(Some(24), 0), 90), (with(Some(1), 0), 30), (with(None, 8), 60)] {
            load(&cache, &spec, bytes);
        }
        let mixed = |division| planned(&cache, &wanted, division).mixed;
        let division = |gpu_layers, cpu_expert_layers| Some(LayerDivision { gpu_layers, cpu_expert_layers });
        assert_eq!([mixed(division(Some(24), 0)), mixed(division(Some(1), 0)), mixed(division(None, 8))], [90, 30, 60]);
        assert_eq!(mixed(None), 90, "it is not known how many layers there will be");
        assert_eq!(planned(&cache, &wanted, division(Some(24), 0)).beside, 9, "the CPU has buffers of its own");
        assert_eq!(planned(&cache, &wanted, None).device, 512 * MIB);
    }

    #[test]
    fn a_model_with_another_piece_is_another_model() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ComputeBufferCache::open(dir.path());
        let piece = |at: u32| dir.path().join(format!("m-0000{at}-of-00002.gguf"));
        (1..=2).for_each(|at| std::fs::write(piece(at), "abc").unwrap());
        let of = |path: &Path| spec(path.to_owned(), 4096, &["CPU"]);
        load(&cache, &of(&piece(1)), 250 * MIB);
        assert_eq!(planned(&cache, &of(&piece(1)), None).cpu, 250 * MIB);
        std::fs::write(piece(2), "abcd").unwrap();
        assert_eq!(planned(&cache, &of(&piece(1)), None).cpu, 144 * MIB);
    }
}
