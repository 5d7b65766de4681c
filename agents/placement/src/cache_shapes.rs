//! The KV caches that the planner may give a model, the largest first.

use std::ops::Range;

use artel_model::CacheSize;

use crate::cache::{CacheShape, KV_PADDING_CELLS};
use crate::footprint::ModelFootprint;

/// What the planner may give: first fewer sequences, down to the least, at the whole context, then shorter contexts. Fewer
/// sequences only let fewer steps run at the same time; in a shorter context some steps fail.
#[derive(Debug, Clone)]
pub(crate) struct CacheShapes {
    wanted: CacheShape,
    least: CacheShape,
    allowed: Range<usize>,
}

impl CacheShapes {
    /// Those between what a model wants and `least` that its setting allows; `None` if it allows none.
    pub(crate) fn of(footprint: &ModelFootprint, least: CacheShape) -> Option<Self> {
        let mut shapes = Self::of_any_size(footprint, least);
        if let CacheSize::Tokens(most) = footprint.cache_size {
            // So many are promised: neither more nor less.
            let first = shapes.first(|shape| shape.tokens() <= u64::from(most))?;
            shapes.allowed = first..first + 1;
        }
        Some(shapes)
    }

    /// Those between what a model wants and `least`, whatever its setting allows.
    pub(crate) fn of_any_size(footprint: &ModelFootprint, least: CacheShape) -> Self {
        let wanted = footprint.wanted_cache();
        let least = CacheShape {
            sequences: least.sequences.clamp(1, wanted.sequences.max(1)),
            context_tokens: least.context_tokens.min(wanted.context_tokens),
        };
        let mut shapes = Self { wanted, least, allowed: 0..0 };
        shapes.allowed = 0..shapes.fewer_sequences() + 1 + shapes.shorter_contexts();
        shapes
    }

    /// The largest.
    pub(crate) fn largest(&self) -> CacheShape {
        self.at(self.allowed.start)
    }

    /// The smallest.
    pub(crate) fn smallest(&self) -> CacheShape {
        self.at(self.allowed.end - 1)
    }

    /// The largest that is accepted, if all smaller ones are accepted too.
    pub(crate) fn largest_of(&self, is_accepted: impl Fn(CacheShape) -> bool) -> Option<CacheShape> {
        self.first(is_accepted).map(|index| self.at(index))
    }

    fn first(&self, is_accepted: impl Fn(CacheShape) -> bool) -> Option<usize> {
        let (mut low, mut high) = (self.allowed.start, self.allowed.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_accepted(self.at(middle)) { high = middle } else { low = middle + 1 }
        }
        (low < self.allowed.end).then_some(low)
    }

    fn fewer_sequences(&self) -> usize {
        self.wanted.sequences.saturating_sub(self.least.sequences) as usize
    }

    /// The steps that are shorter than the context and not below the least.
    fn shorter_contexts(&self) -> usize {
        let below = self.wanted.context_tokens.saturating_sub(1) / KV_PADDING_CELLS;
        let least = self.least.context_tokens.max(1).div_ceil(KV_PADDING_CELLS);
        (below + 1).saturating_sub(least) as usize
    }

    fn at(&self, index: usize) -> CacheShape {
        let CacheShape { sequences, context_tokens } = self.wanted;
        match index.checked_sub(self.fewer_sequences() + 1) {
            None => CacheShape { sequences: sequences.saturating_sub(index as u32), context_tokens },
            Some(steps) => {
                let multiple = context_tokens.saturating_sub(1) / KV_PADDING_CELLS - steps as u32;
                CacheShape { sequences: self.least.sequences, context_tokens: multiple * KV_PADDING_CELLS }
            }
        }
    }
}
