//! What signals say, gathered: [`artel_roles::RouterSettings::probabilities`] weighs it.

use artel_roles::routing::SignalValues;
use artel_task::event::Signal;

/// What signals say of each candidate, and of nobody.
pub(super) struct Said {
    pub(super) candidates: Vec<SignalValues>,
    pub(super) nobody: SignalValues,
}

impl Said {
    pub(super) fn of(candidates: usize) -> Self {
        Self { candidates: vec![SignalValues::new(); candidates], nobody: SignalValues::new() }
    }

    pub(super) fn add(&mut self, signal: Signal, candidates: Vec<f64>, nobody: f64) {
        let plain = |number: f64| if number.is_finite() { number } else { 0.0 };
        for (numbers, number) in self.candidates.iter_mut().zip(candidates) {
            numbers.insert(signal, plain(number));
        }
        self.nobody.insert(signal, plain(nobody));
    }

    /// Notes whose rules hold; nothing if nobody's does.
    pub(super) fn claim(&mut self, claims: Vec<bool>) {
        if claims.contains(&true) {
            let claims = claims.into_iter().map(|claims| if claims { 1.0 } else { 0.0 }).collect();
            self.add(Signal::Rule, claims, 0.0);
        }
    }

    /// How many candidates have a rule that holds.
    pub(super) fn claimed(&self) -> usize {
        self.candidates.iter().filter(|numbers| numbers.get(&Signal::Rule).is_some_and(|rule| *rule > 0.0)).count()
    }
}
