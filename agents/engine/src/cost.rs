//! What a batch of prompt tokens takes, as measured: one part for the pass over the weights, another for each token.

use std::time::Duration;

/// How much the latest batch counts against all before it.
const LATEST: f64 = 0.1;
/// How sure the seconds per token are beforehand, in tokens²: batches whose lengths differ by less say little about them.
const SURE: f64 = 4.0;
/// The least share of a batch of usual length that is put down to its tokens.
const LEAST: f64 = 0.1;

/// A straight line through the batches of late, by least squares; earlier ones count less and less.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    tokens: f64,
    seconds: f64,
    variance: f64,
    covariance: f64,
    per_token: f64,
}

impl Cost {
    /// Takes in that so many tokens, at least one, took so many seconds.
    pub(crate) fn learn(&mut self, tokens: u32, seconds: f64) {
        let tokens = f64::from(tokens);
        if !self.is_known() {
            *self = Self { tokens, seconds, per_token: seconds / tokens, ..Self::default() };
            return;
        }
        let (longer, later) = (tokens - self.tokens, seconds - self.seconds);
        self.tokens += LATEST * longer;
        self.seconds += LATEST * later;
        self.variance = (1.0 - LATEST) * (self.variance + LATEST * longer * longer);
        self.covariance = (1.0 - LATEST) * (self.covariance + LATEST * longer * later);
        let per_token = (self.covariance + SURE * self.per_token) / (self.variance + SURE);
        self.per_token = per_token.clamp(LEAST * self.usual(), self.usual());
    }

    fn is_known(&self) -> bool {
        self.per_token > 0.0
    }

    /// Seconds of a usual batch for each of its tokens; 0: not known yet.
    pub(crate) fn usual(&self) -> f64 {
        if self.is_known() { self.seconds / self.tokens } else { 0.0 }
    }

    /// Tokens of a batch that takes so long; none before anything is known.
    pub(crate) fn fits(&self, gap: Duration) -> Option<u32> {
        let pass = self.seconds - self.tokens * self.per_token;
        self.is_known().then(|| ((gap.as_secs_f64() - pass) / self.per_token).max(0.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_millis(102);

    fn batch(tokens: u32) -> f64 {
        0.030 + 0.0035 * f64::from(tokens)
    }

    #[test]
    fn the_part_of_a_pass_is_told_from_that_of_a_token() {
        let mut cost = Cost::default();
        assert_eq!((cost.fits(GAP), cost.usual()), (None, 0.0));
        for tokens in [144, 144, 32, 28, 48, 24, 22, 20, 40, 20] {
            cost.learn(tokens, batch(tokens));
        }
        assert_eq!(cost.fits(GAP), Some(20));
        assert!((cost.per_token - 0.0035).abs() < 0.0001, "{cost:?}");
    }

    #[test]
    fn small_batches_do_not_make_the_next_ones_smaller() {
        let mut cost = Cost::default();
        (0..9).for_each(|_| cost.learn(144, batch(144)));
        for _ in 0..200 {
            cost.learn(8, batch(8));
        }
        assert_eq!(cost.fits(GAP), Some(20));
        // Each by what was learned of those before.
        let mut cost = Cost::default();
        cost.learn(8, batch(8));
        let mut lengths = vec![8];
        for _ in 0..200 {
            lengths.push(cost.fits(GAP).unwrap().max(8));
            cost.learn(lengths[lengths.len() - 1], batch(lengths[lengths.len() - 1]));
        }
        assert!(lengths[100..].iter().all(|tokens| (18..=22).contains(tokens)), "{lengths:?}");
    }

    #[test]
    fn a_machine_that_becomes_slower_is_noticed() {
        let mut cost = Cost::default();
        (0..50).for_each(|n| cost.learn(20 + n % 9, batch(20 + n % 9)));
        (0..50).for_each(|n| cost.learn(20 + n % 9, 2.0 * batch(20 + n % 9)));
        let fits = cost.fits(GAP).unwrap();
        assert!((4..=7).contains(&fits), "{fits}");
    }
}
