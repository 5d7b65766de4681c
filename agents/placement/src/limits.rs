//! How much less than it wants a model may be given.

use crate::cache::CacheShape;
use crate::footprint::{DeviceChoice, ModelFootprint};
use crate::placement::Placement;

/// How much less than it wants a model may be given beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FitLimits {
    /// The smallest cache.
    pub(crate) least_cache: CacheShape,
    /// Whether the planner may leave layers or experts on the CPU of its own accord.
    pub(crate) may_mix: bool,
}

impl FitLimits {
    /// On devices without other models.
    pub(crate) fn alone(footprint: &ModelFootprint) -> Self {
        Self { least_cache: footprint.least_cache(), may_mix: true }
    }

    /// Beside other models, given its placement without them: which steps a model can run must not depend on what else is
    /// loaded, so its context is as long; and it rather has others evicted than run fewer sequences or, if it is pinned, leave
    /// its devices.
    pub(crate) fn beside_others(footprint: &ModelFootprint, alone: &Placement) -> Self {
        let has_all = alone.sequences >= footprint.sequences;
        let sequences = if has_all { footprint.sequences } else { footprint.min_sequences };
        Self {
            least_cache: CacheShape { sequences, context_tokens: alone.context_tokens },
            may_mix: footprint.devices == DeviceChoice::Auto || alone.is_mixed(),
        }
    }
}
