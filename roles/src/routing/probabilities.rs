//! From the scores of signals to probabilities.

use std::collections::BTreeMap;

use artel_task::event::Signal;

use super::RouterSettings;

/// The scores of one candidate, or of "no match". `rule` is present only if some candidate's rule matches: 1 for those
/// whose rule does.
pub type SignalValues = BTreeMap<Signal, f64>;

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
        let mask: Vec<bool> =
            candidates.iter().chain([no_match]).map(|scores| !any_ruled || is_ruled(scores)).collect();
        let mut probabilities = masked_softmax(&logits, &mask, self.temperature);
        let no_match = probabilities.pop().unwrap_or_default();
        (probabilities, no_match)
    }
}

/// The softmax over the logits that the mask lets through; the others have probability 0.
fn masked_softmax(logits: &[f64], mask: &[bool], temperature: f64) -> Vec<f64> {
    let unmasked = || logits.iter().zip(mask).filter(|(_, mask)| **mask);
    let max = unmasked().map(|(logit, _)| *logit).fold(f64::NEG_INFINITY, f64::max);
    let power = |logit: f64| ((logit - max) / temperature).exp();
    let sum: f64 = unmasked().map(|(logit, _)| power(*logit)).sum();
    let probability = |(logit, mask): (&f64, &bool)| if *mask { power(*logit) / sum } else { 0.0 };
    logits.iter().zip(mask).map(probability).collect()
}
