//! Router settings in YAML. What they mean is in [`artel_router`].

use std::collections::BTreeMap;

use artel_router::{RouterSettings, SignalWeight, rule_matches};
use artel_task::event::Signal;
use artel_task::{Condition, ModelName};
use artel_yaml::{Diagnostics, Span, YamlNode, did_you_mean};
use serde_json::json;

use crate::declared_names::DeclaredNames;
use crate::decode::{MapReader, name, number, text, texts};
use crate::definition::DefinitionKind;
use crate::keys;

/// The router document of routers that name none.
pub const DEFAULT_ROUTER: &str = "default";
/// The most background texts: each is embedded once.
const MAX_BACKGROUND_TEXTS: usize = 1000;

/// The YAML document of these settings, under a name.
pub fn yaml(settings: &RouterSettings, name: &str, description: &str) -> String {
    let quoted = |text: &str| json!(text).to_string();
    let mut out = format!("router: {name}\ndescription: {}\nsignals:\n", quoted(description));
    for (signal, w) in &settings.signals {
        let model = match &settings.label_model {
            Some(model) if *signal == Signal::Label => format!("model: {model}, "),
            _ => String::new(),
        };
        out += &format!(
            "  {signal}: {{{model}weight: {:.4}, mean: {:.4}, deviation: {:.4}, alone: {{weight: {:.4}, bias: {:.4}}}}}\n",
            w.weight, w.mean, w.deviation, w.alone.0, w.alone.1
        );
    }
    out += &format!("bias: {:.4}\ntemperature: {:.4}\n", settings.bias, settings.temperature);
    if !settings.background.is_empty() {
        out += "background:\n";
    }
    settings.background.iter().for_each(|text| out += &format!("  - {}\n", quoted(text)));
    out
}

/// Reads the fields of a router document. `is_chat_model` tells whether a model is one for chat.
pub(crate) fn decode(
    fields: MapReader<'_>,
    declared: &DeclaredNames,
    is_chat_model: impl Fn(&str) -> bool,
    report: &mut Diagnostics<'_>,
) -> Option<RouterSettings> {
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
            declared.report_missing(DefinitionKind::Model, given.as_str(), span, report);
            if !is_chat_model(given.as_str()) {
                report.error(span, format!("model `{given}` is not for chat"));
            }
            label_model = Some(given);
        }
    }
    f.finish(&[("weight", "a signal"), ("mean", "a signal"), ("deviation", "a signal")], report);
    Some(RouterSettings {
        signals,
        bias: bias?,
        temperature: temperature?,
        background: background.unwrap_or_default(),
        label_model,
    })
}

/// The model that a signal names, with its span.
type NamedModel = Option<(ModelName, Span)>;

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
    if report.is_over_time(node.span) {
        return None;
    }
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

#[cfg(test)]
mod tests {
    #[test]
    fn settings_are_read_as_they_are_written() {
        let settings = crate::Catalog::shipped().router_settings(None);
        let text = super::yaml(&settings, "default", "Again.");
        let source = crate::YamlSource { path: "x.yaml".to_owned(), dir: None, text };
        let again = crate::Catalog::parse(vec![crate::shipped::sources(), vec![source]]).unwrap();
        assert_eq!(*again.router_settings(None), *settings);
    }
}
