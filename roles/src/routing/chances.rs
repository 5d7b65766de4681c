//! From what signals say to chances.

use std::collections::BTreeMap;

use artel_task::event::Signal;

use super::Routing;

/// What signals say of one candidate, or of nobody. `rule` is there only if somebody's rule holds: 1 for those whose does.
pub type Numbers = BTreeMap<Signal, f64>;

impl Routing {
    /// The chance of each candidate, and that of nobody; together they are 1. Signals that were asked and said nothing are
    /// left out of the sum.
    pub fn chances(&self, asked: &[Signal], candidates: &[Numbers], nobody: &Numbers) -> (Vec<f64>, f64) {
        let (bias, weights) = match asked {
            [alone] => {
                let (weight, bias) = self.signals.get(alone).map_or((1.0, 0.0), |weight| weight.alone);
                (bias, vec![(*alone, weight)])
            }
            _ => {
                let weight = |signal: &Signal| (*signal, self.signals.get(signal).map_or(1.0, |weight| weight.weight));
                (self.bias, asked.iter().map(weight).collect())
            }
        };
        let logit = |numbers: &Numbers| -> f64 {
            let part = |(signal, weight): &(Signal, f64)| {
                let Some(number) = numbers.get(signal) else { return 0.0 };
                let scale = self.signals.get(signal);
                weight * scale.map_or(*number, |scale| (number - scale.mean) / scale.deviation)
            };
            weights.iter().map(part).sum()
        };
        let mut logits: Vec<f64> = candidates.iter().map(logit).collect();
        logits.push(bias + logit(nobody));
        let holds = |numbers: &Numbers| numbers.get(&Signal::Rule).is_some_and(|rule| *rule > 0.0);
        let rules = candidates.iter().any(holds);
        let may: Vec<bool> = candidates.iter().chain([nobody]).map(|numbers| !rules || holds(numbers)).collect();
        let mut chances = softmax(&logits, &may, self.temperature);
        let nobody = chances.pop().unwrap_or_default();
        (chances, nobody)
    }
}

/// Probabilities of those who may win; the others have none.
fn softmax(logits: &[f64], may: &[bool], temperature: f64) -> Vec<f64> {
    let open = || logits.iter().zip(may).filter(|(_, may)| **may);
    let most = open().map(|(logit, _)| *logit).fold(f64::NEG_INFINITY, f64::max);
    let power = |logit: f64| ((logit - most) / temperature).exp();
    let sum: f64 = open().map(|(logit, _)| power(*logit)).sum();
    let chance = |(logit, may): (&f64, &bool)| if *may { power(*logit) / sum } else { 0.0 };
    logits.iter().zip(may).map(chance).collect()
}
