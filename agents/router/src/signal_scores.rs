//! The scores of all signals, which [`RouterSettings::probabilities`](crate::RouterSettings::probabilities) weighs.

use std::collections::BTreeMap;

use artel_task::event::Signal;

/// The scores of one candidate, or of "no match". `rule` is present only if some candidate's rule matches: 1 for those
/// whose rule does.
pub type SignalValues = BTreeMap<Signal, f64>;

/// The scores of each candidate and of "no match", by signal.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalScores {
    /// By candidate.
    pub candidates: Vec<SignalValues>,
    /// Those of "no match".
    pub no_match: SignalValues,
}

impl SignalScores {
    /// No score yet, for so many candidates.
    pub fn new(candidates: usize) -> Self {
        Self { candidates: vec![SignalValues::new(); candidates], no_match: SignalValues::new() }
    }

    /// Inserts a signal's scores; those that are not finite count as 0.
    pub fn insert(&mut self, signal: Signal, candidates: &[f64], no_match: f64) {
        let finite = |score: f64| if score.is_finite() { score } else { 0.0 };
        for (scores, score) in self.candidates.iter_mut().zip(candidates) {
            scores.insert(signal, finite(*score));
        }
        self.no_match.insert(signal, finite(no_match));
    }

    /// Inserts which candidates' rules match; nothing if none does.
    pub fn insert_rules(&mut self, matches: &[bool]) {
        if matches.contains(&true) {
            let scores: Vec<f64> = matches.iter().map(|matches| if *matches { 1.0 } else { 0.0 }).collect();
            self.insert(Signal::Rule, &scores, 0.0);
        }
    }

    /// How many candidates have a rule that matches.
    pub(crate) fn matched_rules(&self) -> usize {
        self.candidates.iter().filter(|scores| scores.get(&Signal::Rule).is_some_and(|rule| *rule > 0.0)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_are_not_finite_count_as_zero() {
        let mut scores = SignalScores::new(2);
        scores.insert(Signal::Linear, &[f64::NAN, 0.5], f64::INFINITY);
        let linear = |score| BTreeMap::from([(Signal::Linear, score)]);
        assert_eq!((scores.candidates, scores.no_match), (vec![linear(0.0), linear(0.5)], linear(0.0)));
    }

    #[test]
    fn rules_are_a_signal_only_if_one_matches() {
        let mut scores = SignalScores::new(2);
        scores.insert_rules(&[false, false]);
        assert_eq!((scores.matched_rules(), &scores), (0, &SignalScores::new(2)));
        scores.insert_rules(&[false, true]);
        assert_eq!(scores.matched_rules(), 1);
        assert_eq!(scores.candidates[0], BTreeMap::from([(Signal::Rule, 0.0)]));
    }
}
