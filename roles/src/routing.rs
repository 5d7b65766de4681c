//! Router settings: the weights of signals, the background of "no match", and the calibration of the confidence.
//!
//! A signal gives each candidate a score `x`. With `z = (x - mean) / deviation`, the candidate's logit is the sum of
//! `weight * z` over the signals; "no match" competes with `bias` plus the same sum over the scores of the background. A
//! softmax over all logits, divided by the temperature, gives the probabilities; the winner's is the confidence of the
//! decision. No weight belongs to a role, so that a new role needs no fitting.

mod probabilities;

use std::collections::BTreeMap;

use artel_task::condition::{ConditionScope, GraphValues, NodeOutputs};
use artel_task::event::Signal;
use artel_task::{Condition, ModelName};
use serde_json::json;

use crate::decode::{MapReader, name, number, text};
use crate::keys;
use crate::node::YamlNode;
use crate::problem::{Diagnostics, did_you_mean};
use crate::role::texts;

pub use probabilities::SignalValues;

/// The router document of routers that name none.
pub const DEFAULT_ROUTER: &str = "default";
/// The most background texts: each is embedded once.
const MAX_BACKGROUND_TEXTS: usize = 1000;

/// The texts by which a router knows a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CandidateProfile {
    /// What it does.
    pub description: String,
    /// Questions that belong to it.
    pub examples: Vec<String>,
    /// Words that are looked for in the question.
    pub keywords: Vec<String>,
}

/// How a router weighs its signals.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterSettings {
    /// The signals that are scored, apart from rules: a rule that matches decides.
    pub signals: BTreeMap<Signal, SignalWeight>,
    /// The logit of "no match" before its signals.
    pub bias: f64,
    /// Above 1 every decision is less confident, below 1 more.
    pub temperature: f64,
    /// Questions that belong to no candidate.
    pub background: Vec<String>,
    /// The chat model of the signal `label`.
    pub label_model: Option<ModelName>,
}

/// The weight of a signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignalWeight {
    /// Logits per deviation, beside the other signals.
    pub weight: f64,
    /// The mean of the scores, which is subtracted.
    pub mean: f64,
    /// The standard deviation of the scores, by which the rest is divided.
    pub deviation: f64,
    /// Weight and bias where a router uses this signal alone.
    pub alone: (f64, f64),
}

impl RouterSettings {
    /// `is_chat_model` tells whether a name is that of a chat model; `None`: there is no such model.
    pub(crate) fn decode(
        fields: MapReader<'_>,
        is_chat_model: impl Fn(&str) -> Option<bool>,
        report: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let mut f = fields;
        f.get("description").map(|n| text(n, "`description`", 1..=2000, report));
        let bias = f.get("bias").map_or(Some(0.0), |n| number(n, "`bias`", -100.0..=100.0, report));
        let temperature = f.get("temperature").map_or(Some(1.0), |n| number(n, "`temperature`", 0.01..=100.0, report));
        let background = f.get("background").map(|n| texts(n, "`background`", MAX_BACKGROUND_TEXTS, 2000, report));
        let signals = f.need("signals", report).and_then(|n| MapReader::open(n, "`signals`", &keys::SIGNALS, report));
        f.finish(&[], report);
        let mut f = signals?;
        let (mut signals, mut label_model) = (BTreeMap::new(), None);
        for signal in Signal::ALL.into_iter().filter(|signal| *signal != Signal::Rule) {
            let Some(node) = f.get(signal.as_str()) else { continue };
            let Some((weight, named)) = weight(signal, node, report) else { continue };
            signals.insert(signal, weight);
            if let Some((given, span)) = named {
                match is_chat_model(given.as_str()) {
                    Some(true) => {}
                    Some(false) => report.error(span, format!("model `{given}` is not for chat")),
                    None => report.error(span, format!("there is no model `{given}`")),
                }
                label_model = Some(given);
            }
        }
        f.finish(&[("weight", "a signal"), ("mean", "a signal"), ("deviation", "a signal")], report);
        Some(Self {
            signals,
            bias: bias?,
            temperature: temperature?,
            background: background.unwrap_or_default(),
            label_model,
        })
    }

    /// The YAML document of these settings, under a name.
    pub fn yaml(&self, name: &str, description: &str) -> String {
        let quoted = |text: &str| json!(text).to_string();
        let mut out = format!("router: {name}\ndescription: {}\nsignals:\n", quoted(description));
        for (signal, w) in &self.signals {
            let model = match &self.label_model {
                Some(model) if *signal == Signal::Label => format!("model: {model}, "),
                _ => String::new(),
            };
            out += &format!(
                "  {signal}: {{{model}weight: {:.4}, mean: {:.4}, deviation: {:.4}, alone: {{weight: {:.4}, bias: {:.4}}}}}\n",
                w.weight, w.mean, w.deviation, w.alone.0, w.alone.1
            );
        }
        out += &format!("bias: {:.4}\ntemperature: {:.4}\n", self.bias, self.temperature);
        if !self.background.is_empty() {
            out += "background:\n";
        }
        self.background.iter().for_each(|text| out += &format!("  - {}\n", quoted(text)));
        out
    }
}

/// The model that a signal names, with its span.
type NamedModel = Option<(ModelName, crate::node::Span)>;

fn weight(signal: Signal, node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<(SignalWeight, NamedModel)> {
    let what = format!("`{signal}`");
    let keys = if signal == Signal::Label { &keys::LABEL_SIGNAL } else { &keys::SIGNAL };
    let mut f = MapReader::open(node, &what, keys, report)?;
    let model = match signal {
        Signal::Label => {
            let node = f.need("model", report)?;
            Some((name(node, "a model", ModelName::parse, report)?, node.span))
        }
        _ => None,
    };
    let mut value = |key: &'static str, range, base: f64, report: &mut Diagnostics<'_>| {
        f.get(key).map_or(Some(base), |n| number(n, &format!("`{key}`"), range, report))
    };
    let weight = value("weight", -1000.0..=1000.0, 1.0, report);
    let mean = value("mean", -1000.0..=1000.0, 0.0, report);
    let deviation = value("deviation", 0.0001..=1000.0, 1.0, report);
    let alone = f.get("alone").map(|n| alone(n, report));
    f.finish(&[], report);
    let weight = weight?;
    let alone = alone.map_or(Some((weight, 0.0)), |alone| alone)?;
    Some((SignalWeight { weight, mean: mean?, deviation: deviation?, alone }, model))
}

fn alone(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<(f64, f64)> {
    let mut f = MapReader::open(node, "`alone`", &keys::ALONE, report)?;
    let weight = f.need("weight", report).and_then(|n| number(n, "`weight`", -1000.0..=1000.0, report));
    let bias = f.need("bias", report).and_then(|n| number(n, "`bias`", -1000.0..=1000.0, report));
    f.finish(&[], report);
    Some((weight?, bias?))
}

/// A role's `when`. It is tried on a text, so that a name that does not exist is found on load and not in the middle of
/// a task.
pub(crate) fn rule(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<Condition> {
    let source = text(node, "`when`", 1..=artel_task::condition::MAX_CONDITION_BYTES, report)?;
    let condition = match Condition::parse(&source) {
        Ok(condition) => condition,
        Err(error) => {
            report.error(node.span, error.to_string());
            return None;
        }
    };
    if let Err(error) = rule_matches(&condition, "a question") {
        let hint = did_you_mean(&source, ["task.input"]).unwrap_or_else(|| "a rule sees `task.input`".to_owned());
        report.error_with_hint(node.span, error.to_string(), hint);
        return None;
    }
    Some(condition)
}

/// Whether a role's `when` matches a text.
///
/// # Errors
/// The condition cannot be evaluated: it reaches a fault with this text only.
pub fn rule_matches(condition: &Condition, text: &str) -> Result<bool, artel_task::condition::Error> {
    let (task, nodes, values, output) = (json!({"input": text}), NodeOutputs::new(), GraphValues::new(), json!(text));
    condition.holds(ConditionScope { task: &task, nodes: &nodes, values: &values, output: &output })
}

#[cfg(test)]
mod tests {
    #[test]
    fn settings_are_read_as_they_are_written() {
        let settings = crate::shipped::router_settings();
        let text = settings.yaml("default", "Again.");
        let source = crate::YamlSource { path: "x.yaml".to_owned(), dir: None, text };
        let again = crate::Catalog::parse(vec![crate::shipped::sources(), vec![source]]).unwrap();
        assert_eq!(*again.router_settings(None), *settings);
    }
}
