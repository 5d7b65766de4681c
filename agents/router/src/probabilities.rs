//! From the scores of signals to probabilities.

use artel_task::event::Signal;

use crate::settings::RouterSettings;
use crate::signal_scores::SignalValues;

impl RouterSettings {
    /// The probability of each candidate, and that of "no match"; they add up to 1. A signal without a score is left out
    /// of the sum.
    pub fn probabilities(
        &self,
        used: &[Signal],
        candidates: &[SignalValues],
        no_match: &SignalValues,
    ) -> (Vec<f64>, f64) {
        let (bias, weights) = match used {
            [alone] => {
                let (weight, bias) = self.signals.get(alone).map_or((1.0, 0.0), |weight| weight.alone);
                (bias, vec![(*alone, weight)])
            }
            _ => {
                let weight = |signal: &Signal| (*signal, self.signals.get(signal).map_or(1.0, |weight| weight.weight));
                (self.bias, used.iter().map(weight).collect())
            }
        };
        let logit = |scores: &SignalValues| -> f64 {
            let part = |(signal, weight): &(Signal, f64)| {
                let Some(score) = scores.get(signal) else { return 0.0 };
                let scale = self.signals.get(signal);
                weight * scale.map_or(*score, |scale| (score - scale.mean) / scale.deviation)
            };
            weights.iter().map(part).sum()
        };
        let mut logits: Vec<f64> = candidates.iter().map(logit).collect();
        logits.push(bias + logit(no_match));
        let is_ruled = |scores: &SignalValues| scores.get(&Signal::Rule).is_some_and(|rule| *rule > 0.0);
        let any_ruled = candidates.iter().any(is_ruled);
        if any_ruled {
            let unruled = logits.iter_mut().zip(candidates.iter().chain([no_match])).filter(|(_, of)| !is_ruled(of));
            unruled.for_each(|(logit, _)| *logit = f64::NEG_INFINITY);
        }
        let mut probabilities = softmax(&logits, self.temperature);
        let no_match = probabilities.pop().unwrap_or_default();
        (probabilities, no_match)
    }
}

/// The probabilities of logits; a logit of negative infinity has probability 0.
pub(crate) fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| ((logit - max) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::SignalWeight;

    fn settings() -> RouterSettings {
        let embedding = SignalWeight { weight: 2.0, mean: 0.4, deviation: 0.2, alone: (4.0, 1.0) };
        let keyword = SignalWeight { weight: 1.0, mean: 2.0, deviation: 1.5, alone: (2.0, 3.0) };
        let signals = [(Signal::Embedding, embedding), (Signal::Keyword, keyword)].into();
        RouterSettings { signals, bias: 0.5, temperature: 2.0, background: Vec::new(), label_model: None }
    }

    fn values(values: &[(Signal, f64)]) -> SignalValues {
        values.iter().copied().collect()
    }

    /// The probabilities of these logits.
    fn expected(logits: &[f64], temperature: f64) -> Vec<f64> {
        let powers: Vec<f64> = logits.iter().map(|logit| (logit / temperature).exp()).collect();
        powers.iter().map(|power| power / powers.iter().sum::<f64>()).collect()
    }

    fn assert_near((candidates, no_match): (Vec<f64>, f64), expected: &[f64]) {
        let got: Vec<f64> = candidates.into_iter().chain([no_match]).collect();
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(one, other)| (one - other).abs() < 1e-9), "{got:?} for {expected:?}");
    }

    #[test]
    fn standardised_scores_are_weighed_and_a_missing_one_is_left_out() {
        let candidates =
            [values(&[(Signal::Embedding, 0.8), (Signal::Keyword, 3.5)]), values(&[(Signal::Embedding, 0.4)])];
        let no_match = values(&[(Signal::Embedding, 0.6), (Signal::Keyword, 0.5)]);
        let used = [Signal::Embedding, Signal::Keyword];
        // 2 * 2 + 1 * 1; 2 * 0; 0.5 + 2 * 1 - 1 * 1.
        assert_near(settings().probabilities(&used, &candidates, &no_match), &expected(&[5.0, 0.0, 1.5], 2.0));
    }

    #[test]
    fn a_signal_alone_has_a_weight_and_a_bias_of_its_own() {
        let candidates = [values(&[(Signal::Embedding, 0.6)]), values(&[(Signal::Embedding, 0.4)])];
        let no_match = values(&[(Signal::Embedding, 0.4)]);
        let got = settings().probabilities(&[Signal::Embedding], &candidates, &no_match);
        assert_near(got, &expected(&[4.0, 0.0, 1.0], 2.0));
    }

    #[test]
    fn a_signal_without_settings_counts_as_it_is() {
        let candidates = [values(&[(Signal::Label, 1.5)]), values(&[(Signal::Label, -0.5)])];
        let no_match = values(&[(Signal::Label, 0.0)]);
        let got = settings().probabilities(&[Signal::Label], &candidates, &no_match);
        assert_near(got, &expected(&[1.5, -0.5, 0.0], 2.0));
    }

    #[test]
    fn beside_a_rule_that_matches_the_others_have_no_chance() {
        let candidates = [
            values(&[(Signal::Embedding, 0.9), (Signal::Rule, 0.0)]),
            values(&[(Signal::Embedding, 0.1), (Signal::Rule, 1.0)]),
        ];
        let no_match = values(&[(Signal::Embedding, 0.9), (Signal::Rule, 0.0)]);
        assert_near(settings().probabilities(&[Signal::Embedding], &candidates, &no_match), &[0.0, 1.0, 0.0]);
    }

    proptest! {
        #[test]
        fn for_any_scores_probabilities_add_up_to_one(
            scores in prop::collection::vec((-1e6..1e6f64, -1e6..1e6f64, any::<bool>()), 1..20),
            ruled in any::<bool>(),
        ) {
            let candidate = |(embedding, keyword, rule): &(f64, f64, bool)| {
                let mut scores = values(&[(Signal::Embedding, *embedding), (Signal::Keyword, *keyword)]);
                scores.extend(ruled.then_some((Signal::Rule, f64::from(u8::from(*rule)))));
                scores
            };
            let mut candidates: Vec<SignalValues> = scores.iter().map(candidate).collect();
            let no_match = candidates.pop().unwrap_or_default();
            let used = [Signal::Embedding, Signal::Keyword];
            let (probabilities, no_match) = settings().probabilities(&used, &candidates, &no_match);
            prop_assert!(probabilities.iter().chain([&no_match]).all(|p| (0.0..=1.0).contains(p)));
            let sum = probabilities.iter().sum::<f64>() + no_match;
            prop_assert!((sum - 1.0).abs() < 1e-9, "they add up to {}", sum);
        }
    }
}
