//! Conversions of how tokens are sampled, and of how likely they were.

use artel_engine as engine;
use artel_engine::request::{DryParams, XtcParams};

use super::v1;

pub(super) fn sampling(params: engine::SamplingParams) -> v1::SamplingParams {
    let dry = |dry: DryParams| v1::DryParams {
        multiplier: dry.multiplier,
        base: dry.base,
        allowed_length: dry.allowed_length,
        last_n: dry.last_n,
        breakers: dry.breakers,
    };
    let xtc = |xtc: XtcParams| v1::XtcParams { probability: xtc.probability, threshold: xtc.threshold };
    v1::SamplingParams {
        temperature: params.temperature,
        top_p: params.top_p,
        top_k: params.top_k,
        min_p: params.min_p,
        typical_p: params.typical_p,
        repeat_penalty: params.repeat_penalty,
        presence_penalty: params.presence_penalty,
        frequency_penalty: params.frequency_penalty,
        penalty_last_n: params.penalty_last_n,
        dry: params.dry.map(dry),
        xtc: params.xtc.map(xtc),
        logit_bias: params.logit_bias.into_iter().map(|(text, bias)| v1::LogitBias { text, bias }).collect(),
        seed: params.seed,
    }
}

pub(super) fn sampling_of(wire: v1::SamplingParams) -> engine::SamplingParams {
    let dry = |dry: v1::DryParams| DryParams {
        multiplier: dry.multiplier,
        base: dry.base,
        allowed_length: dry.allowed_length,
        last_n: dry.last_n,
        breakers: dry.breakers,
    };
    let xtc = |xtc: v1::XtcParams| XtcParams { probability: xtc.probability, threshold: xtc.threshold };
    engine::SamplingParams {
        temperature: wire.temperature,
        top_p: wire.top_p,
        top_k: wire.top_k,
        min_p: wire.min_p,
        typical_p: wire.typical_p,
        repeat_penalty: wire.repeat_penalty,
        presence_penalty: wire.presence_penalty,
        frequency_penalty: wire.frequency_penalty,
        penalty_last_n: wire.penalty_last_n,
        dry: wire.dry.map(dry),
        xtc: wire.xtc.map(xtc),
        logit_bias: wire.logit_bias.into_iter().map(|bias| (bias.text, bias.bias)).collect(),
        seed: wire.seed,
    }
}

pub(super) fn logprob(token: engine::TokenLogprob) -> v1::TokenLogprob {
    let top = |top: engine::TopLogprob| v1::TopLogprob { bytes: top.bytes, logprob: top.logprob };
    let engine::TokenLogprob { bytes, logprob, forced, top: all } = token;
    v1::TokenLogprob { bytes, logprob, forced, top: all.into_iter().map(top).collect() }
}

pub(super) fn logprob_of(wire: v1::TokenLogprob) -> engine::TokenLogprob {
    let top = |top: v1::TopLogprob| engine::TopLogprob { bytes: top.bytes, logprob: top.logprob };
    let v1::TokenLogprob { bytes, logprob, forced, top: all } = wire;
    engine::TokenLogprob { bytes, logprob, forced, top: all.into_iter().map(top).collect() }
}

/// As JSON: numbers and texts alone, which always are.
pub(crate) fn sampling_defaults(defaults: &engine::SamplingOptions) -> String {
    serde_json::to_string(defaults).unwrap_or_default()
}

/// Those of a model that states none, where there is nothing to read: both ends are the same binary.
pub(crate) fn sampling_defaults_of(json: &str) -> engine::SamplingOptions {
    serde_json::from_str(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sampled_and_told_survives_both_ways() {
        let params = engine::SamplingParams {
            temperature: 0.25,
            dry: Some(DryParams {
                multiplier: 0.8,
                base: 1.5,
                allowed_length: 3,
                last_n: Some(64),
                breakers: vec!["\n".to_owned()],
            }),
            xtc: Some(XtcParams { probability: 0.5, threshold: 0.25 }),
            typical_p: 0.75,
            presence_penalty: -1.5,
            frequency_penalty: 0.5,
            penalty_last_n: 17,
            logit_bias: vec![("yes".to_owned(), 100.0)],
            seed: Some(9),
            ..engine::SamplingParams::default()
        };
        assert_eq!(sampling_of(sampling(params.clone())), params);
        let top = vec![engine::TopLogprob { bytes: vec![0xff], logprob: -0.5 }];
        let token = engine::TokenLogprob { bytes: b"a".to_vec(), logprob: -1.0, forced: true, top };
        assert_eq!(logprob_of(logprob(token.clone())), token);
        let defaults = engine::SamplingOptions { top_k: Some(20), ..engine::SamplingOptions::default() };
        assert_eq!(sampling_defaults_of(&sampling_defaults(&defaults)), defaults);
    }
}
