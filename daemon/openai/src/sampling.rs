//! How a client wants an answer to be sampled, and what of it is left to the client.

use artel_proto::v1;
use serde_json::Value;

use crate::api_error::ApiError;
use crate::fields::{Fields, text_of};
use crate::services::{RoleFacts, ServedKind};

/// What `max_tokens` is where a program means that there is no limit, as llama.cpp's do.
const NO_LIMIT_TOKENS: i64 = -1;

/// The options of a request, with the names under which it gave them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct RequestedSampling {
    pub(crate) options: v1::SamplingOptions,
    /// Those that a role with fixed sampling does not take.
    choices: Vec<&'static str>,
    /// Those that every role takes.
    bounds: Vec<&'static str>,
    /// The name of `max_tokens`.
    length: Option<&'static str>,
}

impl RequestedSampling {
    /// Reads the options. `lengths` are the names of the limit of tokens, of which the first one that is given counts.
    pub(crate) fn parse(fields: &Fields<'_>, lengths: &[&'static str]) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        parsed.options.temperature = parsed.choice("temperature", fields.float("temperature")?);
        parsed.options.top_p = parsed.choice("top_p", fields.float("top_p")?);
        parsed.options.min_p = parsed.choice("min_p", fields.float("min_p")?);
        parsed.options.typical_p = parsed.choice("typical_p", fields.float("typical_p")?);
        parsed.options.presence_penalty = parsed.choice("presence_penalty", fields.float("presence_penalty")?);
        parsed.options.frequency_penalty = parsed.choice("frequency_penalty", fields.float("frequency_penalty")?);
        parsed.options.repeat_penalty = parsed.choice("repeat_penalty", fields.float("repeat_penalty")?);
        if let Some(penalty) = fields.float("repetition_penalty")? {
            parsed.options.repeat_penalty = parsed.choice("repetition_penalty", Some(penalty));
        }
        // vLLM's clients send -1 for all tokens, which is 0 here.
        let top_k = fields.integer("top_k")?.filter(|count| *count != NO_LIMIT_TOKENS);
        parsed.options.top_k = match top_k {
            Some(_) => parsed.choice("top_k", fields.count("top_k")?),
            None => fields.value("top_k").and_then(|_| parsed.choice("top_k", Some(0))),
        };
        let logit_bias = logit_bias(fields)?;
        if !logit_bias.is_empty() {
            parsed.choices.push("logit_bias");
            parsed.options.logit_bias = logit_bias.into_iter().collect();
        }
        parsed.options.seed = parsed.bound("seed", fields.integer("seed")?.map(folded));
        parsed.options.n = parsed.bound("n", fields.count("n")?.filter(|count| *count != 1));
        parsed.options.stop = stops(fields)?;
        if !parsed.options.stop.is_empty() {
            parsed.bounds.push("stop");
        }
        for name in lengths {
            let given = fields.integer(name)?.filter(|tokens| *tokens != NO_LIMIT_TOKENS);
            if given.is_some() && parsed.length.is_none() {
                parsed.options.max_tokens = parsed.bound(name, fields.count(name)?);
                parsed.length = Some(name);
            }
        }
        Ok(parsed)
    }

    /// Asks for the likelihoods of tokens, with so many of the likeliest at each place.
    pub(crate) fn with_logprobs(mut self, name: &'static str, top: Option<u32>) -> Self {
        self.options.logprobs = self.bound(name, top);
        self
    }

    /// What is left to a client of this model, and the names of what is not taken. What exceeds a limit of the service is not
    /// left out here: the service refuses it.
    pub(crate) fn for_model(self, kind: &ServedKind) -> (Option<v1::SamplingOptions>, Vec<&'static str>) {
        match kind {
            ServedKind::Role(facts) => self.for_role(facts),
            _ => (None, self.bounds.into_iter().chain(self.choices).collect()),
        }
    }

    fn for_role(self, facts: &RoleFacts) -> (Option<v1::SamplingOptions>, Vec<&'static str>) {
        let Self { mut options, choices, length, .. } = self;
        let mut not_taken = Vec::new();
        if options.max_tokens.is_some_and(|tokens| tokens > facts.max_tokens) {
            options.max_tokens = None;
            not_taken.extend(length);
        }
        if facts.is_sampling_fixed {
            let v1::SamplingOptions { seed, max_tokens, stop, n, logprobs, .. } = options;
            options = v1::SamplingOptions { seed, max_tokens, stop, n, logprobs, ..v1::SamplingOptions::default() };
            not_taken.extend(choices);
        }
        let is_empty = options == v1::SamplingOptions::default();
        ((!is_empty).then_some(options), not_taken)
    }

    fn choice<T>(&mut self, name: &'static str, value: Option<T>) -> Option<T> {
        self.choices.extend(value.as_ref().map(|_| name));
        value
    }

    fn bound<T>(&mut self, name: &'static str, value: Option<T>) -> Option<T> {
        self.bounds.extend(value.as_ref().map(|_| name));
        value
    }
}

/// The models do not reason.
pub(crate) fn without_reasoning() -> v1::ReasoningOptions {
    v1::ReasoningOptions { enabled: Some(false), ..v1::ReasoningOptions::default() }
}

/// A seed of 32 bits that differs for most seeds of 64.
fn folded(seed: i64) -> u32 {
    (seed ^ (seed >> 32)) as u32
}

/// `stop`: a text, or a list of them.
fn stops(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    match fields.value("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(_) => {
            let texts = fields.list("stop")?.unwrap_or_default().iter().enumerate();
            texts.map(|(i, text)| Ok(text_of(text, || format!("stop[{i}]"))?.to_owned())).collect()
        }
    }
}

/// `logit_bias`, by texts.
fn logit_bias(fields: &Fields<'_>) -> Result<Vec<(String, f32)>, ApiError> {
    let Some(biases) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let bias = |key: &str| {
        if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit()) {
            let why = "is the id of a token, which another model does not have: write the text of the token instead";
            return Err(ApiError::unsupported(format!("logit_bias.{key}"), why));
        }
        Ok((key.to_owned(), biases.float(key)?.unwrap_or_default()))
    };
    biases.names().map(bias).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(body: &Value) -> Result<RequestedSampling, ApiError> {
        RequestedSampling::parse(&Fields::of(body, "").unwrap(), &["max_completion_tokens", "max_tokens"])
    }

    fn role(max_tokens: u32, is_sampling_fixed: bool) -> ServedKind {
        ServedKind::Role(RoleFacts { max_tokens, is_sampling_fixed })
    }

    #[test]
    fn what_a_role_allows_is_taken() {
        let body = json!({"temperature": 0.5, "top_k": 40, "seed": 7, "stop": "END", "max_tokens": 100, "n": 2, "min_p": 0.1,
            "repetition_penalty": 1.5, "logit_bias": {"yes": -100}, "user": "u"});
        let (options, not_taken) = parsed(&body).unwrap().for_model(&role(100, false));
        let options = options.unwrap();
        assert!(not_taken.is_empty());
        assert_eq!(
            (options.temperature, options.top_k, options.seed, options.n),
            (Some(0.5), Some(40), Some(7), Some(2))
        );
        assert_eq!(
            (options.stop, options.max_tokens, options.repeat_penalty),
            (vec!["END".to_owned()], Some(100), Some(1.5))
        );
        assert_eq!(options.logit_bias["yes"], -100.0);
    }

    #[test]
    fn what_a_role_fixes_is_left_out_and_named() {
        let body = json!({"temperature": 0.5, "logit_bias": {"a": 1}, "seed": 7, "max_completion_tokens": 101, "max_tokens": 1});
        let (options, not_taken) = parsed(&body).unwrap().for_model(&role(100, true));
        assert_eq!(options, Some(v1::SamplingOptions { seed: Some(7), ..v1::SamplingOptions::default() }));
        assert_eq!(not_taken, ["max_completion_tokens", "temperature", "logit_bias"]);
    }

    #[test]
    fn a_graph_takes_no_sampling_and_one_answer_is_not_asked_for() {
        let body = json!({"temperature": 1, "n": 1, "stop": ["a"], "max_tokens": -1});
        let (options, not_taken) = parsed(&body).unwrap().for_model(&ServedKind::Auto);
        assert_eq!((options, not_taken), (None, vec!["stop", "temperature"]));
        assert_eq!(parsed(&json!({"stop": null, "n": 1})).unwrap().for_model(&role(5, false)), (None, Vec::new()));
    }

    #[test]
    fn a_seed_of_any_size_is_one_of_32_bits() {
        for (seed, fold) in [(7, 7), (i64::from(u32::MAX), u32::MAX), (1 << 32, 1), (-1, 0), (i64::MIN, 0x8000_0000)] {
            assert_eq!(folded(seed), fold);
        }
    }

    #[test]
    fn ids_of_tokens_are_refused_in_words() {
        let refused = parsed(&json!({"logit_bias": {"1234": 5}})).unwrap_err();
        assert!(refused.message.contains("is the id of a token"), "{}", refused.message);
        assert_eq!(parsed(&json!({"stop": [1]})).unwrap_err().message, "`stop[0]` must be a text, and is a number");
        assert_eq!(parsed(&json!({"max_tokens": "9"})).unwrap_err().code, Some("invalid_type"));
        let all = parsed(&json!({"top_k": -1})).unwrap();
        assert_eq!(all.options.top_k, Some(0), "as vLLM's clients say it");
    }
}
