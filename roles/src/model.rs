//! Models: a GGUF file and how to load it.

use std::path::{Path, PathBuf};

use artel_model::{
    CacheSize, ExpertPlacement, GpuLayers, KeepLoaded, MAX_PIECE_FILES, ModelPurpose, PieceHashes, SplitMode,
};
use artel_task::ModelName;
use artel_template::MAX_SOURCE_CHARS;
use artel_yaml::{Diagnostics, YamlNode, YamlValue, shown};

use crate::GgufFile;
use crate::decode::{MapReader, choice, integer, items, text, text_with_space};
use crate::keys;
use crate::model_memory::{self, CacheSetting};
use crate::template_kwargs::{self, TemplateKwargs};

/// The most devices of one model: llama.cpp's limit.
const MAX_DEVICES: usize = 16;

/// The longest text before one to embed: instructions that models were trained with have a sentence or two.
const MAX_PREFIX_CHARS: usize = 1000;
/// Sequences of a model that says nothing of them.
const DEFAULT_SEQUENCES: u32 = 8;
/// The name of the processor among the devices.
const CPU: &str = "CPU";

/// A GGUF file and how to load it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// What it is, for people.
    pub description: Option<String>,
    /// Its file, or the first of its pieces.
    pub file: GgufFile,
    /// The absolute directory of the YAML file; none if that is embedded.
    pub dir: Option<PathBuf>,
    /// The SHA-256 of the file, or of each piece, in lowercase hexadecimal digits.
    pub sha256: Option<PieceHashes>,
    /// Its purpose.
    pub purpose: ModelPurpose,
    /// What it was trained to see before texts that it embeds.
    pub prefixes: EmbeddingPrefixes,
    /// The context of one sequence in tokens, a promise; without it, what the model was trained with, at most 4096, or less if that
    /// does not fit.
    pub context: Option<u32>,
    /// Sequences decoded at once, a promise; without it, [as many](Self::sequences) as by default, or fewer if these do not fit.
    pub sequences: Option<u32>,
    /// CPU threads; without it, those of the daemon's settings.
    pub threads: Option<u32>,
    /// A Jinja chat template in place of the GGUF's own.
    pub template: Option<String>,
    /// Variables of the chat template.
    pub template_kwargs: TemplateKwargs,
    /// The type of the KV cache.
    pub cache: CacheSetting,
    /// The tokens that the KV cache holds.
    pub cache_size: CacheSize,
    /// The layers that are computed by other devices than the CPU.
    pub gpu_layers: GpuLayers,
    /// Where its experts are computed, if it has some.
    pub experts: ExpertPlacement,
    /// How long it stays loaded when nothing needs it.
    pub keep: KeepLoaded,
    /// The type in which its weights are computed with.
    pub weights: WeightsSetting,
    /// Whether likely tokens are drafted and verified.
    pub speculation: SpeculationSetting,
    /// The devices that it may use.
    pub placement: PlacementSetting,
}

/// What an embedding model was trained to see before texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct EmbeddingPrefixes {
    /// Before a text that asks, and before those that are compared with each other.
    pub query: String,
    /// Before a text that is searched.
    pub passage: String,
}

impl EmbeddingPrefixes {
    /// A text that asks, as the model sees it.
    pub fn query_text(&self, text: &str) -> String {
        [&self.query, text].concat()
    }

    /// A text that is searched, as the model sees it.
    pub fn passage_text(&self, text: &str) -> String {
        [&self.passage, text].concat()
    }

    fn decode(node: &YamlNode, report: &mut Diagnostics<'_>) -> Self {
        let Some(mut f) = MapReader::open(node, "`prefixes`", &keys::PREFIXES, report) else { return Self::default() };
        let query = f.get("query").and_then(|n| text_with_space(n, "`query`", 0..=MAX_PREFIX_CHARS, report));
        let passage = f.get("passage").and_then(|n| text_with_space(n, "`passage`", 0..=MAX_PREFIX_CHARS, report));
        f.finish(&[], report);
        Self { query: query.unwrap_or_default(), passage: passage.unwrap_or_default() }
    }
}

/// The devices that a model may use, and how it is split over several of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PlacementSetting {
    /// The devices that it may use, by name; empty: the placement chooses.
    pub devices: Vec<String>,
    /// How it may be split.
    pub split: SplitMode,
    /// The share of each device, in their order; empty: in proportion to their free memory.
    pub tensor_split: Vec<u32>,
}

/// The type in which a model's weights are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WeightsSetting {
    /// As in the file; a small model on CPUs alone is dequantized to the type that these multiply fastest.
    #[default]
    Auto,
    /// As in the file.
    File,
    /// The quantized matrices of its layers dequantized to F16: larger, and faster on CPUs that read F16 well.
    F16,
    /// The same with BF16, for CPUs that multiply it.
    Bf16,
}

/// Speculative decoding: likely tokens are drafted and verified in one batch. The output is the same either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SpeculationSetting {
    /// Where it is measured to be faster.
    #[default]
    Auto,
    /// Never.
    Off,
}

impl Model {
    /// The paths at which the file may be, in the order of the search.
    pub fn candidates(&self, models_dir: &Path) -> Vec<PathBuf> {
        crate::gguf_file::candidates(&self.file, self.dir.as_deref(), models_dir)
    }

    pub(crate) fn decode(name: &ModelName, fields: MapReader<'_>, report: &mut Diagnostics<'_>) -> Option<Self> {
        let mut f = fields;
        let description = f.get("description").map(|n| text(n, "`description`", 1..=2000, report));
        let file = f.need("file", report).and_then(|n| crate::gguf_file::decode(n, "`file`", report));
        let sha256 = f.get("sha256").and_then(|n| sha256(n, file.as_ref(), report));
        let purposes = ModelPurpose::ALL.map(|purpose| (purpose.as_str(), purpose));
        let purpose = f.get("use").map_or(Some(ModelPurpose::Chat), |n| choice(n, "`use`", &purposes, report));
        let prefixes_node = f.get("prefixes");
        let prefixes = prefixes_node.map(|n| EmbeddingPrefixes::decode(n, report)).unwrap_or_default();
        if let (Some(node), Some(purpose)) = (prefixes_node, purpose.filter(|p| *p != ModelPurpose::Embedding)) {
            let message = format!("`prefixes` are for a model with `use: embedding`, not `use: {}`", purpose.as_str());
            report.error(node.span, message);
        }
        let context = f.get("context").and_then(|n| integer(n, "`context`", 64..=1_048_576, report));
        let sequences = f.get("sequences").and_then(|n| integer(n, "`sequences`", 1..=256, report));
        let threads = f.get("threads").and_then(|n| integer(n, "`threads`", 1..=1024, report));
        let template = f.get("template").and_then(|n| template(n, report));
        let kwargs = f.get("template_kwargs").map(|n| template_kwargs::decode(n, report)).unwrap_or_default();
        let cache_node = f.get("cache");
        let (cache, cache_size) =
            cache_node.map_or(Some(Default::default()), |n| model_memory::cache(n, report)).unzip();
        let layers_node = f.get("gpu_layers");
        let gpu_layers = layers_node.map_or(Some(GpuLayers::Auto), |n| model_memory::gpu_layers(n, report));
        let experts = f.get("experts").map_or(Some(ExpertPlacement::Auto), |n| model_memory::experts(n, report));
        let keep = f.get("keep").map_or(Some(KeepLoaded::UntilNeeded), |n| model_memory::keep(n, report));
        let words = [
            ("auto", WeightsSetting::Auto),
            ("file", WeightsSetting::File),
            ("f16", WeightsSetting::F16),
            ("bf16", WeightsSetting::Bf16),
        ];
        let weights = f.get("weights").map_or(Some(WeightsSetting::Auto), |n| choice(n, "`weights`", &words, report));
        let words = [("auto", SpeculationSetting::Auto), ("off", SpeculationSetting::Off)];
        let speculation = f.get("speculation");
        let speculation =
            speculation.map_or(Some(SpeculationSetting::Auto), |n| choice(n, "`speculation`", &words, report));
        let placement = placement(&mut f, report);
        f.finish(&[("tokens", "cache"), ("share", "cache")], report);
        let model = Self {
            name: name.clone(),
            description: description.flatten(),
            file: file?,
            dir: report.source.dir.clone(),
            sha256,
            purpose: purpose?,
            prefixes,
            context,
            sequences,
            threads,
            template,
            template_kwargs: kwargs,
            cache: cache?,
            cache_size: cache_size?,
            gpu_layers: gpu_layers?,
            experts: experts?,
            keep: keep?,
            weights: weights?,
            speculation: speculation?,
            placement,
        };
        model.check_memory(cache_node, layers_node, report);
        Some(model)
    }

    /// Reports what it says of its memory that cannot hold together; with the nodes of `cache` and `gpu_layers`.
    fn check_memory(&self, cache: Option<&YamlNode>, layers: Option<&YamlNode>, report: &mut Diagnostics<'_>) {
        let size = |key| cache.and_then(|node| node.get(key));
        if let Some(node) = size("tokens").or_else(|| size("share")).filter(|_| self.purpose.pools()) {
            let message = format!("the cache of a model with `use: {}` has no size of its own", self.purpose.as_str());
            report.error_with_hint(
                node.span,
                message,
                "its cache holds the texts of one batch; `context` bounds a text",
            );
        } else if let (CacheSize::Tokens(tokens), Some(context), Some(node)) =
            (self.cache_size, self.context, size("tokens"))
            && u64::from(tokens) < u64::from(context) * u64::from(self.sequences.unwrap_or(1))
        {
            let (message, hint) = match self.sequences {
                None | Some(1) => (
                    format!("a cache of {tokens} tokens cannot hold one sequence of `context: {context}`"),
                    format!("`tokens: {context}` or more, or a shorter context"),
                ),
                Some(sequences) => (
                    format!("a cache of {tokens} tokens cannot hold `sequences: {sequences}` of `context: {context}`"),
                    format!(
                        "`tokens: {}` or more, fewer sequences, or a shorter context",
                        u64::from(context) * u64::from(sequences)
                    ),
                ),
            };
            report.error_with_hint(node.span, message, hint);
        }
        if let Some(node) = layers {
            self.check_devices_of_layers(node, report);
        }
    }

    /// Reports a number of layers, at this node, that its devices cannot have.
    fn check_devices_of_layers(&self, node: &YamlNode, report: &mut Diagnostics<'_>) {
        let PlacementSetting { devices, .. } = &self.placement;
        let (message, hint) = match self.gpu_layers {
            GpuLayers::Count(count @ 1..) if self.placement.is_cpu_only() => (
                format!("`gpu_layers: {count}` needs a device beside the CPU, and `devices` names the CPU alone"),
                "name a GPU in place of the CPU, as `artel devices` shows it: the CPU gets the other layers; or remove one of the two",
            ),
            GpuLayers::Count(count @ 1..) if self.placement.names_cpu() => (
                format!("`gpu_layers: {count}` needs `devices` without the CPU"),
                "remove the CPU from `devices`: it gets the other layers; or remove `gpu_layers`",
            ),
            GpuLayers::Count(0) if !devices.is_empty() && !self.placement.is_cpu_only() => (
                format!("`gpu_layers: 0` keeps all layers on the CPU, and `devices` names {}", devices.join(", ")),
                "`devices: [CPU]`, or remove one of the two",
            ),
            GpuLayers::Auto | GpuLayers::Count(_) => return,
        };
        report.error_with_hint(node.span, message, hint);
    }

    /// The sequences that it decodes at once if there is memory for them.
    pub fn sequences(&self) -> u32 {
        self.sequences.unwrap_or(DEFAULT_SEQUENCES)
    }
}

impl PlacementSetting {
    /// Whether the CPU is one of the devices that it names.
    pub(crate) fn names_cpu(&self) -> bool {
        self.devices.iter().any(|device| device == CPU)
    }

    /// Whether it may use the CPU and nothing else.
    pub(crate) fn is_cpu_only(&self) -> bool {
        matches!(self.devices.as_slice(), [one] if one == CPU)
    }
}

/// `devices`, `split` and `tensor_split`.
fn placement(f: &mut MapReader<'_>, report: &mut Diagnostics<'_>) -> PlacementSetting {
    let devices = f.get("devices").map(|n| devices(n, report)).unwrap_or_default();
    let modes = SplitMode::ALL.map(|mode| (mode.as_str(), mode));
    let split = f.get("split").and_then(|n| choice(n, "`split`", &modes, report)).unwrap_or_default();
    let Some(node) = f.get("tensor_split") else {
        return PlacementSetting { devices, split, tensor_split: Vec::new() };
    };
    let shares: Vec<u32> = items(node, "`tensor_split`", MAX_DEVICES, report)
        .unwrap_or_default()
        .iter()
        .filter_map(|n| integer(n, "a share", 0..=1_000_000, report))
        .collect();
    if shares.len() != devices.len() {
        let message = format!("`tensor_split` has {} numbers and `devices` has {} names", shares.len(), devices.len());
        report.error(node.span, message);
    } else if shares.iter().all(|share| *share == 0) {
        report.error(node.span, "the shares in `tensor_split` add up to 0");
    }
    PlacementSetting { devices, split, tensor_split: shares }
}

/// `auto`, or names; whether the machine has such devices is checked when the model is placed.
pub(crate) fn devices(node: &YamlNode, report: &mut Diagnostics<'_>) -> Vec<String> {
    if matches!(&node.value, YamlValue::Str(text, _) if text == "auto") {
        return Vec::new();
    }
    let mut names: Vec<String> = Vec::new();
    let nodes = items(node, "`devices`, which is `auto` or a list of names", MAX_DEVICES, report).unwrap_or_default();
    for node in nodes {
        let Some(name) = text(node, "a device", 1..=300, report) else { continue };
        if names.contains(&name) {
            report.error(node.span, format!("device `{}` is named twice", shown(&name)));
        } else {
            names.push(name);
        }
    }
    if nodes.is_empty() {
        report.error(node.span, "`devices` names none; `auto` lets the placement choose");
    }
    names
}

/// One hash, or a list with one for each piece.
fn sha256(node: &YamlNode, file: Option<&GgufFile>, report: &mut Diagnostics<'_>) -> Option<PieceHashes> {
    let hashes: Vec<String> = match &node.value {
        YamlValue::List(_) => {
            let nodes = items(node, "`sha256`", MAX_PIECE_FILES as usize, report)?;
            nodes.iter().map(|node| hash(node, report)).collect::<Option<_>>()?
        }
        _ => vec![hash(node, report)?],
    };
    if let Some(pieces) = file.map(GgufFile::pieces).filter(|pieces| *pieces != hashes.len()) {
        let message = format!("the model has {pieces} files and `sha256` has {} hashes", hashes.len());
        let hint = "give one for each file, in a list and in the order of the pieces, as `sha256sum` prints them";
        report.push_error(node.span, message, Some(hint.to_owned()));
        return None;
    }
    PieceHashes::new(hashes)
}

/// The hash of one file.
pub(crate) fn hash(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<String> {
    let digits = text(node, "`sha256`", 1..=200, report)?;
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(digits.to_ascii_lowercase());
    }
    let what = if digits.len() == 64 {
        "other characters too".to_owned()
    } else {
        format!("{} characters", digits.chars().count())
    };
    report.error(node.span, format!("`sha256` has 64 hexadecimal digits, and `{}` has {what}", shown(&digits)));
    None
}

/// A chat template sees other values than a role's templates: only its syntax is checked here.
fn template(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<String> {
    let source = text(node, "`template`", 1..=MAX_SOURCE_CHARS, report)?;
    match crate::template::syntax(&source) {
        Ok(()) => Some(source),
        Err(e) => {
            e.report(node, report);
            None
        }
    }
}
