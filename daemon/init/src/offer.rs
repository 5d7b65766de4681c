//! Which model to offer: the first row of the table that fits. A pure function of the table and the machine.

use std::fmt;

use artel_model::format_bytes;
use artel_placement::{
    CacheSize, Device, DeviceChoice, DeviceKind, ExpertPlacement, GpuLayers, KvCacheType, LayerFootprint,
    ModelFootprint, PROCESS_BYTES, Placement, SplitMode, plan,
};
use artel_roles::ModelPurpose;
use artel_roles::hf_uri::HfUri;

use crate::starter::{CONTEXT_TOKENS, SEQUENCES};
use crate::table::{ModelTable, TableModel};

/// Compute buffers that are reserved for a model that was never loaded: those of a vocabulary of 250,000 tokens and a batch of
/// 512. The daemon measures them when it loads the model.
const COMPUTE_BYTES: u64 = 512 << 20;
/// The same for an embedding model, which has a small vocabulary.
const EMBEDDING_COMPUTE_BYTES: u64 = 64 << 20;
/// The largest file that is offered for a CPU. Each token reads the weights once, and the memory of a desktop gives some 40 GB/s:
/// larger ones write fewer than eight tokens per second. `--model` takes them all the same.
const MAX_CPU_FILE_BYTES: u64 = 5_000_000_000;
/// Disk space that a download leaves free, as the daemon does: the journal may be on the same disk.
const RESERVED_DISK_BYTES: u64 = 64 << 20;

/// What a machine has for models.
#[derive(Debug, Clone, Default)]
pub struct MachineResources {
    /// Its devices, with their free memory.
    pub devices: Vec<Device>,
    /// Free bytes on the disk of the models, if known.
    pub free_disk_bytes: Option<u64>,
}

/// A row of the table, and whether the machine can run it.
#[derive(Debug, Clone)]
pub struct ModelOffer<'a> {
    /// The row.
    pub model: &'a TableModel,
    /// Whether it fits.
    pub fit: ModelFit,
}

/// Whether a machine can run a model, and why not.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelFit {
    /// It can, here.
    Fits(Placement),
    /// There is too little memory; in words.
    Memory(String),
    /// Only the CPU has the memory for all of it, and would be slow.
    SlowOnCpu {
        /// The size of the file.
        file_bytes: u64,
    },
    /// The file does not fit on the disk.
    Disk {
        /// The size of the file.
        file_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
}

impl fmt::Display for ModelFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits(placement) => {
                let parts =
                    placement.bytes().into_iter().map(|(device, bytes)| format!("{} on {device}", format_bytes(bytes)));
                write!(f, "it takes {}", parts.collect::<Vec<_>>().join(" and "))
            }
            Self::Memory(reason) => f.write_str(reason),
            Self::SlowOnCpu { file_bytes } => write!(
                f,
                "only the CPU has the memory, and with {} of weights it would write a few words per second",
                format_bytes(*file_bytes)
            ),
            Self::Disk { file_bytes, free_bytes } => write!(
                f,
                "its file has {}, and the disk has {} free",
                format_bytes(*file_bytes),
                format_bytes(*free_bytes)
            ),
        }
    }
}

impl ModelOffer<'_> {
    /// Whether the machine can run it.
    pub fn fits(&self) -> bool {
        matches!(self.fit, ModelFit::Fits(_))
    }
}

/// The chat models of a table in its order, each with whether it fits beside the first embedding model. `is_here` says that a
/// file needs no download.
pub fn assess<'a>(
    table: &'a ModelTable,
    resources: &MachineResources,
    is_here: &dyn Fn(&HfUri) -> bool,
) -> Vec<ModelOffer<'a>> {
    let beside = table.models(ModelPurpose::Embedding).next();
    let models = table.models(ModelPurpose::Chat);
    models.map(|model| ModelOffer { model, fit: fit(model, beside, resources, is_here) }).collect()
}

/// The one to offer: the first that fits.
pub fn best<'o, 'a>(offers: &'o [ModelOffer<'a>]) -> Option<&'o ModelOffer<'a>> {
    offers.iter().find(|offer| offer.fits())
}

/// Bytes that are still to be downloaded for these models.
fn needs_download(models: &[&TableModel], is_here: &dyn Fn(&HfUri) -> bool) -> u64 {
    models.iter().filter(|model| !is_here(&model.address)).map(|model| model.file_bytes).fold(0, u64::saturating_add)
}

fn fit(
    model: &TableModel,
    beside: Option<&TableModel>,
    resources: &MachineResources,
    is_here: &dyn Fn(&HfUri) -> bool,
) -> ModelFit {
    let models: Vec<&TableModel> = beside.into_iter().chain([model]).collect();
    let missing_bytes = needs_download(&models, is_here);
    if let Some(free_bytes) = resources.free_disk_bytes
        && missing_bytes > 0
        && missing_bytes.saturating_add(RESERVED_DISK_BYTES) > free_bytes
    {
        return ModelFit::Disk { file_bytes: missing_bytes, free_bytes };
    }
    let footprints: Vec<ModelFootprint> = models.iter().map(|model| footprint(model)).collect();
    let plan = plan(&footprints, &resources.devices, &[]);
    let name = model.name.as_str();
    let placed = plan.placed.into_iter().find(|placement| placement.model == name);
    match (placed, plan.unplaced.first()) {
        (Some(placement), None) => {
            let is_cpu =
                |device: &Device| device.kind == DeviceKind::Cpu && placement.devices().contains(&device.name.as_str());
            // Layers that are left to the CPU set the pace of all.
            let needs_cpu = placement.is_mixed() || resources.devices.iter().any(is_cpu);
            match needs_cpu && model.file_bytes > MAX_CPU_FILE_BYTES {
                true => ModelFit::SlowOnCpu { file_bytes: model.file_bytes },
                false => ModelFit::Fits(placement),
            }
        }
        (_, Some(unplaced)) => ModelFit::Memory(unplaced.reason.clone()),
        (None, None) => unreachable!("a plan places each model or says why not"),
    }
}

/// The memory of a model before its file is here: all weights in its layers, and the context that the starter catalog gives it.
fn footprint(model: &TableModel) -> ModelFootprint {
    let weight_bytes = model.file_bytes.div_ceil(u64::from(model.layers.max(1)));
    let layer = LayerFootprint {
        weight_bytes,
        file_bytes: weight_bytes,
        expert_bytes: 0,
        adapter_bytes: 0,
        kv_elements: model.kv_elements,
        window_tokens: None,
    };
    let embeds = model.purpose == ModelPurpose::Embedding;
    // A model is offered only if all that the starter catalog gives it fits.
    let context_tokens = CONTEXT_TOKENS.min(model.context_tokens);
    let sequences = if embeds { 1 } else { SEQUENCES };
    let compute_bytes = if embeds { EMBEDDING_COMPUTE_BYTES } else { COMPUTE_BYTES };
    ModelFootprint {
        model: model.name.to_string(),
        layers: vec![layer; model.layers as usize],
        input_bytes: 0,
        output_bytes: 0,
        tied_bytes: 0,
        kv_type: KvCacheType::F16,
        written_kv_type: None,
        context_tokens,
        min_context_tokens: context_tokens,
        sequences,
        min_sequences: sequences,
        role_tokens: 0,
        cache_size: CacheSize::Fitting,
        compute_bytes,
        cpu_compute_bytes: compute_bytes,
        mixed_compute_bytes: compute_bytes,
        beside_compute_bytes: compute_bytes,
        process_bytes: PROCESS_BYTES,
        devices: DeviceChoice::Auto,
        split: SplitMode::Layer,
        tensor_split: None,
        gpu_layers: GpuLayers::Auto,
        experts: ExpertPlacement::Auto,
        is_kept: false,
        weight_elements: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn device(name: &str, kind: DeviceKind, gigabytes: u64) -> Device {
        Device { name: name.to_owned(), kind, total: gigabytes * GB, free: gigabytes * GB }
    }

    fn machine(memory: u64, gpus: &[u64]) -> MachineResources {
        let gpus = gpus.iter().enumerate().map(|(at, memory)| device(&format!("CUDA{at}"), DeviceKind::Gpu, *memory));
        MachineResources {
            devices: [device("CPU", DeviceKind::Cpu, memory)].into_iter().chain(gpus).collect(),
            free_disk_bytes: Some(500 * GB),
        }
    }

    fn offered(resources: &MachineResources) -> String {
        let table = ModelTable::shipped();
        let offers = assess(&table, resources, &|_| false);
        best(&offers).map_or_else(|| "nothing".to_owned(), |offer| format!("{}: {}", offer.model.name, offer.fit))
    }

    fn reason(resources: &MachineResources, name: &str) -> String {
        let table = ModelTable::shipped();
        let offers = assess(&table, resources, &|_| false);
        offers.iter().find(|offer| offer.model.name.as_str() == name).unwrap().fit.to_string()
    }

    #[test]
    fn the_best_model_that_fits_is_offered() {
        let all = [
            (machine(64, &[24]), "a workstation"),
            (machine(32, &[12]), "a player's machine"),
            (machine(32, &[8]), "an older one"),
            (machine(64, &[]), "a server without a GPU"),
            (machine(7, &[]), "a laptop"),
            (machine(4, &[]), "a small board"),
            (machine(2, &[]), "a smaller one"),
            (machine(1, &[]), "too little"),
            (machine(96, &[12, 12]), "two GPUs"),
        ];
        let lines: Vec<String> = all.iter().map(|(machine, what)| format!("{what}: {}", offered(machine))).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn what_is_not_offered_says_why() {
        let slow = reason(&machine(64, &[8]), "qwen2-5-14b");
        assert!(slow.starts_with("only the CPU has the memory, and with 9.0 GB"), "{slow}");
        let memory = reason(&machine(4, &[]), "qwen2-5-7b");
        assert!(memory.contains("CPU") && memory.contains("4.0 GB"), "{memory}");
        let disk = reason(&MachineResources { free_disk_bytes: Some(GB), ..machine(16, &[]) }, "qwen3-4b");
        assert_eq!(disk, "its file has 2.5 GB, and the disk has 1.0 GB free");
    }

    #[test]
    fn a_file_that_is_here_needs_no_disk() {
        let table = ModelTable::shipped();
        let full = MachineResources { free_disk_bytes: Some(0), ..machine(16, &[]) };
        assert!(best(&assess(&table, &full, &|_| false)).is_none());
        let here =
            assess(&table, &full, &|address| address.repo().contains("Qwen3-4B") || address.repo().contains("MiniLM"));
        assert_eq!(best(&here).unwrap().model.name.as_str(), "qwen3-4b");
    }

    #[test]
    fn more_memory_never_gives_a_worse_offer() {
        let table = ModelTable::shipped();
        let rank = |memory: u64| {
            let offers = assess(&table, &machine(memory, &[]), &|_| false);
            offers.iter().position(ModelOffer::fits).unwrap_or(offers.len())
        };
        assert!((1..80).collect::<Vec<u64>>().windows(2).all(|pair| rank(pair[1]) <= rank(pair[0])));
    }
}
