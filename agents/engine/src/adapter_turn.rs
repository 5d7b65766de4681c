//! Whose turn it is: a batch has one set of adapters, and a change to another costs time.

use std::collections::HashMap;
use std::time::Duration;

use crate::backend::AdapterSet;

/// A turn lasts for so many times of what a change takes, so that changes take about a fifteenth of the time unless turns are cut
/// short.
const MIN_TURN_FACTOR: f64 = 14.0;
/// The weight of the latest change against all before it.
const NEW_SAMPLE_RATIO: f64 = 0.2;

/// The adapters of the last batch, and for how long they have had their turn.
#[derive(Debug, Default)]
pub(crate) struct AdapterTurn {
    adapters: AdapterSet,
    batches: u64,
    /// The number of the last batch of each set.
    last_batches: HashMap<AdapterSet, u64>,
    /// Time that was computed since the change.
    spent: Duration,
    /// How long a change takes; zero until one was measured.
    switch_time: Duration,
}

impl AdapterTurn {
    /// The adapters of the last batch.
    pub(crate) fn adapters(&self) -> AdapterSet {
        self.adapters
    }

    /// The number of the last batch of a set, 0 before its first.
    pub(crate) fn last_batch(&self, adapters: AdapterSet) -> u64 {
        self.last_batches.get(&adapters).copied().unwrap_or(0)
    }

    /// Whether the turn may go on while so many sets want one: for its part of this gap at most. Without a cost, turns change with
    /// each batch.
    pub(crate) fn may_stay(&self, sets: usize, gap: Duration) -> bool {
        let others = u32::try_from(sets.saturating_sub(1)).unwrap_or(u32::MAX);
        let Some(share) = gap.checked_div(others) else { return true };
        self.spent < self.switch_time.mul_f64(MIN_TURN_FACTOR).min(share)
    }

    /// Records a batch, and the change that it began with, if that was measured.
    pub(crate) fn record(&mut self, adapters: AdapterSet, took: Duration, switch_time: Option<Duration>) {
        if adapters != self.adapters {
            (self.adapters, self.spent) = (adapters, Duration::ZERO);
        }
        self.spent += took;
        self.batches += 1;
        self.last_batches.insert(adapters, self.batches);
        let Some(latest) = switch_time else { return };
        self.switch_time = if self.switch_time.is_zero() {
            latest
        } else {
            self.switch_time.mul_f64(1.0 - NEW_SAMPLE_RATIO) + latest.mul_f64(NEW_SAMPLE_RATIO)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET_ITL: Duration = Duration::from_millis(100);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_turn_lasts_while_changes_would_take_too_much_of_the_time() {
        let (mut turn, set) = (AdapterTurn::default(), AdapterSet);
        assert!(turn.may_stay(1, TARGET_ITL) && !turn.may_stay(2, TARGET_ITL), "no cost is known yet");
        turn.record(set(1), millis(10), Some(millis(5)));
        assert!(turn.may_stay(2, TARGET_ITL));
        turn.record(set(1), millis(59), None);
        assert!(turn.may_stay(2, TARGET_ITL));
        turn.record(set(1), millis(2), None);
        assert!(!turn.may_stay(2, TARGET_ITL) && turn.may_stay(1, TARGET_ITL));
        turn.record(set(2), millis(1), None);
        assert_eq!((turn.may_stay(2, TARGET_ITL), turn.adapters()), (true, set(2)));
        assert_eq!([1, 2, 3].map(|number| turn.last_batch(set(number))), [3, 4, 0]);
    }

    #[test]
    fn a_turn_ends_after_its_part_of_the_gap() {
        let mut turn = AdapterTurn::default();
        turn.record(AdapterSet(1), millis(20), Some(millis(50)));
        assert!(turn.may_stay(5, TARGET_ITL) && !turn.may_stay(6, TARGET_ITL));
    }
}
