//! Histograms: one that is shared, without a lock, and one for a single task's own use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The most bounds that a histogram has: a [`LocalHistogram`] has its counts in place.
const MAX_BOUND_VALUES: usize = 16;

/// A histogram. Clones are the same one. To observe costs two atomic additions.
#[derive(Debug, Clone)]
pub struct AtomicHistogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One more than bounds: the last is for what is beyond all of them.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl AtomicHistogram {
    /// A histogram with these upper bounds, in ascending order.
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() <= MAX_BOUND_VALUES && bounds.is_sorted(), "these are constants of this crate");
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { bounds, counts, sum: AtomicU64::new(0) }))
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        self.0.counts[bucket(self.0.bounds, value)].fetch_add(1, Ordering::Relaxed);
        self.add_sum(value);
    }

    /// Counts a time, in seconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// A histogram to fill by one task alone. It is added to this one when it is dropped.
    pub fn local(&self) -> LocalHistogram {
        LocalHistogram { shared: self.clone(), counts: [0; MAX_BOUND_VALUES + 1], sum: 0.0 }
    }

    fn add_sum(&self, value: f64) {
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // It always gives a new value, so that this does not fail.
        let _ = self.0.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// The bucket of a value.
fn bucket(bounds: &[f64], value: f64) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

/// Values of one task, such as the gaps between the tokens of a step. To observe costs two additions and touches no memory that
/// others write.
#[derive(Debug)]
pub struct LocalHistogram {
    shared: AtomicHistogram,
    counts: [u32; MAX_BOUND_VALUES + 1],
    sum: f64,
}

impl LocalHistogram {
    /// Counts a time, in seconds.
    pub fn observe_time(&mut self, time: Duration) {
        let value = time.as_secs_f64();
        let count = &mut self.counts[bucket(self.shared.0.bounds, value)];
        *count = count.saturating_add(1);
        self.sum += value;
    }
}

impl Drop for LocalHistogram {
    fn drop(&mut self) {
        for (shared, count) in self.shared.0.counts.iter().zip(self.counts).filter(|(_, count)| *count > 0) {
            shared.fetch_add(u64::from(count), Ordering::Relaxed);
        }
        self.shared.add_sum(self.sum);
    }
}

impl TypedMetric for AtomicHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for AtomicHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        // Of the same reading as the buckets, which must add up to it.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = f64::from_bits(self.0.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[0.1, 1.0];

    fn counts(histogram: &AtomicHistogram) -> Vec<u64> {
        histogram.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    fn sum(histogram: &AtomicHistogram) -> f64 {
        f64::from_bits(histogram.0.sum.load(Ordering::Relaxed))
    }

    #[test]
    fn a_value_counts_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = AtomicHistogram::new(BOUNDS);
        for value in [0.05, 0.1, 0.5, 1.0, 7.0] {
            histogram.observe(value);
        }
        assert_eq!(counts(&histogram), [2, 2, 1]);
        assert!((sum(&histogram) - 8.65).abs() < 1e-9, "{}", sum(&histogram));
    }

    #[test]
    fn a_local_histogram_counts_when_it_is_dropped() {
        let histogram = AtomicHistogram::new(BOUNDS);
        let mut local = histogram.local();
        local.observe_time(Duration::from_millis(250));
        local.observe_time(Duration::from_millis(250));
        assert_eq!(counts(&histogram), [0, 0, 0]);
        drop(local);
        assert_eq!((counts(&histogram), sum(&histogram)), (vec![0, 2, 0], 0.5));
    }
}
