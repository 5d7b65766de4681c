//! The limits of what a role or a request may say of the sampling.

use std::ops::RangeInclusive;

use super::{DryParams, RequestSampling, SamplingOptions, XtcParams};

/// The most texts that end an output.
pub const MAX_STOP_ITEMS: usize = 16;
/// The longest of them: a line.
pub const MAX_STOP_CHARS: usize = 200;
/// The most tokens of one output: more than the context of any model that runs on one machine.
pub const MAX_OUTPUT_TOKENS: u32 = 1_048_576;
/// The most answers to one prompt: each takes a sequence of the engine.
pub const MAX_ANSWER_ITEMS: u32 = 8;
/// The most alternatives of a token that are told, as with OpenAI's API.
pub const MAX_ALTERNATIVE_TOKENS: u32 = 20;
/// The most texts whose tokens are biased, as with OpenAI's API.
pub const MAX_BIAS_ENTRIES: usize = 300;
/// The longest of them: a few words.
pub const MAX_BIAS_TEXT_BYTES: usize = 200;
/// The most texts that break a repeated sequence.
pub const MAX_BREAKER_ITEMS: usize = 16;
/// The longest of them; llama.cpp cuts longer ones.
pub const MAX_BREAKER_BYTES: usize = 40;

/// The numbers that a field takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NumberRange {
    /// The least one.
    pub least: f64,
    /// The greatest one.
    pub most: f64,
}

impl NumberRange {
    /// Of `temperature`.
    pub const TEMPERATURE: Self = Self { least: 0.0, most: 2.0 };
    /// Of `top_p` and `typical_p`.
    pub const SHARE: Self = Self { least: 0.01, most: 1.0 };
    /// Of `min_p` and of XTC's probability.
    pub const PROBABILITY: Self = Self { least: 0.0, most: 1.0 };
    /// Of `top_k`.
    pub const TOP_K: Self = Self { least: 0.0, most: 1000.0 };
    /// Of `repeat_penalty`.
    pub const REPEAT_PENALTY: Self = Self { least: 0.5, most: 2.0 };
    /// Of `presence_penalty` and `frequency_penalty`, as with OpenAI's API.
    pub const PENALTY: Self = Self { least: -2.0, most: 2.0 };
    /// Of `penalty_last_n`: each is kept for each sequence.
    pub const PENALTY_TOKENS: Self = Self { least: 0.0, most: 8192.0 };
    /// Of DRY's multiplier.
    pub const DRY_MULTIPLIER: Self = Self { least: 0.0, most: 10.0 };
    /// Of DRY's base.
    pub const DRY_BASE: Self = Self { least: 1.0, most: 4.0 };
    /// Of DRY's allowed length.
    pub const DRY_ALLOWED_TOKENS: Self = Self { least: 1.0, most: 100.0 };
    /// Of DRY's window: more than the context is no more than the context.
    pub const DRY_TOKENS: Self = Self { least: 0.0, most: 1_048_576.0 };
    /// Of XTC's threshold: from a half on, at most one token has it, and nothing is left out.
    pub const XTC_THRESHOLD: Self = Self { least: 0.0, most: 0.5 };
    /// Of a bias, as with OpenAI's API.
    pub const BIAS: Self = Self { least: -100.0, most: 100.0 };

    /// As numbers.
    pub fn numbers(self) -> RangeInclusive<f64> {
        self.least..=self.most
    }

    /// As whole numbers; the range has no negative ones.
    pub fn integers(self) -> RangeInclusive<u32> {
        self.least as u32..=self.most as u32
    }

    fn check(self, field: &str, value: Option<f64>, faults: &mut Vec<SamplingFault>) {
        let Some(value) = value else { return };
        // A number that is none is not within any range.
        if !(value >= self.least && value <= self.most) {
            let Self { least, most } = self;
            faults.push(SamplingFault::new(field, format!("is {value}, and must be from {least} to {most}")));
        }
    }
}

/// What is wrong with a field of a request's sampling; the message begins after the field's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplingFault {
    /// The field, such as `dry.base`.
    pub field: String,
    /// What is wrong with it, and the limit.
    pub reason: String,
}

impl SamplingFault {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// The fault of a field of this field.
    #[must_use]
    pub fn inside(self, field: &str) -> Self {
        Self { field: format!("{field}.{}", self.field), ..self }
    }
}

impl RequestSampling {
    /// Every field that is beyond its limit.
    pub fn faults(&self) -> Vec<SamplingFault> {
        let mut faults = self.choice.faults();
        let whole = |value: Option<u32>| value.map(f64::from);
        NumberRange { least: 1.0, most: f64::from(MAX_OUTPUT_TOKENS) }.check(
            "max_tokens",
            whole(self.max_tokens),
            &mut faults,
        );
        NumberRange { least: 1.0, most: f64::from(MAX_ANSWER_ITEMS) }.check("n", whole(self.answers), &mut faults);
        if self.stop.len() > MAX_STOP_ITEMS {
            let reason = format!("has {} texts, the limit is {MAX_STOP_ITEMS}", self.stop.len());
            faults.push(SamplingFault::new("stop", reason));
        }
        for (at, text) in self.stop.iter().enumerate() {
            let chars = text.chars().count();
            if !(1..=MAX_STOP_CHARS).contains(&chars) {
                let reason = format!("has {chars} characters, and must have 1 to {MAX_STOP_CHARS}");
                faults.push(SamplingFault::new(format!("stop[{at}]"), reason));
            }
        }
        faults
    }
}

impl SamplingOptions {
    /// Every field that is beyond its limit.
    pub fn faults(&self) -> Vec<SamplingFault> {
        let mut faults = Vec::new();
        let number = |value: Option<f32>| value.map(f64::from);
        let whole = |value: Option<u32>| value.map(f64::from);
        NumberRange::TEMPERATURE.check("temperature", number(self.temperature), &mut faults);
        NumberRange::SHARE.check("top_p", number(self.top_p), &mut faults);
        NumberRange::TOP_K.check("top_k", whole(self.top_k), &mut faults);
        NumberRange::PROBABILITY.check("min_p", number(self.min_p), &mut faults);
        NumberRange::SHARE.check("typical_p", number(self.typical_p), &mut faults);
        NumberRange::REPEAT_PENALTY.check("repeat_penalty", number(self.repeat_penalty), &mut faults);
        NumberRange::PENALTY.check("presence_penalty", number(self.presence_penalty), &mut faults);
        NumberRange::PENALTY.check("frequency_penalty", number(self.frequency_penalty), &mut faults);
        NumberRange::PENALTY_TOKENS.check("penalty_last_n", whole(self.penalty_last_n), &mut faults);
        NumberRange { least: 0.0, most: f64::from(MAX_ALTERNATIVE_TOKENS) }.check(
            "logprobs",
            whole(self.logprobs),
            &mut faults,
        );
        if let Some(dry) = &self.dry {
            dry.check(&mut faults);
        }
        if let Some(xtc) = &self.xtc {
            xtc.check(&mut faults);
        }
        if self.logit_bias.len() > MAX_BIAS_ENTRIES {
            let reason = format!("has {} texts, the limit is {MAX_BIAS_ENTRIES}", self.logit_bias.len());
            faults.push(SamplingFault::new("logit_bias", reason));
        }
        for (text, bias) in &self.logit_bias {
            // A text may be long, and its beginning tells which one is meant.
            let field = format!("logit_bias[{:?}]", text.chars().take(20).collect::<String>());
            if !(1..=MAX_BIAS_TEXT_BYTES).contains(&text.len()) {
                let reason = format!("has {} bytes, and must have 1 to {MAX_BIAS_TEXT_BYTES}", text.len());
                faults.push(SamplingFault::new(field.clone(), reason));
            }
            NumberRange::BIAS.check(&field, Some(f64::from(*bias)), &mut faults);
        }
        faults
    }
}

impl DryParams {
    fn check(&self, faults: &mut Vec<SamplingFault>) {
        NumberRange::DRY_MULTIPLIER.check("dry.multiplier", Some(f64::from(self.multiplier)), faults);
        NumberRange::DRY_BASE.check("dry.base", Some(f64::from(self.base)), faults);
        NumberRange::DRY_ALLOWED_TOKENS.check("dry.allowed_length", Some(f64::from(self.allowed_length)), faults);
        NumberRange::DRY_TOKENS.check("dry.last_n", self.last_n.map(f64::from), faults);
        if self.breakers.len() > MAX_BREAKER_ITEMS {
            let reason = format!("has {} texts, the limit is {MAX_BREAKER_ITEMS}", self.breakers.len());
            faults.push(SamplingFault::new("dry.breakers", reason));
        }
        for (at, text) in self.breakers.iter().enumerate() {
            let field = format!("dry.breakers[{at}]");
            if !(1..=MAX_BREAKER_BYTES).contains(&text.len()) {
                let reason = format!("has {} bytes, and must have 1 to {MAX_BREAKER_BYTES}", text.len());
                faults.push(SamplingFault::new(field, reason));
            } else if text.contains('\0') {
                faults.push(SamplingFault::new(field, "has a zero byte"));
            }
        }
    }
}

impl XtcParams {
    fn check(&self, faults: &mut Vec<SamplingFault>) {
        NumberRange::PROBABILITY.check("xtc.probability", Some(f64::from(self.probability)), faults);
        NumberRange::XTC_THRESHOLD.check("xtc.threshold", Some(f64::from(self.threshold)), faults);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_fault_names_its_field_and_its_limit() {
        let choice = SamplingOptions {
            temperature: Some(f32::NAN),
            top_p: Some(0.0),
            presence_penalty: Some(2.5),
            logprobs: Some(21),
            dry: Some(DryParams {
                multiplier: 0.8,
                base: 0.5,
                allowed_length: 0,
                last_n: None,
                breakers: vec![String::new()],
            }),
            xtc: Some(XtcParams { probability: 0.5, threshold: 0.9 }),
            logit_bias: BTreeMap::from([("yes".to_owned(), 101.0), (String::new(), 1.0)]),
            ..SamplingOptions::default()
        };
        let sampling = RequestSampling {
            choice,
            max_tokens: Some(0),
            stop: vec![String::new(), "x".repeat(MAX_STOP_CHARS)],
            answers: Some(9),
        };
        let faults = sampling.faults();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        let expected = [
            "temperature",
            "top_p",
            "presence_penalty",
            "logprobs",
            "dry.base",
            "dry.allowed_length",
            "dry.breakers[0]",
            "xtc.threshold",
            "logit_bias[\"\"]",
            "logit_bias[\"yes\"]",
            "max_tokens",
            "n",
            "stop[0]",
        ];
        assert_eq!(fields, expected);
        assert_eq!(faults[2].reason, "is 2.5, and must be from -2 to 2");
        assert_eq!(RequestSampling::default().faults(), []);
    }
}
