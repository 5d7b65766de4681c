//! `sampling` of a role: how its tokens are chosen, how many there may be, and what a request may ask for beyond that.

use std::collections::BTreeMap;

use artel_model::sampling::{
    DryParams, MAX_ALTERNATIVE_TOKENS, MAX_BIAS_ENTRIES, MAX_BIAS_TEXT_BYTES, MAX_BREAKER_BYTES, MAX_BREAKER_ITEMS,
    MAX_OUTPUT_TOKENS, MAX_STOP_CHARS, MAX_STOP_ITEMS, NumberRange, SamplingFault, XtcParams,
};
use artel_model::{RequestSampling, SamplingOptions};
use artel_yaml::{Diagnostics, YamlNode, YamlValue, shown};

use crate::decode::{MapReader, boolean, integer, items, number, text_with_space, wrong};
use crate::keys;

/// The most tokens of one output of a role that names no limit: an answer of a page.
const DEFAULT_MAX_TOKENS: u32 = 512;

/// What `sampling` of a role says.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleSampling {
    /// How tokens are chosen; what it leaves open, the model's file may say.
    pub choice: SamplingOptions,
    /// Whether requests may not change how tokens are chosen.
    pub fixed: bool,
    /// The most tokens of one output.
    pub max_tokens: u32,
    /// Texts that end the output and are not part of it.
    pub stop: Vec<String>,
}

impl Default for RoleSampling {
    fn default() -> Self {
        Self { choice: SamplingOptions::default(), fixed: false, max_tokens: DEFAULT_MAX_TOKENS, stop: Vec::new() }
    }
}

impl RoleSampling {
    /// What a request may not ask of this role: whatever the role fixes. The limits of the fields themselves are
    /// [checked](RequestSampling::faults) elsewhere.
    pub fn refusals(&self, request: &RequestSampling) -> Vec<SamplingFault> {
        let mut faults = Vec::new();
        let mut refuse = |field: &str, reason: String| {
            faults.push(SamplingFault { field: field.to_owned(), reason });
        };
        if let Some(tokens) = request.max_tokens.filter(|tokens| *tokens > self.max_tokens) {
            refuse("max_tokens", format!("is {tokens}, the role's limit is {}", self.max_tokens));
        }
        let texts = self.stop.len() + request.stop.len();
        if !request.stop.is_empty() && texts > MAX_STOP_ITEMS {
            refuse("stop", format!("makes {texts} texts with those of the role, the limit is {MAX_STOP_ITEMS}"));
        }
        // A seed and a report change nothing of how tokens are chosen.
        let choice = SamplingOptions { seed: None, logprobs: None, ..request.choice.clone() };
        if self.fixed && !choice.is_empty() {
            let free = "only max_tokens, stop, seed, n and logprobs may be given";
            refuse(first_field(&choice), format!("is fixed by the role (`sampling: {{fixed: true}}`): {free}"));
        }
        faults
    }

    /// The texts that end an output of a request.
    pub fn stop_with(&self, request: &RequestSampling) -> Vec<String> {
        self.stop.iter().chain(&request.stop).cloned().collect()
    }
}

/// The name of the first field that is given.
fn first_field(choice: &SamplingOptions) -> &'static str {
    let given = [
        ("temperature", choice.temperature.is_some()),
        ("top_p", choice.top_p.is_some()),
        ("top_k", choice.top_k.is_some()),
        ("min_p", choice.min_p.is_some()),
        ("typical_p", choice.typical_p.is_some()),
        ("repeat_penalty", choice.repeat_penalty.is_some()),
        ("presence_penalty", choice.presence_penalty.is_some()),
        ("frequency_penalty", choice.frequency_penalty.is_some()),
        ("penalty_last_n", choice.penalty_last_n.is_some()),
        ("dry", choice.dry.is_some()),
        ("xtc", choice.xtc.is_some()),
    ];
    given.iter().find(|(_, is_given)| *is_given).map_or("logit_bias", |(name, _)| name)
}

pub(crate) fn decode(node: &YamlNode, report: &mut Diagnostics<'_>) -> RoleSampling {
    let base = RoleSampling::default();
    let Some(mut f) = MapReader::open(node, "`sampling`", &keys::SAMPLING, report) else { return base };
    let mut float = |key: &'static str, range: NumberRange, report: &mut Diagnostics<'_>| {
        f.get(key).and_then(|n| number(n, &format!("`{key}`"), range.numbers(), report)).map(|value| value as f32)
    };
    let temperature = float("temperature", NumberRange::TEMPERATURE, report);
    let top_p = float("top_p", NumberRange::SHARE, report);
    let min_p = float("min_p", NumberRange::PROBABILITY, report);
    let typical_p = float("typical_p", NumberRange::SHARE, report);
    let repeat_penalty = float("repeat_penalty", NumberRange::REPEAT_PENALTY, report);
    let presence_penalty = float("presence_penalty", NumberRange::PENALTY, report);
    let frequency_penalty = float("frequency_penalty", NumberRange::PENALTY, report);
    let mut whole = |key: &'static str, range, report: &mut Diagnostics<'_>| {
        f.get(key).and_then(|n| integer(n, &format!("`{key}`"), range, report))
    };
    let top_k = whole("top_k", NumberRange::TOP_K.integers(), report);
    let penalty_last_n = whole("penalty_last_n", NumberRange::PENALTY_TOKENS.integers(), report);
    let seed = whole("seed", 0..=u32::MAX, report);
    let logprobs = whole("logprobs", 0..=MAX_ALTERNATIVE_TOKENS, report);
    let max_tokens = whole("max_tokens", 1..=MAX_OUTPUT_TOKENS, report);
    let dry = f.get("dry").and_then(|n| dry(n, report));
    let xtc = f.get("xtc").and_then(|n| xtc(n, report));
    let logit_bias = f.get("logit_bias").map(|n| logit_bias(n, report)).unwrap_or_default();
    let stop = f.get("stop").map(|n| short_texts(n, "`stop`", MAX_STOP_ITEMS, MAX_STOP_CHARS, report));
    let fixed = f.get("fixed").and_then(|n| boolean(n, "`fixed`", report)).unwrap_or(base.fixed);
    f.finish(&keys::ROLE_LIMITS.names().map(|key| (key, "limits")).collect::<Vec<_>>(), report);
    let choice = SamplingOptions {
        temperature,
        top_p,
        top_k,
        min_p,
        typical_p,
        repeat_penalty,
        presence_penalty,
        frequency_penalty,
        penalty_last_n,
        dry,
        xtc,
        logit_bias,
        seed,
        logprobs,
    };
    let (max_tokens, stop) = (max_tokens.unwrap_or(base.max_tokens), stop.unwrap_or_default());
    RoleSampling { choice, fixed, max_tokens, stop }
}

fn dry(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<DryParams> {
    let mut f = MapReader::open(node, "`dry`", &keys::DRY, report)?;
    let multiplier = f.need("multiplier", report);
    let multiplier = multiplier.and_then(|n| number(n, "`multiplier`", NumberRange::DRY_MULTIPLIER.numbers(), report));
    let base = f.get("base").and_then(|n| number(n, "`base`", NumberRange::DRY_BASE.numbers(), report));
    let allowed = NumberRange::DRY_ALLOWED_TOKENS.integers();
    let allowed_length = f.get("allowed_length").and_then(|n| integer(n, "`allowed_length`", allowed, report));
    let last_n = f.get("last_n").and_then(|n| integer(n, "`last_n`", NumberRange::DRY_TOKENS.integers(), report));
    let breakers =
        f.get("breakers").map(|n| short_texts(n, "`breakers`", MAX_BREAKER_ITEMS, MAX_BREAKER_BYTES, report));
    f.finish(&[], report);
    let dry = DryParams {
        multiplier: multiplier? as f32,
        base: base.map_or_else(DryParams::default_base, |base| base as f32),
        allowed_length: allowed_length.unwrap_or_else(DryParams::default_allowed_length),
        last_n,
        breakers: breakers.unwrap_or_else(DryParams::default_breakers),
    };
    let choice = SamplingOptions { dry: Some(dry), ..SamplingOptions::default() };
    if is_within_limits(&choice, node, report) { choice.dry } else { None }
}

fn xtc(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<XtcParams> {
    let mut f = MapReader::open(node, "`xtc`", &keys::XTC, report)?;
    let probability = f.need("probability", report);
    let probability = probability.and_then(|n| number(n, "`probability`", NumberRange::PROBABILITY.numbers(), report));
    let threshold = f.get("threshold");
    let threshold = threshold.and_then(|n| number(n, "`threshold`", NumberRange::XTC_THRESHOLD.numbers(), report));
    f.finish(&[], report);
    let threshold = threshold.map_or_else(XtcParams::default_threshold, |threshold| threshold as f32);
    Some(XtcParams { probability: probability? as f32, threshold })
}

/// Texts and what is added to the logits of their tokens.
fn logit_bias(node: &YamlNode, report: &mut Diagnostics<'_>) -> BTreeMap<String, f32> {
    let mut biases = BTreeMap::new();
    let YamlValue::Map(entries) = &node.value else {
        wrong(node, "`logit_bias` is a map of texts to numbers from -100 to 100", report);
        return biases;
    };
    if entries.len() > MAX_BIAS_ENTRIES {
        report.error(node.span, format!("`logit_bias` has {} texts, the limit is {MAX_BIAS_ENTRIES}", entries.len()));
        return biases;
    }
    for entry in entries {
        let (text, what) = (&entry.key, format!("`{}` in `logit_bias`", shown(&entry.key)));
        if !(1..=MAX_BIAS_TEXT_BYTES).contains(&text.len()) {
            let message = format!("{what} has {} bytes, and must have 1 to {MAX_BIAS_TEXT_BYTES}", text.len());
            report.error(entry.key_span, message);
        } else if let Some(bias) = number(&entry.value, &what, NumberRange::BIAS.numbers(), report) {
            biases.insert(text.clone(), bias as f32);
        }
    }
    biases
}

fn short_texts(
    node: &YamlNode,
    what: &str,
    max_items: usize,
    max_chars: usize,
    report: &mut Diagnostics<'_>,
) -> Vec<String> {
    let nodes = items(node, what, max_items, report).unwrap_or_default();
    let item = format!("an item of {what}");
    nodes.iter().filter_map(|n| text_with_space(n, &item, 1..=max_chars, report)).collect()
}

/// Reports what the limits of single keys do not: texts are counted in characters there, and in bytes for llama.cpp.
fn is_within_limits(choice: &SamplingOptions, node: &YamlNode, report: &mut Diagnostics<'_>) -> bool {
    let faults = choice.faults();
    for SamplingFault { field, reason } in &faults {
        report.error(node.span, format!("`{field}` {reason}"));
    }
    faults.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(role: &RoleSampling, request: &RequestSampling) -> Vec<String> {
        role.refusals(request).into_iter().map(|fault| format!("{}: {}", fault.field, fault.reason)).collect()
    }

    #[test]
    fn a_request_asks_for_no_more_than_its_role_allows() {
        let stop = vec!["a".to_owned(); 15];
        let role = RoleSampling { max_tokens: 40, stop, ..RoleSampling::default() };
        let hot = SamplingOptions { temperature: Some(1.5), ..SamplingOptions::default() };
        let request = RequestSampling { choice: hot.clone(), max_tokens: Some(40), ..RequestSampling::default() };
        assert_eq!(refused(&role, &request), [""; 0]);
        let more = RequestSampling {
            max_tokens: Some(41),
            stop: vec!["b".to_owned(), "c".to_owned()],
            ..RequestSampling::default()
        };
        let expected = [
            "max_tokens: is 41, the role's limit is 40",
            "stop: makes 17 texts with those of the role, the limit is 16",
        ];
        assert_eq!(refused(&role, &more), expected);
        let fixed = RoleSampling { fixed: true, ..role };
        let request = RequestSampling { choice: hot, ..RequestSampling::default() };
        let messages = refused(&fixed, &request);
        assert!(
            messages[0].starts_with("temperature: is fixed by the role (`sampling: {fixed: true}`)"),
            "{messages:?}"
        );
        let choice = SamplingOptions { seed: Some(1), logprobs: Some(3), ..SamplingOptions::default() };
        let free = RequestSampling { choice, max_tokens: Some(1), answers: Some(8), ..RequestSampling::default() };
        assert_eq!(refused(&fixed, &free), [""; 0]);
    }
}
