//! How a role is trained: what is learned, and in which steps.

use artel_yaml::{Diagnostics, YamlNode, YamlValue};

use crate::decode::{MapReader, choice, integer, items, number, text};
use crate::keys;

/// The widest matrices: wider ones learn no more, and are no longer small.
const MAX_RANK: u32 = 512;
const MAX_ALPHA: f64 = 4096.0;
const MAX_DROPOUT_RATIO: f64 = 0.9;
/// Layers have some ten kinds of matrices.
const MAX_TARGET_ITEMS: usize = 32;
const MAX_TARGET_CHARS: usize = 64;
const MIN_EPOCHS: f64 = 0.01;
const MAX_EPOCHS: f64 = 1000.0;
const MIN_LEARNING_RATE: f64 = 1e-7;
const MAX_LEARNING_RATE: f64 = 1.0;
const MAX_BATCH_SAMPLES: u32 = 1024;
const MAX_WARMUP_RATIO: f64 = 0.5;

/// Low-rank matrices beside those of the model, which stay as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraSetting {
    /// Their rank.
    pub rank: u32,
    /// Over the rank, the factor by which they are multiplied.
    pub alpha: f64,
    /// The part of their inputs that is left out at random in each step, of 1.
    pub dropout: f64,
    /// Beside which matrices of a layer they stand.
    pub targets: LoraTargets,
}

/// The matrices of layers that are learned beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoraTargets {
    /// All of attention and of the feed-forward part.
    AllLinear,
    /// Those of these names in Transformers, such as `q_proj`.
    Named(Vec<String>),
}

impl Default for LoraSetting {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, dropout: 0.0, targets: LoraTargets::AllLinear }
    }
}

/// The steps of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleSetting {
    /// How often each sample is learned from.
    pub epochs: f64,
    /// The learning rate after the warm-up, from which it falls to zero in a straight line.
    pub learning_rate: f64,
    /// Samples of a step.
    pub batch: u32,
    /// The part of the steps in which the learning rate rises, of 1.
    pub warmup: f64,
    /// The decay of weights of AdamW.
    pub weight_decay: f64,
}

impl Default for ScheduleSetting {
    fn default() -> Self {
        Self { epochs: 3.0, learning_rate: 0.0002, batch: 8, warmup: 0.1, weight_decay: 0.0 }
    }
}

/// A map with the one method that there is.
pub(crate) fn method(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<LoraSetting> {
    let mut f = MapReader::open(node, "`method`", &keys::TRAINING_METHOD, report)?;
    let method = f.get("lora").map_or_else(|| Some(LoraSetting::default()), |n| lora(n, report));
    let lora_keys = keys::LORA.names().map(|key| (key, "lora"));
    f.finish(&lora_keys.collect::<Vec<_>>(), report);
    method
}

fn lora(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<LoraSetting> {
    let base = LoraSetting::default();
    let mut f = MapReader::open(node, "`lora`", &keys::LORA, report)?;
    let rank = f.get("rank").map_or(Some(base.rank), |n| integer(n, "`rank`", 1..=MAX_RANK, report));
    let alpha = f.get("alpha").map(|n| number(n, "`alpha`", 0.01..=MAX_ALPHA, report));
    let dropout =
        f.get("dropout").map_or(Some(base.dropout), |n| number(n, "`dropout`", 0.0..=MAX_DROPOUT_RATIO, report));
    let targets = f.get("targets").map_or(Some(base.targets), |n| targets(n, report));
    f.finish(&[], report);
    let rank = rank?;
    Some(LoraSetting {
        rank,
        alpha: alpha.unwrap_or_else(|| Some(2.0 * f64::from(rank)))?,
        dropout: dropout?,
        targets: targets?,
    })
}

/// `all-linear`, or names of matrices.
fn targets(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<LoraTargets> {
    if let YamlValue::Str(..) = node.value {
        return choice(node, "`targets`", &[("all-linear", ())], report).map(|()| LoraTargets::AllLinear);
    }
    let nodes = items(node, "`targets`", MAX_TARGET_ITEMS, report)?;
    if nodes.is_empty() {
        report.error(node.span, "`targets` is empty: nothing would be learned");
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    for node in nodes {
        let name = text(node, "an item of `targets`", 1..=MAX_TARGET_CHARS, report)?;
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let message = format!("`{name}` is no name of a matrix: these have letters, digits and `_`");
            report.error_with_hint(node.span, message, "as in `[q_proj, v_proj]`");
            return None;
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(LoraTargets::Named(names))
}

pub(crate) fn schedule(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<ScheduleSetting> {
    let base = ScheduleSetting::default();
    let mut f = MapReader::open(node, "`schedule`", &keys::SCHEDULE, report)?;
    let epochs = f.get("epochs").map_or(Some(base.epochs), |n| number(n, "`epochs`", MIN_EPOCHS..=MAX_EPOCHS, report));
    let rates = MIN_LEARNING_RATE..=MAX_LEARNING_RATE;
    let learning_rate =
        f.get("learning_rate").map_or(Some(base.learning_rate), |n| number(n, "`learning_rate`", rates, report));
    let batch = f.get("batch").map_or(Some(base.batch), |n| integer(n, "`batch`", 1..=MAX_BATCH_SAMPLES, report));
    let warmup = f.get("warmup").map_or(Some(base.warmup), |n| number(n, "`warmup`", 0.0..=MAX_WARMUP_RATIO, report));
    let weight_decay =
        f.get("weight_decay").map_or(Some(base.weight_decay), |n| number(n, "`weight_decay`", 0.0..=1.0, report));
    f.finish(&[], report);
    Some(ScheduleSetting {
        epochs: epochs?,
        learning_rate: learning_rate?,
        batch: batch?,
        warmup: warmup?,
        weight_decay: weight_decay?,
    })
}
