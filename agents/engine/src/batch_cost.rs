//! A fitted model of the latency of a batch of prompt tokens: one part for the pass over the weights, another per token.

use std::time::Duration;

/// The weight of the latest batch against all before it.
const NEW_SAMPLE_RATIO: f64 = 0.1;
/// The weight of the previous seconds per token in the fit, in tokens²: batches whose lengths differ by less say little about it.
const PRIOR_WEIGHT_TOKENS_SQUARED: f64 = 4.0;
/// The least share of the latency of a mean batch that is attributed to its tokens.
const MIN_PER_TOKEN_RATIO: f64 = 0.1;

/// A straight line through recent batches, by least squares; earlier ones count less and less.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BatchCost {
    /// Tokens of a mean batch.
    tokens: f64,
    /// Seconds of a mean batch.
    seconds: f64,
    variance: f64,
    covariance: f64,
    /// The slope of the line.
    per_token: f64,
}

impl BatchCost {
    /// Adds a batch of so many tokens, at least one, that took so many seconds.
    pub(crate) fn observe(&mut self, tokens: u32, seconds: f64) {
        let tokens = f64::from(tokens);
        if !self.is_known() {
            *self = Self { tokens, seconds, per_token: seconds / tokens, ..Self::default() };
            return;
        }
        let (token_diff, second_diff) = (tokens - self.tokens, seconds - self.seconds);
        self.tokens += NEW_SAMPLE_RATIO * token_diff;
        self.seconds += NEW_SAMPLE_RATIO * second_diff;
        self.variance = (1.0 - NEW_SAMPLE_RATIO) * (self.variance + NEW_SAMPLE_RATIO * token_diff * token_diff);
        self.covariance = (1.0 - NEW_SAMPLE_RATIO) * (self.covariance + NEW_SAMPLE_RATIO * token_diff * second_diff);
        let per_token = (self.covariance + PRIOR_WEIGHT_TOKENS_SQUARED * self.per_token)
            / (self.variance + PRIOR_WEIGHT_TOKENS_SQUARED);
        self.per_token = per_token.clamp(MIN_PER_TOKEN_RATIO * self.mean_per_token(), self.mean_per_token());
    }

    fn is_known(&self) -> bool {
        self.per_token > 0.0
    }

    /// Seconds of a mean batch divided by its tokens; 0 before the first batch.
    pub(crate) fn mean_per_token(&self) -> f64 {
        if self.is_known() { self.seconds / self.tokens } else { 0.0 }
    }

    /// How long a batch of so many tokens is expected to take; unknown before the first batch.
    pub(crate) fn expected(&self, tokens: u32) -> Option<Duration> {
        let seconds = self.seconds + (f64::from(tokens) - self.tokens) * self.per_token;
        self.is_known().then(|| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    }

    /// Tokens of a batch that takes this long; none before the first batch.
    pub(crate) fn tokens_within(&self, latency: Duration) -> Option<u32> {
        let pass = self.seconds - self.tokens * self.per_token;
        self.is_known().then(|| ((latency.as_secs_f64() - pass) / self.per_token).max(0.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET_LATENCY: Duration = Duration::from_millis(102);

    fn batch(tokens: u32) -> f64 {
        0.030 + 0.0035 * f64::from(tokens)
    }

    #[test]
    fn the_cost_of_a_pass_is_separated_from_that_of_a_token() {
        let mut cost = BatchCost::default();
        assert_eq!((cost.tokens_within(TARGET_LATENCY), cost.mean_per_token()), (None, 0.0));
        for tokens in [144, 144, 32, 28, 48, 24, 22, 20, 40, 20] {
            cost.observe(tokens, batch(tokens));
        }
        assert_eq!(cost.tokens_within(TARGET_LATENCY), Some(20));
        assert!((cost.per_token - 0.0035).abs() < 0.0001, "{cost:?}");
        assert_eq!(BatchCost::default().expected(20), None);
        let expected = cost.expected(500).unwrap().as_secs_f64();
        assert!((expected / batch(500) - 1.0).abs() < 0.05, "{expected}");
    }

    #[test]
    fn small_batches_do_not_make_the_next_ones_smaller() {
        let mut cost = BatchCost::default();
        (0..9).for_each(|_| cost.observe(144, batch(144)));
        for _ in 0..200 {
            cost.observe(8, batch(8));
        }
        assert_eq!(cost.tokens_within(TARGET_LATENCY), Some(20));
        // Each length follows from the batches before it.
        let mut cost = BatchCost::default();
        cost.observe(8, batch(8));
        let mut lengths = vec![8];
        for _ in 0..200 {
            lengths.push(cost.tokens_within(TARGET_LATENCY).unwrap().max(8));
            cost.observe(lengths[lengths.len() - 1], batch(lengths[lengths.len() - 1]));
        }
        assert!(lengths[100..].iter().all(|tokens| (18..=22).contains(tokens)), "{lengths:?}");
    }

    #[test]
    fn a_machine_that_becomes_slower_is_noticed() {
        let mut cost = BatchCost::default();
        (0..50).for_each(|n| cost.observe(20 + n % 9, batch(20 + n % 9)));
        (0..50).for_each(|n| cost.observe(20 + n % 9, 2.0 * batch(20 + n % 9)));
        let tokens = cost.tokens_within(TARGET_LATENCY).unwrap();
        assert!((4..=7).contains(&tokens), "{tokens}");
    }
}
