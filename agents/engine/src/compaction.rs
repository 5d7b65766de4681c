//! When it pays to move a decoding sequence beside the others, so that they share passes over the weights.

use std::collections::HashMap;
use std::time::Duration;

use crate::backend::AdapterSet;

/// So many batches in a row must have taken more than one pass: a gap is usually filled by the next sequence.
const MIN_FRAGMENTED_BATCHES: u32 = 4;
/// A move must take no longer than so many passes.
const MAX_MOVE_COST_FACTOR: f64 = 4.0;
/// Cells of the first move at most, whose cost is not known yet: those of two slots, of a thousand tokens each.
const MAX_FIRST_MOVE_CELLS: u32 = 2048;
/// Lowers the estimated cost of a move each time that it was too high: the last move may have been slow for another reason.
const MOVE_COST_DECAY_FACTOR: f64 = 0.98;

/// What is known of the passes of decoding sequences, and of the cost of a move.
#[derive(Debug, Default)]
pub(crate) struct CompactionPolicy {
    fragmentation: HashMap<AdapterSet, Fragmentation>,
    /// Seconds per cell of the last move.
    move_seconds_per_cell: Option<f64>,
}

/// The recent fragmentation of the decoding slots of sequences with the same adapters.
#[derive(Debug, Clone, Copy, Default)]
struct Fragmentation {
    batches: u32,
    /// The time of one pass in the last batch.
    pass_time: Duration,
}

impl CompactionPolicy {
    /// Records how many passes over the weights the decoding sequences with these adapters took. Returns the time of one if there
    /// have been too many for some batches, so that one of the sequences should move.
    pub(crate) fn observe_batch(&mut self, adapters: AdapterSet, passes: usize, took: Duration) -> Option<Duration> {
        if passes < 2 {
            self.fragmentation.remove(&adapters);
            return None;
        }
        let seen = self.fragmentation.entry(adapters).or_default();
        *seen = Fragmentation { batches: seen.batches + 1, pass_time: took / passes as u32 };
        if seen.batches < MIN_FRAGMENTED_BATCHES {
            return None;
        }
        self.fragmentation.remove(&adapters).map(|seen| seen.pass_time)
    }

    /// Whether a move of so many cells pays, where one pass takes this time.
    pub(crate) fn pays(&mut self, cells: u32, pass_time: Duration) -> bool {
        let limit = MAX_MOVE_COST_FACTOR * pass_time.as_secs_f64();
        let is_cheap = |per_cell: f64| f64::from(cells) * per_cell <= limit;
        let pays = self.move_seconds_per_cell.map_or(cells <= MAX_FIRST_MOVE_CELLS, is_cheap);
        if !pays {
            self.move_seconds_per_cell = self.move_seconds_per_cell.map(|per_cell| MOVE_COST_DECAY_FACTOR * per_cell);
        }
        pays
    }

    /// Records the time of a move.
    pub(crate) fn observe_move(&mut self, cells: u32, took: Duration) {
        self.move_seconds_per_cell = Some(took.as_secs_f64() / f64::from(cells.max(1)));
    }

    /// No move pays any more, because the model cannot move cells.
    pub(crate) fn disable(&mut self) {
        self.move_seconds_per_cell = Some(f64::INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_due_after_some_fragmented_batches_in_a_row() {
        let (mut policy, pass_time) = (CompactionPolicy::default(), Duration::from_millis(10));
        let mut seen = |passes: u32| policy.observe_batch(AdapterSet::NONE, passes as usize, pass_time * passes);
        assert_eq!([seen(2), seen(2), seen(2), seen(1)], [None; 4]);
        assert_eq!([seen(3), seen(2), seen(2), seen(2)], [None, None, None, Some(pass_time)]);
        assert_eq!(seen(2), None, "it is counted anew");
    }

    #[test]
    fn a_move_pays_if_it_is_short_or_cost_little_the_last_time() {
        let mut policy = CompactionPolicy::default();
        let pays = |policy: &mut CompactionPolicy, cells| policy.pays(cells, Duration::from_millis(10));
        assert!(pays(&mut policy, MAX_FIRST_MOVE_CELLS) && !pays(&mut policy, MAX_FIRST_MOVE_CELLS + 1));
        policy.observe_move(100, Duration::from_millis(50));
        assert!(pays(&mut policy, 70) && !pays(&mut policy, 100));
        assert!((0..100).any(|_| pays(&mut policy, 100)), "the last move may have been slow for another reason");
        policy.disable();
        assert!((0..100).all(|_| !pays(&mut policy, 1)));
    }
}
