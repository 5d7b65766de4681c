//! Parses how a client wants an answer to be sampled.

use artel_proto::v1;
use artel_task::event::{DryParams, RequestSampling, SamplingOptions, XtcParams};

use crate::status::Violations;

/// Parses the options and checks their limits; `path` is their field. `None` if nothing is set, or something is wrong.
pub(super) fn parse(given: v1::SamplingOptions, path: &str, violations: &mut Violations) -> Option<RequestSampling> {
    let sampling = request_sampling(given);
    let faults = sampling.faults();
    for fault in &faults {
        violations.add(&format!("{path}.{}", fault.field), &fault.reason);
    }
    (faults.is_empty() && !sampling.is_empty()).then_some(sampling)
}

fn request_sampling(given: v1::SamplingOptions) -> RequestSampling {
    let dry = |dry: v1::DrySampling| DryParams {
        multiplier: dry.multiplier,
        base: dry.base.unwrap_or_else(DryParams::default_base),
        allowed_length: dry.allowed_length.unwrap_or_else(DryParams::default_allowed_length),
        last_n: dry.last_n,
        breakers: if dry.breakers.is_empty() { DryParams::default_breakers() } else { dry.breakers },
    };
    let xtc = |xtc: v1::XtcSampling| XtcParams {
        probability: xtc.probability,
        threshold: xtc.threshold.unwrap_or_else(XtcParams::default_threshold),
    };
    let choice = SamplingOptions {
        temperature: given.temperature,
        top_p: given.top_p,
        top_k: given.top_k,
        min_p: given.min_p,
        typical_p: given.typical_p,
        repeat_penalty: given.repeat_penalty,
        presence_penalty: given.presence_penalty,
        frequency_penalty: given.frequency_penalty,
        penalty_last_n: given.penalty_last_n,
        dry: given.dry.map(dry),
        xtc: given.xtc.map(xtc),
        logit_bias: given.logit_bias.into_iter().collect(),
        seed: given.seed,
        logprobs: given.logprobs,
    };
    RequestSampling { choice, max_tokens: given.max_tokens, stop: given.stop, answers: given.n }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn each_field_beyond_its_limit_is_named_with_the_limit() {
        let given = v1::SamplingOptions {
            temperature: Some(3.0),
            n: Some(9),
            logprobs: Some(21),
            xtc: Some(v1::XtcSampling { probability: 0.5, threshold: Some(0.75) }),
            stop: vec![String::new()],
            ..v1::SamplingOptions::default()
        };
        let mut violations = Violations::default();
        assert_eq!(parse(given, "submit.sampling", &mut violations), None);
        let status = violations.finish().unwrap_err();
        let found = status.get_details_bad_request().unwrap().field_violations;
        let fields: Vec<(&str, &str)> = found.iter().map(|v| (v.field.as_str(), v.description.as_str())).collect();
        let expected = [
            ("submit.sampling.temperature", "is 3, and must be from 0 to 2"),
            ("submit.sampling.logprobs", "is 21, and must be from 0 to 20"),
            ("submit.sampling.xtc.threshold", "is 0.75, and must be from 0 to 0.5"),
            ("submit.sampling.n", "is 9, and must be from 1 to 8"),
            ("submit.sampling.stop[0]", "has 0 characters, and must have 1 to 200"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn nothing_is_the_same_as_no_options() {
        let mut violations = Violations::default();
        assert_eq!(parse(v1::SamplingOptions::default(), "sampling", &mut violations), None);
        let given = v1::SamplingOptions {
            seed: Some(0),
            dry: Some(v1::DrySampling { multiplier: 0.5, ..v1::DrySampling::default() }),
            ..v1::SamplingOptions::default()
        };
        let parsed = parse(given, "sampling", &mut violations).unwrap();
        assert_eq!((parsed.choice.seed, parsed.choice.dry.unwrap().base), (Some(0), 1.75));
        assert!(violations.finish().is_ok());
    }
}
