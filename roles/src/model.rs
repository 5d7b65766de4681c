//! Models: a GGUF file and how to load it.

use std::path::{Path, PathBuf};

use artel_task::ModelName;

use crate::File;
use crate::decode::{Fields, choice, integer, items, text};
use crate::node::Node;
use crate::problem::{Report, shown};

/// Devices of one model at most: llama.cpp knows 16.
const MAX_DEVICES: usize = 16;

/// A GGUF file and how to load it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// What it is, for people.
    pub description: Option<String>,
    /// Its file.
    pub file: File,
    /// The absolute directory of the YAML file; none if that is embedded.
    pub dir: Option<PathBuf>,
    /// The file's SHA-256, 64 lowercase hexadecimal digits.
    pub sha256: Option<String>,
    /// What it is good for.
    pub use_: Use,
    /// Cells that one sequence may hold; without it, what the model was trained for, at most 4096.
    pub context: Option<u32>,
    /// Sequences decoded at once.
    pub sequences: u32,
    /// Threads; without it, the machine's share.
    pub threads: Option<u32>,
    /// A Jinja chat template in place of the GGUF's own.
    pub template: Option<String>,
    /// The form in which keys and values are kept.
    pub cache: Cache,
    /// The form in which its weights are computed with.
    pub weights: Weights,
    /// Whether tokens are computed because they are likely to come next.
    pub speculation: Speculation,
    /// Where it may be.
    pub pins: Pins,
}

/// Where a model may be, and how it is spread over several devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Pins {
    /// The devices that it may use, by name; empty: whatever is best.
    pub devices: Vec<String>,
    /// How it may be spread.
    pub split: Split,
    /// The share of each device, in their order; empty: as their free memory is.
    pub shares: Vec<u32>,
}

/// How a model may be spread over devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Split {
    /// It is on one of them.
    None,
    /// Each may have some of the layers.
    #[default]
    Layer,
    /// Each has some rows of every matrix; CUDA can do that.
    Row,
}

/// The form in which keys and values are kept: smaller ones let more tokens into the same memory, at some cost in quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cache {
    /// As weights that are recast are, so that both are read alike, and else `f16`. A catalog has this only of models none of
    /// whose roles shift.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits, as precise as most models are.
    F16,
    /// 16 bits with a wide range.
    Bf16,
    /// 8.5 bits.
    Q8_0,
    /// 4.5 bits.
    Q4_0,
}

/// The form in which a model's weights are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Weights {
    /// As the file has them; of a small model that only processors compute, in the form that these multiply fastest.
    #[default]
    Auto,
    /// As the file has them.
    File,
    /// Quantized matrices of its layers as F16: faster on processors that read these well, and larger.
    F16,
    /// The same as BF16, for processors that multiply these.
    Bf16,
}

/// Whether tokens are computed because they are likely to come next. The output is the same either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Speculation {
    /// Where it is measured to pay.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// What a model is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// It answers.
    Chat,
    /// It turns text into vectors, which routers compare.
    Embedding,
}

impl Model {
    /// Where the file may be, in the order in which to look.
    pub fn candidates(&self, models_dir: &Path) -> Vec<PathBuf> {
        crate::file::candidates(&self.file, self.dir.as_deref(), models_dir)
    }

    pub(crate) fn decode(name: &ModelName, fields: Fields<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut f = fields;
        let description = f.get("description").map(|n| text(n, "`description`", 1..=2000, report));
        let file = f.need("file", report).and_then(|n| crate::file::decode(n, "`file`", report));
        let sha256 = f.get("sha256").and_then(|n| sha256(n, report));
        let words = [("chat", Use::Chat), ("embedding", Use::Embedding)];
        let use_ = f.get("use").map_or(Some(Use::Chat), |n| choice(n, "`use`", &words, report));
        let context = f.get("context").and_then(|n| integer(n, "`context`", 64..=1_048_576, report));
        let sequences = f.get("sequences").map_or(Some(8), |n| integer(n, "`sequences`", 1..=256, report));
        let threads = f.get("threads").and_then(|n| integer(n, "`threads`", 1..=1024, report));
        let template = f.get("template").and_then(|n| template(n, report));
        let caches = [
            ("auto", Cache::Auto),
            ("f16", Cache::F16),
            ("f32", Cache::F32),
            ("bf16", Cache::Bf16),
            ("q8_0", Cache::Q8_0),
            ("q4_0", Cache::Q4_0),
        ];
        let cache = f.get("cache").map_or(Some(Cache::Auto), |n| choice(n, "`cache`", &caches, report));
        let words = [("auto", Weights::Auto), ("file", Weights::File), ("f16", Weights::F16), ("bf16", Weights::Bf16)];
        let weights = f.get("weights").map_or(Some(Weights::Auto), |n| choice(n, "`weights`", &words, report));
        let words = [("auto", Speculation::Auto), ("off", Speculation::Off)];
        let speculation = f.get("speculation");
        let speculation = speculation.map_or(Some(Speculation::Auto), |n| choice(n, "`speculation`", &words, report));
        let pins = pins(&mut f, report);
        f.finish(&[], report);
        Some(Self {
            name: name.clone(),
            description: description.flatten(),
            file: file?,
            dir: report.source.dir.clone(),
            sha256,
            use_: use_?,
            context,
            sequences: sequences?,
            threads,
            template,
            cache: cache?,
            weights: weights?,
            speculation: speculation?,
            pins,
        })
    }
}

/// `devices`, `split` and `shares`.
fn pins(f: &mut Fields<'_>, report: &mut Report<'_>) -> Pins {
    let devices = f.get("devices").map(|n| devices(n, report)).unwrap_or_default();
    let words = [("layer", Split::Layer), ("none", Split::None), ("row", Split::Row)];
    let split = f.get("split").and_then(|n| choice(n, "`split`", &words, report)).unwrap_or_default();
    let Some(node) = f.get("shares") else { return Pins { devices, split, shares: Vec::new() } };
    let shares: Vec<u32> = items(node, "`shares`", MAX_DEVICES, report)
        .unwrap_or_default()
        .iter()
        .filter_map(|n| integer(n, "a share", 0..=1_000_000, report))
        .collect();
    if shares.len() != devices.len() {
        let message = format!("`shares` has {} numbers and `devices` names {}", shares.len(), devices.len());
        report.add(node.span, message);
    } else if shares.iter().all(|share| *share == 0) {
        report.add(node.span, "the shares add up to nothing");
    }
    Pins { devices, split, shares }
}

/// `auto`, or names; whether there are such devices is for the machine to say.
pub(crate) fn devices(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    if matches!(&node.value, crate::node::Value::Str(text, _) if text == "auto") {
        return Vec::new();
    }
    let mut names: Vec<String> = Vec::new();
    let nodes = items(node, "`devices`, which is `auto` or a list of names", MAX_DEVICES, report).unwrap_or_default();
    for node in nodes {
        let Some(name) = text(node, "a device", 1..=300, report) else { continue };
        if names.contains(&name) {
            report.add(node.span, format!("device `{}` is named twice", shown(&name)));
        } else {
            names.push(name);
        }
    }
    if nodes.is_empty() {
        report.add(node.span, "`devices` names none; `auto` is whatever is best");
    }
    names
}

fn sha256(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let digits = text(node, "`sha256`", 1..=200, report)?;
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(digits.to_ascii_lowercase());
    }
    let what = if digits.len() == 64 {
        "other characters too".to_owned()
    } else {
        format!("{} characters", digits.chars().count())
    };
    report.add(node.span, format!("`sha256` has 64 hexadecimal digits, and `{}` has {what}", shown(&digits)));
    None
}

/// A chat template is Jinja of another world: only its syntax is checked here.
fn template(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let source = text(node, "`template`", 1..=262_144, report)?;
    match crate::template::syntax(&source) {
        Ok(()) => Some(source),
        Err(e) => {
            e.report(node, report);
            None
        }
    }
}
