//! How routers weigh what they know: weights of signals, what speaks for nobody, and how sure that makes them.
//!
//! A signal `s` gives each candidate `c` a number `x`. With `z = (x - mean) / deviation`, the candidate's logit is the sum
//! of `weight * z` over the signals; "none of them" competes with `bias` plus the same sum over what the signals say of the
//! background. A softmax over all logits, divided by the temperature, gives the probabilities; the winner's is the
//! decision's confidence. No weight belongs to a role, so that a new role needs no fitting.

mod chances;

use std::collections::BTreeMap;

use artel_task::condition::{NodeOutputs, ConditionScope, GraphValues};
use artel_task::event::Signal;
use artel_task::{Condition, ModelName};
use serde_json::json;

use crate::decode::{Fields, name, number, text};
use crate::node::Node;
use crate::problem::{Report, did_you_mean};
use crate::role::texts;

pub use chances::Numbers;

/// The settings of routers that name none.
pub const DEFAULT: &str = "default";
/// Background texts: each is embedded once.
const MAX_BACKGROUND: usize = 1000;

/// What a candidate is known by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topic {
    /// What it does.
    pub description: String,
    /// Requests that belong to it.
    pub examples: Vec<String>,
    /// Words that speak for it.
    pub keywords: Vec<String>,
}

/// How routers weigh what they know.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// The signals that are asked, rules aside: a rule that holds decides.
    pub signals: BTreeMap<Signal, Weight>,
    /// What "none of them" has ahead.
    pub bias: f64,
    /// Above 1 makes every decision less sure, below 1 surer.
    pub temperature: f64,
    /// Questions that belong to nobody.
    pub background: Vec<String>,
    /// The chat model of the signal `label`.
    pub label_model: Option<ModelName>,
}

/// What a signal's numbers are worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    /// Logits per deviation, beside the other signals.
    pub weight: f64,
    /// What is taken from the signal's number.
    pub mean: f64,
    /// What the rest is divided by.
    pub deviation: f64,
    /// Weight and bias where a router listens to this signal alone.
    pub alone: (f64, f64),
}

impl Routing {
    /// `model` says of a name whether it is that of a chat model; `None`: of no model at all.
    pub(crate) fn decode(
        fields: Fields<'_>,
        model: impl Fn(&str) -> Option<bool>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let mut f = fields;
        f.get("description").map(|n| text(n, "`description`", 1..=2000, report));
        let bias = f.get("bias").map_or(Some(0.0), |n| number(n, "`bias`", -100.0..=100.0, report));
        let temperature = f.get("temperature").map_or(Some(1.0), |n| number(n, "`temperature`", 0.01..=100.0, report));
        let background = f.get("background").map(|n| texts(n, "`background`", MAX_BACKGROUND, 2000, report));
        let signals = f.need("signals", report).and_then(|n| Fields::open(n, "`signals`", report));
        f.finish(&[], report);
        let mut f = signals?;
        let (mut signals, mut label_model) = (BTreeMap::new(), None);
        for signal in Signal::ALL.into_iter().filter(|signal| *signal != Signal::Rule) {
            let Some(node) = f.get(signal.as_str()) else { continue };
            let Some((weight, named)) = weight(signal, node, report) else { continue };
            signals.insert(signal, weight);
            if let Some((given, span)) = named {
                match model(given.as_str()) {
                    Some(true) => {}
                    Some(false) => report.add(span, format!("model `{given}` is not for chat")),
                    None => report.add(span, format!("there is no model `{given}`")),
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

type Named = Option<(ModelName, crate::node::Span)>;

fn weight(signal: Signal, node: &Node, report: &mut Report<'_>) -> Option<(Weight, Named)> {
    let what = format!("`{signal}`");
    let mut f = Fields::open(node, &what, report)?;
    let model = match signal {
        Signal::Label => {
            let node = f.need("model", report)?;
            Some((name(node, "a model", ModelName::parse, report)?, node.span))
        }
        _ => None,
    };
    let mut value = |key: &'static str, range, base: f64, report: &mut Report<'_>| {
        f.get(key).map_or(Some(base), |n| number(n, &format!("`{key}`"), range, report))
    };
    let weight = value("weight", -1000.0..=1000.0, 1.0, report);
    let mean = value("mean", -1000.0..=1000.0, 0.0, report);
    let deviation = value("deviation", 0.0001..=1000.0, 1.0, report);
    let alone = f.get("alone").map(|n| alone(n, report));
    f.finish(&[], report);
    let weight = weight?;
    let alone = alone.map_or(Some((weight, 0.0)), |alone| alone)?;
    Some((Weight { weight, mean: mean?, deviation: deviation?, alone }, model))
}

fn alone(node: &Node, report: &mut Report<'_>) -> Option<(f64, f64)> {
    let mut f = Fields::open(node, "`alone`", report)?;
    let weight = f.need("weight", report).and_then(|n| number(n, "`weight`", -1000.0..=1000.0, report));
    let bias = f.need("bias", report).and_then(|n| number(n, "`bias`", -1000.0..=1000.0, report));
    f.finish(&[], report);
    Some((weight?, bias?))
}

/// A role's `when`. It is tried on a text, so that what names nothing is found on load and not in the middle of a task.
pub(crate) fn rule(node: &Node, report: &mut Report<'_>) -> Option<Condition> {
    let source = text(node, "`when`", 1..=artel_task::condition::MAX_CONDITION_BYTES, report)?;
    let condition = match Condition::parse(&source) {
        Ok(condition) => condition,
        Err(error) => {
            report.add(node.span, error.to_string());
            return None;
        }
    };
    if let Err(error) = holds(&condition, "a question") {
        let hint = did_you_mean(&source, ["task.input"]).unwrap_or_else(|| "a rule sees `task.input`".to_owned());
        report.add_with(node.span, error.to_string(), hint);
        return None;
    }
    Some(condition)
}

/// Whether a role's `when` holds for a text.
///
/// # Errors
/// What CEL says, for functions and values that only this text reaches.
pub fn holds(condition: &Condition, text: &str) -> Result<bool, artel_task::condition::Error> {
    let (task, nodes, values, output) = (json!({"input": text}), NodeOutputs::new(), GraphValues::new(), json!(text));
    condition.holds(ConditionScope { task: &task, nodes: &nodes, values: &values, output: &output })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_is_what_is_read() {
        let routing = crate::shipped::routing();
        let text = routing.yaml("default", "Again.");
        let source = crate::Source { path: "x.yaml".to_owned(), dir: None, text };
        let again = crate::Catalog::parse(vec![crate::shipped::sources(), vec![source]]).unwrap();
        assert_eq!(*again.routing(None), *routing);
    }
}
