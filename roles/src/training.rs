//! Trainings: which role is to become better, and by what it learns.

use std::path::PathBuf;

use artel_task::{RoleName, TrainingName};
use artel_yaml::{Diagnostics, YamlNode, YamlValue};

use crate::declared_names::DeclaredNames;
use crate::decode::{MapReader, integer, items, name, number, text};
use crate::definition::DefinitionKind;
use crate::keys;
use crate::training_method::{LoraSetting, ScheduleSetting, method, schedule};

/// The word among `data` that stands for the answers that people rated.
const RATINGS: &str = "ratings";
/// The most files of one training: a directory of more is joined first.
const MAX_DATA_ITEMS: usize = 64;
/// The longest path: what Linux takes.
const MAX_PATH_CHARS: usize = 4096;
/// The smallest and the largest part of the samples that is held out, of 1: of less nothing can be told, and more is not learned from.
const MIN_HELD_OUT_RATIO: f64 = 0.01;
const MAX_HELD_OUT_RATIO: f64 = 0.5;

/// What a role learns from.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// Its name.
    pub name: TrainingName,
    /// What it is for, for people.
    pub description: Option<String>,
    /// The role whose answers are to become better.
    pub role: RoleName,
    /// Where samples come from, in this order.
    pub data: Vec<DataSource>,
    /// What is not trained on.
    pub held_out: HeldOutSetting,
    /// What the adapter is learned for: a directory of Hugging Face's Transformers. The role's GGUF without it.
    pub base: Option<PathBuf>,
    /// What is learned.
    pub lora: LoraSetting,
    /// In which steps.
    pub schedule: ScheduleSetting,
    /// Which samples are held out, and what else is by chance in a training.
    pub seed: u32,
}

/// Where samples come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// A file of JSON lines.
    File(PathBuf),
    /// The answers of the role that people rated or corrected.
    Ratings,
}

/// What a training is not trained on, but measured by.
#[derive(Debug, Clone, PartialEq)]
pub enum HeldOutSetting {
    /// This part of the samples, of 1.
    Share(f64),
    /// A file of JSON lines.
    File(PathBuf),
}

impl Default for HeldOutSetting {
    fn default() -> Self {
        Self::Share(0.2)
    }
}

impl Training {
    pub(crate) fn decode(
        training: &TrainingName,
        fields: MapReader<'_>,
        declared: &DeclaredNames,
        report: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let mut f = fields;
        let description = f.get("description").and_then(|n| text(n, "`description`", 1..=2000, report));
        let role_node = f.need("role", report);
        let role = role_node.and_then(|n| name(n, "a role", RoleName::parse, report));
        let data = f.need("data", report).and_then(|n| data(n, report));
        let held_out = f.get("held_out").map_or_else(|| Some(HeldOutSetting::default()), |n| held_out(n, report));
        let base = f.get("base").map(|n| base(n, report));
        let lora = f.get("method").map_or_else(|| Some(LoraSetting::default()), |n| method(n, report));
        let schedule = f.get("schedule").map_or_else(|| Some(ScheduleSetting::default()), |n| schedule(n, report));
        let seed = f.get("seed").map_or(Some(0), |n| integer(n, "`seed`", 0..=u32::MAX, report));
        let method_keys = keys::LORA.names().map(|key| (key, "method: {lora: ...}"));
        let schedule_keys = keys::SCHEDULE.names().map(|key| (key, "schedule"));
        f.finish(&method_keys.chain(schedule_keys).collect::<Vec<_>>(), report);
        let role = role?;
        if let Some(node) = role_node.filter(|_| !declared.has(DefinitionKind::Role, role.as_str())) {
            declared.report_missing(DefinitionKind::Role, role.as_str(), node.span, report);
        }
        Some(Self {
            name: training.clone(),
            description,
            role,
            data: data?,
            held_out: held_out?,
            base: base.map_or(Some(None), |base| base.map(Some))?,
            lora: lora?,
            schedule: schedule?,
            seed: seed?,
        })
    }
}

/// One source, or a list of them.
fn data(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<Vec<DataSource>> {
    if !matches!(node.value, YamlValue::List(_)) {
        return source(node, report).map(|source| vec![source]);
    }
    let nodes = items(node, "`data`", MAX_DATA_ITEMS, report)?;
    if nodes.is_empty() {
        report.error(node.span, "`data` is empty: nothing can be learned from it");
    }
    let mut sources: Vec<DataSource> = Vec::new();
    for node in nodes {
        let Some(source) = source(node, report) else { continue };
        if sources.contains(&source) {
            report.error(node.span, "`data` has this twice");
        }
        sources.push(source);
    }
    Some(sources)
}

fn source(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<DataSource> {
    match &node.value {
        YamlValue::Str(word, _) if word == RATINGS => Some(DataSource::Ratings),
        _ => file(node, "an item of `data`", report).map(DataSource::File),
    }
}

fn held_out(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<HeldOutSetting> {
    match &node.value {
        YamlValue::Str(..) => file(node, "`held_out`", report).map(HeldOutSetting::File),
        _ => number(node, "`held_out`", MIN_HELD_OUT_RATIO..=MAX_HELD_OUT_RATIO, report).map(HeldOutSetting::Share),
    }
}

/// A directory of Transformers.
fn base(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<PathBuf> {
    let path = file(node, "`base`", report)?;
    let written = path.to_string_lossy();
    if written.contains("hf:") || written.ends_with(".gguf") {
        let message = "`base` is a directory of Transformers on this machine's disk; without it, the GGUF of the role's model is the base";
        report.error_with_hint(node.span, message, "as in `base: checkpoints/Qwen3-0.6B`");
        return None;
    }
    Some(path)
}

/// The path of a file, which is relative to that of the document.
fn file(node: &YamlNode, what: &str, report: &mut Diagnostics<'_>) -> Option<PathBuf> {
    let written = text(node, what, 1..=MAX_PATH_CHARS, report)?;
    let Some(dir) = &report.source.dir else {
        report.error(node.span, format!("{what} names a file, and this document is not in a file"));
        return None;
    };
    Some(dir.join(written))
}
