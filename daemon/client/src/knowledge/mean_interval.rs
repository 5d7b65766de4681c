//! A mean with the interval in which it lies for other questions of the same kind.

/// How often the values are drawn anew.
const RESAMPLE_ROUNDS: usize = 2000;
/// The share of the drawn means on each side of the interval.
const TAIL_RATIO: f64 = 0.025;

/// A mean and its 95 % interval, by drawing the values anew (bootstrap, percentiles). Equal values give equal intervals.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct MeanInterval {
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl MeanInterval {
    pub(super) fn of(values: &[f64]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let mean_of = |sum: f64| sum / values.len() as f64;
        let mut random = RandomSequence(0);
        let draw = |_| mean_of((0..values.len()).map(|_| values[random.below(values.len())]).sum());
        let mut means: Vec<f64> = (0..RESAMPLE_ROUNDS).map(draw).collect();
        means.sort_by(f64::total_cmp);
        let at = |ratio: f64| means[((means.len() - 1) as f64 * ratio).round() as usize];
        Self { mean: mean_of(values.iter().sum()), low: at(TAIL_RATIO), high: at(1.0 - TAIL_RATIO) }
    }
}

/// SplitMix64: the same sequence in every run.
struct RandomSequence(u64);

impl RandomSequence {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % limit as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_about_that_of_the_normal_distribution() {
        // A hundred values of 0 and 1: the standard error is 0.05.
        let values: Vec<f64> = (0..100).map(|at| f64::from(at % 2)).collect();
        let MeanInterval { mean, low, high } = MeanInterval::of(&values);
        assert_eq!(mean, 0.5);
        assert!((low - 0.402).abs() < 0.02 && (high - 0.598).abs() < 0.02, "{low} {high}");
        assert_eq!(MeanInterval::of(&[0.25; 4]), MeanInterval { mean: 0.25, low: 0.25, high: 0.25 });
        assert_eq!(MeanInterval::of(&[]), MeanInterval::default());
    }
}
