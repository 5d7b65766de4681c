//! The scores of all signals, which [`artel_roles::RouterSettings::probabilities`] weighs.

use artel_roles::routing::SignalValues;
use artel_task::event::Signal;

/// The scores of each candidate and of "no match", by signal.
pub(super) struct SignalScores {
    pub(super) candidates: Vec<SignalValues>,
    pub(super) no_match: SignalValues,
}

impl SignalScores {
    pub(super) fn new(candidates: usize) -> Self {
        Self { candidates: vec![SignalValues::new(); candidates], no_match: SignalValues::new() }
    }

    /// Inserts a signal's scores; those that are not finite count as 0.
    pub(super) fn insert(&mut self, signal: Signal, candidates: Vec<f64>, no_match: f64) {
        let finite = |score: f64| if score.is_finite() { score } else { 0.0 };
        for (scores, score) in self.candidates.iter_mut().zip(candidates) {
            scores.insert(signal, finite(score));
        }
        self.no_match.insert(signal, finite(no_match));
    }

    /// Inserts which candidates' rules match; nothing if none does.
    pub(super) fn insert_rules(&mut self, matches: Vec<bool>) {
        if matches.contains(&true) {
            let scores = matches.into_iter().map(|matches| if matches { 1.0 } else { 0.0 }).collect();
            self.insert(Signal::Rule, scores, 0.0);
        }
    }

    /// How many candidates have a rule that matches.
    pub(super) fn matched_rules(&self) -> usize {
        self.candidates.iter().filter(|scores| scores.get(&Signal::Rule).is_some_and(|rule| *rule > 0.0)).count()
    }
}
