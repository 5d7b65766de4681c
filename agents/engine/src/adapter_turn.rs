//! Whose turn it is: a batch has one set of adapters, and a change to another costs time.

use std::collections::HashMap;
use std::time::Duration;

use crate::backend::AdapterSet;
use crate::schedule::{self, LastTurn, SequenceView, SetHistory};

/// A turn lasts for so many times of what a change takes, so that changes take about a nineteenth of the time unless turns are cut
/// short.
const MIN_TURN_FACTOR: f64 = 18.0;
/// Where no prompt waits, the turns of others may take so many times the target inter-token latency between two turns of a set: with
/// turns half as long, changes took a tenth of the time of four adapters.
const MAX_ROUND_FACTOR: u32 = 2;
/// Streams come next once prompts have taken so much of their target inter-token latency: short prompts of several sets are computed
/// one after the other, a longer one alone.
const MAX_HOLD_UP_FACTOR: f64 = 0.5;
/// The weight of the latest change against all before it.
const NEW_SAMPLE_RATIO: f64 = 0.2;

/// The adapters of the last batch, and for how long they have had their turn.
#[derive(Debug, Default)]
pub(crate) struct AdapterTurn {
    adapters: AdapterSet,
    batches: u64,
    sets: HashMap<AdapterSet, SetTimes>,
    /// Time that batches of prompts took, with any adapters.
    prefill_time: Duration,
    /// Time that was computed since the change.
    spent: Duration,
    /// How long a change takes; zero until one was measured.
    switch_time: Duration,
}

/// When a set was computed.
#[derive(Debug, Clone, Copy, Default)]
struct SetTimes {
    /// The number of its last batch.
    last_batch: u64,
    /// The number of its last batch of prompts.
    last_prefill: u64,
    /// The time of all prompts until its last tokens of output.
    prefill_time: Duration,
}

impl AdapterTurn {
    /// What a set was given before, where streams have this target inter-token latency.
    pub(crate) fn history(&self, adapters: AdapterSet, target_itl: Duration) -> SetHistory {
        let set = self.sets.get(&adapters).copied().unwrap_or_default();
        let hold_up = self.prefill_time.saturating_sub(set.prefill_time);
        let is_held_up = hold_up >= target_itl.mul_f64(MAX_HOLD_UP_FACTOR);
        SetHistory { last_batch: set.last_batch, last_prefill: set.last_prefill, is_held_up }
    }

    /// The turn as the schedule sees it, while these sequences want one and streams have this target inter-token latency.
    pub(crate) fn last_turn(&self, sequences: &[SequenceView], target_itl: Duration) -> LastTurn {
        let round = if schedule::has_prompts(sequences) { target_itl } else { target_itl * MAX_ROUND_FACTOR };
        LastTurn { adapters: self.adapters, may_stay: self.may_stay(schedule::ready_sets(sequences), round) }
    }

    /// Whether the turn may go on while so many sets want one, of which the others take this long together: for its part of that
    /// at most. Without a cost, turns change with each batch.
    fn may_stay(&self, sets: usize, round: Duration) -> bool {
        let others = u32::try_from(sets.saturating_sub(1)).unwrap_or(u32::MAX);
        let Some(share) = round.checked_div(others) else { return true };
        self.spent < self.switch_time.mul_f64(MIN_TURN_FACTOR).min(share)
    }

    /// Records a batch of prompts or of output, and the change that it began with, if that was measured.
    pub(crate) fn record(
        &mut self,
        adapters: AdapterSet,
        is_prefill: bool,
        took: Duration,
        switch_time: Option<Duration>,
    ) {
        if adapters != self.adapters {
            (self.adapters, self.spent) = (adapters, Duration::ZERO);
        }
        self.spent += took;
        self.batches += 1;
        let set = self.sets.entry(adapters).or_default();
        set.last_batch = self.batches;
        if is_prefill {
            set.last_prefill = self.batches;
            self.prefill_time += took;
        } else {
            set.prefill_time = self.prefill_time;
        }
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::backend::Slot;
    use crate::request::Priority;
    use crate::schedule::{BatchBudget, BatchShare};

    const TARGET_ITL: Duration = Duration::from_millis(100);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_turn_lasts_while_changes_would_take_too_much_of_the_time() {
        let (mut turn, set) = (AdapterTurn::default(), AdapterSet);
        assert!(turn.may_stay(1, TARGET_ITL) && !turn.may_stay(2, TARGET_ITL), "no cost is known yet");
        turn.record(set(1), false, millis(10), Some(millis(5)));
        assert!(turn.may_stay(2, TARGET_ITL));
        turn.record(set(1), false, millis(79), None);
        assert!(turn.may_stay(2, TARGET_ITL));
        turn.record(set(1), false, millis(2), None);
        assert!(!turn.may_stay(2, TARGET_ITL) && turn.may_stay(1, TARGET_ITL));
        turn.record(set(2), true, millis(49), None);
        assert_eq!((turn.may_stay(2, TARGET_ITL), turn.adapters), (true, set(2)));
        let history = |turn: &AdapterTurn, number| {
            let SetHistory { last_batch, last_prefill, is_held_up } = turn.history(set(number), TARGET_ITL);
            (last_batch, last_prefill, is_held_up)
        };
        assert_eq!([1, 2, 3].map(|number| history(&turn, number)), [(3, 0, false), (4, 4, false), (0, 0, false)]);
        turn.record(set(2), true, millis(1), None);
        assert_eq!([1, 2].map(|number| history(&turn, number)), [(3, 0, true), (5, 5, true)]);
        turn.record(set(2), false, millis(1), None);
        assert_eq!([1, 2].map(|number| history(&turn, number)), [(3, 0, true), (6, 5, false)]);
    }

    #[test]
    fn a_turn_ends_after_its_part_of_a_round_which_is_shorter_where_prompts_wait() {
        let mut turn = AdapterTurn::default();
        turn.record(AdapterSet(1), false, millis(20), Some(millis(50)));
        let may_stay = |sets, prefill_tokens| {
            let views: Vec<_> =
                (0..sets).map(|set| view(set, set, if set == 1 { prefill_tokens } else { 0 })).collect();
            turn.last_turn(&views, TARGET_ITL).may_stay
        };
        assert!(may_stay(5, 100) && !may_stay(6, 100));
        assert!(may_stay(10, 0) && !may_stay(11, 0));
        assert!(may_stay(10, 1), "one token is computed as fast as one of output");
    }

    fn view(slot: u32, adapters: u32, prefill_tokens: u32) -> SequenceView {
        SequenceView {
            slot: Slot(slot),
            adapters: AdapterSet(adapters),
            history: SetHistory::default(),
            priority: Priority::Interactive,
            served_tokens: 0,
            arrival: u64::from(slot),
            prefill_tokens,
            output_tokens: 1,
            draft_tokens: 0,
            is_blocked: false,
        }
    }

    /// Computes batches that take 10 ms and 1 ms for each token, and 10 ms more after a change of adapters. Returns the longest time
    /// between two tokens of a stream, in milliseconds, and the least and most tokens that a set with prompts was served, which come
    /// without end.
    fn longest_gap(mut views: Vec<SequenceView>) -> (u128, u64, u64) {
        let (mut turn, mut now, mut last_tokens) = (AdapterTurn::default(), Duration::ZERO, HashMap::new());
        let (mut longest, mut served) = (Duration::ZERO, BTreeMap::new());
        for view in views.iter().filter(|view| view.prefill_tokens > 0) {
            served.insert(view.adapters, 0);
        }
        while now < millis(60_000) {
            views.iter_mut().for_each(|view| view.history = turn.history(view.adapters, TARGET_ITL));
            let fitting = (100.0 * schedule::itl_factor(&views)) as u32 - 10;
            let budget = BatchBudget { batch_tokens: 512, chunk_tokens: schedule::chunk_tokens(Some(fitting), 1) };
            let last = turn.last_turn(&views, TARGET_ITL);
            let (adapters, shares) = schedule::next_batch(&views, budget, last).unwrap();
            let decodes = |share: &BatchShare| views[share.slot.0 as usize].prefill_tokens == 0;
            let (decoding, prompts): (Vec<_>, Vec<_>) = shares.into_iter().partition(decodes);
            let batches = [(false, &decoding), (true, &prompts)];
            for (is_prefill, shares) in batches.into_iter().filter(|(_, shares)| !shares.is_empty()) {
                let switch = (turn.adapters != adapters || now.is_zero()).then_some(millis(10));
                let tokens = shares.iter().map(|share| u64::from(share.tokens)).sum::<u64>();
                let took = millis(10 + tokens) + switch.unwrap_or_default();
                now += took;
                turn.record(adapters, is_prefill, took, switch);
            }
            for share in &decoding {
                longest = longest.max(now - last_tokens.insert(share.slot, now).unwrap_or_default());
            }
            for share in &prompts {
                let view = &mut views[share.slot.0 as usize];
                view.served_tokens += u64::from(share.tokens);
                *served.entry(adapters).or_default() += u64::from(share.tokens);
                view.prefill_tokens -= share.tokens;
                if view.prefill_tokens == 0 {
                    view.prefill_tokens = 2000;
                }
            }
        }
        let least = served.values().min().copied().unwrap_or_default();
        (longest.as_millis(), least, served.values().max().copied().unwrap_or_default())
    }

    #[test]
    fn a_stream_waits_for_the_prompts_of_one_set_of_adapters_whatever_their_number() {
        let streams = |sets: std::ops::Range<u32>| sets.map(|set| view(set, set, 0)).collect::<Vec<_>>();
        let prompts = |sets: &[u32], first: u32| {
            sets.iter().zip(first..).map(|(set, slot)| view(slot, *set, 2000)).collect::<Vec<_>>()
        };
        let beside = |streams: Vec<SequenceView>, sets: &[u32]| {
            let first = streams.len() as u32;
            let (gap, least, most) = longest_gap([streams, prompts(sets, first)].concat());
            println!("{gap} ms; {least} to {most} tokens of prompts");
            assert!(least * 10 >= most * 8, "each set has its part: {least} and {most}");
            gap
        };
        let one_set = beside(streams(0..1), &[1; 30]);
        let many_sets = beside(streams(0..1), &(1..=30).collect::<Vec<_>>());
        let with_streams = beside(streams(0..4), &[0, 1, 2, 3]);
        let beside_others = beside(streams(0..3), &[0, 1, 3, 4, 5, 6]);
        let gaps = [one_set, many_sets, with_streams, beside_others];
        assert!(gaps.iter().all(|gap| *gap < 350), "{gaps:?}");
    }
}
