//! How tokens are sampled: what a role, a request or a model's file may say of it, and what follows from all three.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod limits;
mod logprobs;

pub use limits::{
    MAX_ALTERNATIVE_TOKENS, MAX_ANSWER_ITEMS, MAX_BIAS_ENTRIES, MAX_BIAS_TEXT_BYTES, MAX_BREAKER_BYTES,
    MAX_BREAKER_ITEMS, MAX_OUTPUT_TOKENS, MAX_STOP_CHARS, MAX_STOP_ITEMS, NumberRange, SamplingFault,
};
pub use logprobs::{LEAST_LOG_PROBABILITY, TokenLogprob, TopLogprob};

/// Tokens before the next one that penalties count, unless a number is given: llama.cpp's default.
const DEFAULT_PENALTY_TOKENS: u32 = 64;

/// How tokens are sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keeps the likeliest tokens that make up this share; 1 keeps all.
    pub top_p: f32,
    /// Keeps so many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps tokens with at least this share of the likeliest one's probability; 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens whose information is nearest to the expected one, up to this share; 1 keeps all.
    pub typical_p: f32,
    /// Divides the logits of recent tokens; 1 does nothing.
    pub repeat_penalty: f32,
    /// Is subtracted from the logit of a recent token, however often it came; 0 does nothing.
    pub presence_penalty: f32,
    /// Is subtracted from the logit of a recent token as often as it came; 0 does nothing.
    pub frequency_penalty: f32,
    /// How many tokens before the next one are recent, those of the prompt included.
    pub penalty_last_n: u32,
    /// Penalizes the continuation of repeated sequences.
    pub dry: Option<DryParams>,
    /// Leaves out the likeliest tokens now and then.
    pub xtc: Option<XtcParams>,
    /// Is added to the logits of the tokens of a text; -100 forbids them.
    pub logit_bias: Vec<(String, f32)>,
    /// Makes the choices repeatable; without it, they differ for each request.
    pub seed: Option<u32>,
}

/// DRY: a token that would continue a sequence which occurred before is penalized by `multiplier * base ^ (length -
/// allowed_length)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DryParams {
    /// The strength; 0 does nothing.
    pub multiplier: f32,
    /// How the penalty grows with the length of the sequence.
    #[serde(default = "DryParams::default_base")]
    pub base: f32,
    /// Sequences up to this length are free.
    #[serde(default = "DryParams::default_allowed_length")]
    pub allowed_length: u32,
    /// How many tokens are searched, those of the prompt included; absent: as many as the context holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_n: Option<u32>,
    /// Texts over which no sequence is continued.
    #[serde(default = "DryParams::default_breakers")]
    pub breakers: Vec<String>,
}

impl DryParams {
    /// The values of its authors.
    pub fn default_base() -> f32 {
        1.75
    }

    /// That of its authors.
    pub fn default_allowed_length() -> u32 {
        2
    }

    /// Those of its authors: the ends of lines and what surrounds names and quotations.
    pub fn default_breakers() -> Vec<String> {
        ["\n", ":", "\"", "*"].map(str::to_owned).to_vec()
    }
}

/// XTC: with a probability, all tokens but the last one are left out that have at least `threshold`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct XtcParams {
    /// How often; 0 is never.
    pub probability: f32,
    /// Tokens with at least this probability are left out, but for the least likely of them.
    #[serde(default = "XtcParams::default_threshold")]
    pub threshold: f32,
}

impl XtcParams {
    /// That of its author.
    pub fn default_threshold() -> f32 {
        0.1
    }
}

impl SamplingParams {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        typical_p: 1.0,
        repeat_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        penalty_last_n: DEFAULT_PENALTY_TOKENS,
        dry: None,
        xtc: None,
        logit_bias: Vec::new(),
        seed: None,
    };

    /// Whether any penalty counts recent tokens.
    pub fn has_penalties(&self) -> bool {
        let is_neutral = (self.repeat_penalty, self.presence_penalty, self.frequency_penalty) == (1.0, 0.0, 0.0);
        self.penalty_last_n > 0 && !is_neutral
    }
}

impl Default for SamplingParams {
    /// Those of a role that names none, on a model that states none.
    fn default() -> Self {
        Self { temperature: 0.7, top_p: 0.95, top_k: 40, min_p: 0.05, ..Self::GREEDY }
    }
}

/// What one place says of the sampling: a role, a request or a model's file. What it leaves open, the next one says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingOptions {
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typical_p: Option<f32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty_last_n: Option<u32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry: Option<DryParams>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc: Option<XtcParams>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub logit_bias: BTreeMap<String, f32>,
    /// As in [`SamplingParams`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// How many alternatives of each token are told, with the token's own probability; absent: nothing is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u32>,
}

impl SamplingOptions {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What it says, and of the rest, what `other` says.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            temperature: self.temperature.or(other.temperature),
            top_p: self.top_p.or(other.top_p),
            top_k: self.top_k.or(other.top_k),
            min_p: self.min_p.or(other.min_p),
            typical_p: self.typical_p.or(other.typical_p),
            repeat_penalty: self.repeat_penalty.or(other.repeat_penalty),
            presence_penalty: self.presence_penalty.or(other.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(other.frequency_penalty),
            penalty_last_n: self.penalty_last_n.or(other.penalty_last_n),
            dry: self.dry.as_ref().or(other.dry.as_ref()).cloned(),
            xtc: self.xtc.or(other.xtc),
            // Of two biases of one text, that of the nearer place holds.
            logit_bias: other
                .logit_bias
                .iter()
                .chain(&self.logit_bias)
                .map(|(text, bias)| (text.clone(), *bias))
                .collect(),
            seed: self.seed.or(other.seed),
            logprobs: self.logprobs.or(other.logprobs),
        }
    }

    /// The parameters that it says; those of a role that names none for the rest.
    pub fn params(&self) -> SamplingParams {
        let base = SamplingParams::default();
        SamplingParams {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_p: self.top_p.unwrap_or(base.top_p),
            top_k: self.top_k.unwrap_or(base.top_k),
            min_p: self.min_p.unwrap_or(base.min_p),
            typical_p: self.typical_p.unwrap_or(base.typical_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(base.repeat_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            penalty_last_n: self.penalty_last_n.unwrap_or(base.penalty_last_n),
            dry: self.dry.clone().filter(|dry| dry.multiplier > 0.0 && dry.last_n != Some(0)),
            xtc: self.xtc.filter(|xtc| xtc.probability > 0.0),
            logit_bias: self.logit_bias.iter().map(|(text, bias)| (text.clone(), *bias)).collect(),
            seed: self.seed,
        }
    }

    /// What it says, as `temperature 0.6, top_k 20`; empty if it says nothing.
    pub fn summary(&self) -> String {
        let float = |name: &str, value: Option<f32>| value.map(|value| format!("{name} {value}"));
        let whole = |name: &str, value: Option<u32>| value.map(|value| format!("{name} {value}"));
        let parts = [
            float("temperature", self.temperature),
            float("top_p", self.top_p),
            whole("top_k", self.top_k),
            float("min_p", self.min_p),
            float("typical_p", self.typical_p),
            float("repeat_penalty", self.repeat_penalty),
            float("presence_penalty", self.presence_penalty),
            float("frequency_penalty", self.frequency_penalty),
            whole("penalty_last_n", self.penalty_last_n),
            self.dry.as_ref().map(|dry| format!("dry {}", dry.multiplier)),
            self.xtc.map(|xtc| format!("xtc {} from {}", xtc.probability, xtc.threshold)),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// What a request asks of the sampling of one answer, or several.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestSampling {
    /// How tokens are chosen.
    pub choice: SamplingOptions,
    /// The most tokens of one answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Texts that end an answer, beside those of the role.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// How many answers.
    #[serde(rename = "n", skip_serializing_if = "Option::is_none")]
    pub answers: Option<u32>,
}

impl RequestSampling {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_before_its_role_and_a_role_before_its_model() {
        let model = SamplingOptions { temperature: Some(0.6), top_k: Some(20), ..SamplingOptions::default() };
        let role = SamplingOptions { temperature: Some(0.2), min_p: Some(0.1), ..SamplingOptions::default() };
        let request = SamplingOptions { temperature: Some(0.0), seed: Some(7), ..SamplingOptions::default() };
        let params = request.or(&role).or(&model).params();
        let expected =
            SamplingParams { temperature: 0.0, top_k: 20, min_p: 0.1, seed: Some(7), ..SamplingParams::default() };
        assert_eq!(params, expected);
        assert_eq!(SamplingOptions::default().params(), SamplingParams::default());
        assert_eq!(model.summary(), "temperature 0.6, top_k 20");
    }

    #[test]
    fn what_does_nothing_is_off() {
        let dry = |multiplier, last_n| DryParams {
            multiplier,
            base: 1.75,
            allowed_length: 2,
            last_n,
            breakers: DryParams::default_breakers(),
        };
        let params = |options: SamplingOptions| options.params();
        assert_eq!(params(SamplingOptions { dry: Some(dry(0.0, None)), ..SamplingOptions::default() }).dry, None);
        assert_eq!(params(SamplingOptions { dry: Some(dry(0.8, Some(0))), ..SamplingOptions::default() }).dry, None);
        let xtc = Some(XtcParams { probability: 0.0, threshold: 0.1 });
        assert_eq!(params(SamplingOptions { xtc, ..SamplingOptions::default() }).xtc, None);
        assert!(!SamplingParams::default().has_penalties());
        assert!(!SamplingParams { presence_penalty: 1.0, penalty_last_n: 0, ..SamplingParams::GREEDY }.has_penalties());
        assert!(SamplingParams { frequency_penalty: -0.5, ..SamplingParams::GREEDY }.has_penalties());
    }

    #[test]
    fn what_is_kept_with_a_task_is_read_back_as_it_was() {
        let choice = SamplingOptions {
            temperature: Some(0.7),
            dry: Some(DryParams {
                multiplier: 0.8,
                base: 1.75,
                allowed_length: 2,
                last_n: None,
                breakers: vec!["\n".to_owned()],
            }),
            logit_bias: BTreeMap::from([(" no".to_owned(), -100.0)]),
            logprobs: Some(0),
            ..SamplingOptions::default()
        };
        let all = RequestSampling { choice, max_tokens: Some(9), stop: vec!["END".to_owned()], answers: Some(2) };
        let value = serde_json::to_value(&all).unwrap();
        assert_eq!(serde_json::from_value::<RequestSampling>(value).unwrap(), all);
        assert_eq!(serde_json::to_string(&RequestSampling::default()).unwrap(), r#"{"choice":{}}"#);
    }
}
