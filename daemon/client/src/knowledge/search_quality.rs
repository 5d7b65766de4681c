//! The figures of an evaluation.

use super::mean_interval::MeanInterval;

/// What one way to search found.
pub(crate) struct SearchQuality {
    /// The questions; empty: all of them.
    pub(crate) subset: String,
    pub(crate) questions: usize,
    pub(crate) mode: &'static str,
    pub(crate) ndcg: MeanInterval,
    pub(crate) recall: MeanInterval,
}

/// By how much both ways together are better than the better one of them.
pub(crate) struct HybridGain {
    /// The questions; empty: all of them.
    pub(crate) subset: String,
    /// The better one of the others.
    pub(crate) other: &'static str,
    pub(crate) ndcg: MeanInterval,
}
