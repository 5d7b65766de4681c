//! The schedule of the next batch: a pure function over plain data.
//!
//! Decoding sequences come first, one token each. The remaining tokens of the batch are given to their other output tokens, to
//! prompts, in chunks (chunked prefill) while an interactive sequence streams, whatever its adapters, so that no stream stalls behind a
//! long prompt, and, where there are no prompts, to drafts. Of the prompts of one priority the one that needs the fewest tokens
//! comes first, so that it decodes beside the others instead of all finishing together; to the tokens it needs are added half of
//! those that its flow was served more than the least served flow, so that no flow lives at the cost of another, and a number for
//! each earlier arrival, so that none starves.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::adjacency::MAX_BRIDGED_SLOTS;
use crate::backend::{AdapterSet, Slot};
use crate::request::Priority;

/// Text with three times the usual inter-token latency of 100 ms still comes about as fast as it is read.
const MAX_ITL_FACTOR: f64 = 3.0;

/// Tokens that each arrival between two prompts counts as: after so many shorter, later prompts a long one is next.
const ARRIVAL_PENALTY_TOKENS: u64 = 8;

/// The scheduler's view of a sequence in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceView {
    /// Its slot.
    pub slot: Slot,
    /// Its adapters.
    pub adapters: AdapterSet,
    /// What these adapters were given before.
    pub history: SetHistory,
    /// Its priority.
    pub priority: Priority,
    /// Tokens that its flow was served so far.
    pub served_tokens: u64,
    /// Its number among all arrivals.
    pub arrival: u64,
    /// Prompt tokens to its next stop; 0 once it decodes.
    pub prefill_tokens: u32,
    /// Output tokens that must be computed before it can be sampled, once it decodes: usually the one that was sampled last.
    pub output_tokens: u32,
    /// Draft tokens that may be verified after these.
    pub draft_tokens: u32,
    /// Its output channel is full, so it pauses.
    pub is_blocked: bool,
}

impl SequenceView {
    /// Whether a client waits for each token of its output.
    fn is_interactive(&self) -> bool {
        !self.is_blocked && self.priority <= Priority::Interactive
    }

    /// Whether it writes such output.
    fn streams(&self) -> bool {
        self.is_interactive() && self.prefill_tokens == 0
    }
}

/// What was computed with a set of adapters before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetHistory {
    /// The number of its last batch, 0 before the first.
    pub last_batch: u64,
    /// The number of its last batch of prompts, 0 before the first.
    pub last_prefill: u64,
    /// Whether prompts, of whichever adapters, have taken so long since its last tokens of output that streams with it come next.
    pub is_held_up: bool,
}

/// A share of the next batch: so many tokens of this sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShare {
    /// The slot of the sequence.
    pub slot: Slot,
    /// The number of its tokens.
    pub tokens: u32,
}

impl BatchShare {
    /// Adds so many tokens, as far as tokens remain.
    fn add(&mut self, wanted: u32, remaining: &mut u32) {
        let tokens = wanted.min(*remaining);
        self.tokens += tokens;
        *remaining -= tokens;
    }
}

/// The size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchBudget {
    /// Tokens in a batch.
    pub batch_tokens: u32,
    /// Tokens beyond one per decoding sequence while an interactive sequence streams, and of background prefill.
    pub chunk_tokens: u32,
}

/// The adapters of the last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTurn {
    /// Which.
    pub adapters: AdapterSet,
    /// Whether they may have the next batch too.
    pub may_stay: bool,
}

/// The next batch: its adapters and the shares in it, or nothing to do.
///
/// The chunk limit holds if an interactive sequence with *any* adapters streams, since all wait for each other. It does not
/// hold for batch work alone: no client reads its output as it comes.
pub fn next_batch(
    sequences: &[SequenceView],
    budget: BatchBudget,
    last: LastTurn,
) -> Option<(AdapterSet, Vec<BatchShare>)> {
    // Background prefill runs when there is nothing else to do, prefetch when no other prompt waits.
    let has_foreground = sequences.iter().any(|view| !view.is_blocked && view.priority != Priority::Background);
    let has_prompts =
        sequences.iter().any(|view| !view.is_blocked && view.priority.is_requested() && view.prefill_tokens > 0);
    let is_paused = |view: &SequenceView| match view.priority {
        Priority::Background => has_foreground,
        Priority::Prefetch => has_prompts,
        Priority::Router | Priority::Interactive | Priority::Batch => false,
    };
    let ready = || sequences.iter().filter(|view| !view.is_blocked && !is_paused(view));
    let has_streams = ready().any(SequenceView::streams);
    let (adapters, may_prefill) = next_turn(&ready().collect::<Vec<_>>(), last)?;
    let own = || ready().filter(|view| view.adapters == adapters);
    let decoding: Vec<&SequenceView> =
        own().filter(|view| view.prefill_tokens == 0).take(budget.batch_tokens as usize).collect();
    let mut shares: Vec<BatchShare> = decoding.iter().map(|view| BatchShare { slot: view.slot, tokens: 1 }).collect();
    let rest = budget.batch_tokens - shares.len() as u32;
    // Background prefill must not delay a request that comes next either.
    let mut remaining = if has_streams || !has_foreground { rest.min(budget.chunk_tokens) } else { rest };
    for (view, share) in decoding.iter().zip(&mut shares) {
        share.add(view.output_tokens.saturating_sub(1), &mut remaining);
    }
    let mut prompts: Vec<&SequenceView> = own().filter(|view| may_prefill && view.prefill_tokens > 0).collect();
    if own().all(|view| view.prefill_tokens == 0) {
        let is_whole = |view: &SequenceView, share: &BatchShare| share.tokens >= view.output_tokens;
        let drafting = decoding.iter().zip(&mut shares).filter(|(view, share)| is_whole(view, share));
        drafting.for_each(|(view, share)| share.add(view.draft_tokens, &mut remaining));
    }
    let least = ready().map(|view| view.served_tokens).min().unwrap_or(0);
    let oldest = prompts.iter().map(|view| view.arrival).min().unwrap_or(0);
    prompts.sort_by_key(|view| {
        let unfairness = (view.served_tokens - least) / 2;
        let lateness = ARRIVAL_PENALTY_TOKENS * (view.arrival - oldest);
        (view.priority, u64::from(view.prefill_tokens) + unfairness + lateness, view.arrival)
    });
    let most = remaining;
    for (at, view) in prompts.iter().enumerate() {
        // Prompts of different lengths are computed one after the other, so the beginning of another one costs a pass over the
        // weights; a short piece is not worth it.
        if at > 0 && view.prefill_tokens > remaining && remaining < most / 2 {
            continue;
        }
        let mut share = BatchShare { slot: view.slot, tokens: 0 };
        share.add(view.prefill_tokens, &mut remaining);
        if share.tokens > 0 {
            shares.push(share);
        }
    }
    Some((adapters, shares))
}

/// Whose turn is next, and whether prompts are part of it: the turn of the last adapters while it may go on, unless others have work
/// of a higher priority; else that of those that have waited for the longest.
///
/// Where sequences stream, those that prompts have held up come first, and of all sets only the one whose last prompts are the longest
/// ago has prompts computed: however many sets have prompts, a stream waits for those of one. Prompts that are more urgent than all
/// streams do not wait.
fn next_turn(ready: &[&SequenceView], last: LastTurn) -> Option<(AdapterSet, bool)> {
    let ready = || ready.iter().copied();
    let highest = ready().map(|view| view.priority).min()?;
    let streams = || ready().filter(|view| view.streams());
    let prompts = || ready().filter(|view| view.prefill_tokens > 0);
    let most_urgent_stream = streams().map(|view| view.priority).min();
    let held_up = sets_of(streams().filter(|view| view.history.is_held_up));
    let next_prefill = prompts().map(|view| (view.history.last_prefill, view.adapters)).min().map(|(_, set)| set);
    let may_prefill = |adapters: AdapterSet| {
        let is_next = next_prefill == Some(adapters) && held_up.iter().all(|other| *other == adapters);
        let is_urgent = |view: &SequenceView| most_urgent_stream.is_none_or(|priority| view.priority < priority);
        is_next || prompts().any(|view| view.adapters == adapters && is_urgent(view))
    };
    let may_stay = last.may_stay && ready().any(|view| view.adapters == last.adapters);
    let candidates = ready().filter(|view| !may_stay || view.priority == highest);
    let candidates = candidates.filter(|view| view.prefill_tokens == 0 || may_prefill(view.adapters));
    let next = candidates.map(|view| (view.adapters, view.history.last_batch)).min_by_key(|(adapters, last_batch)| {
        let stays = may_stay && *adapters == last.adapters;
        (!stays, !held_up.contains(adapters), *last_batch, *adapters)
    });
    next.map(|(adapters, _)| (adapters, may_prefill(adapters)))
}

fn sets_of<'a>(views: impl Iterator<Item = &'a SequenceView>) -> BTreeSet<AdapterSet> {
    views.map(|view| view.adapters).collect()
}

/// The number of sets of adapters of which sequences can go on, work ahead of time included but for what waits until all else is done.
pub fn ready_sets(sequences: &[SequenceView]) -> usize {
    sets_of(sequences.iter().filter(|view| !view.is_blocked && view.priority != Priority::Background)).len()
}

/// Whether prompts wait that take longer than a token of output.
pub fn has_prompts(sequences: &[SequenceView]) -> bool {
    sequences.iter().any(|view| !view.is_blocked && view.priority.is_requested() && view.prefill_tokens > 1)
}

/// Adds one token each of the prompts in slots between decoding ones, as far as tokens `remain`, so that all of them are
/// adjacent: llama.cpp computes only sequences in adjacent slots in one pass over the weights, and only as many tokens of each,
/// so a sequence with several tokens needs a pass of its own anyway. Orders the shares by slot.
pub fn bridge(
    decoding: &mut Vec<BatchShare>,
    prompts: &mut [BatchShare],
    sequences: &[SequenceView],
    adapters: AdapterSet,
    remaining: u32,
) {
    let prompt_in = |slot| {
        let mut in_slot = sequences.iter().filter(|view| (view.adapters, view.slot) == (adapters, Slot(slot)));
        in_slot.find(|view| view.prefill_tokens > 1 && !view.is_blocked)
    };
    decoding.sort_by_key(|share| share.slot);
    if decoding.iter().any(|share| share.tokens > 1) {
        return;
    }
    let gaps = decoding.windows(2).map(|pair| pair[0].slot.0 + 1..pair[1].slot.0);
    let gaps = gaps.filter(|gap| !gap.is_empty() && gap.len() <= MAX_BRIDGED_SLOTS);
    let bridges = gaps.filter_map(|gap| gap.map(prompt_in).collect::<Option<Vec<_>>>()).flatten();
    for view in bridges.take(remaining as usize).collect::<Vec<_>>() {
        decoding.push(BatchShare { slot: view.slot, tokens: 1 });
        let share = prompts.iter_mut().find(|share| share.slot == view.slot);
        share.into_iter().for_each(|share| share.tokens = share.tokens.min(view.prefill_tokens - 1));
    }
    decoding.sort_by_key(|share| share.slot);
}

/// The factor by which prompts may exceed the target inter-token latency: it rises with the number of prompts that wait for their
/// first token and falls with the number of streams. Large chunks cost less per token, which all waiting prompts gain from.
pub fn itl_factor(sequences: &[SequenceView]) -> f64 {
    let interactive = || sequences.iter().filter(|view| view.is_interactive());
    let streams = interactive().filter(|view| view.prefill_tokens == 0).count();
    (interactive().count() as f64 / (streams + 1) as f64).clamp(1.0, MAX_ITL_FACTOR)
}

/// The number of prompt tokens between two tokens of a stream, where `fitting` fit into the target inter-token latency (none: not
/// known yet).
///
/// Whole multiples of `prefill_multiple` are cheaper than parts: the result is the nearest number of them, and a single one may
/// take up to twice the target latency; a longer one is cut after all.
pub fn chunk_tokens(fitting: Option<u32>, prefill_multiple: u32) -> u32 {
    let fitting = fitting.unwrap_or(64);
    match prefill_multiple {
        0 | 1 => fitting.max(8),
        multiple if fitting >= multiple => (fitting.saturating_add(multiple / 2)) / multiple * multiple,
        multiple if fitting.saturating_mul(2) >= multiple => multiple,
        _ => fitting.max(8),
    }
}

/// The scheduler's view of a sequence that waits for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedView {
    /// Its priority as a number, less one for each [`AGING_PERIOD`] of its wait.
    pub aged_priority: u32,
    /// Tokens that its flow was served so far.
    pub served_tokens: u64,
    /// Steps that remain of its task after this one.
    pub remaining_steps: u32,
    /// Its number among all arrivals.
    pub arrival: u64,
}

/// After so long a wait a sequence rises by one priority, so that batch work never starves.
pub const AGING_PERIOD: Duration = Duration::from_secs(30);

/// Which waiting sequence gets the next free slot: the one of the highest priority, then of the least served flow,
/// then of the task with the fewest remaining steps.
pub fn admit(waiting: &[QueuedView]) -> Option<usize> {
    let order = |view: &QueuedView| (view.aged_priority, view.served_tokens, view.remaining_steps, view.arrival);
    waiting.iter().enumerate().min_by_key(|(_, view)| order(view)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn view(slot: u32, adapters: u32, prefill_tokens: u32) -> SequenceView {
        let priority = Priority::Interactive;
        let (slot, adapters, arrival) = (Slot(slot), AdapterSet(adapters), u64::from(slot));
        SequenceView {
            slot,
            adapters,
            history: SetHistory::default(),
            priority,
            served_tokens: 0,
            arrival,
            prefill_tokens,
            output_tokens: 1,
            draft_tokens: 0,
            is_blocked: false,
        }
    }

    const BASE: AdapterSet = AdapterSet::NONE;
    const LAST: LastTurn = LastTurn { adapters: BASE, may_stay: false };
    const BUDGET: BatchBudget = BatchBudget { batch_tokens: 64, chunk_tokens: 16 };

    #[test]
    fn a_long_prompt_does_not_stall_a_stream() {
        let shares = next_batch(&[view(0, 0, 2000), view(1, 0, 0)], BUDGET, LAST);
        let wanted = vec![BatchShare { slot: Slot(1), tokens: 1 }, BatchShare { slot: Slot(0), tokens: 16 }];
        assert_eq!(shares, Some((BASE, wanted)));
    }

    #[test]
    fn a_turn_goes_on_until_its_time_is_over_or_others_have_more_urgent_work() {
        let next = |views: &[SequenceView], adapters, may_stay| {
            next_batch(views, BUDGET, LastTurn { adapters: AdapterSet(adapters), may_stay }).unwrap().0.0
        };
        let of = |slot, adapters, last_batch| SequenceView {
            history: SetHistory { last_batch, ..SetHistory::default() },
            ..view(slot, adapters, 0)
        };
        let equal = [of(0, 0, 8), of(1, 1, 9), of(2, 4, 3)];
        assert_eq!([0, 1, 4, 9].map(|last| next(&equal, last, true)), [0, 1, 4, 4]);
        assert_eq!([0, 1, 4, 9].map(|last| next(&equal, last, false)), [4, 4, 4, 4], "it has waited for the longest");
        let urgent = SequenceView { priority: Priority::Router, ..of(3, 7, 10) };
        let views = [equal[0], equal[1], equal[2], urgent];
        assert_eq!([0, 7].map(|last| next(&views, last, true)), [7, 7], "it interrupts the turn of others");
        assert_eq!([0, 7].map(|last| next(&views, last, false)), [4, 4], "and starves none");
        assert_eq!(next(&[SequenceView { is_blocked: true, ..equal[0] }, equal[1]], 0, true), 1);
        let ahead = SequenceView { priority: Priority::Prefetch, ..of(1, 1, 3) };
        assert_eq!((ready_sets(&[equal[0], ahead]), next(&[equal[0], ahead], 0, false)), (2, 1), "so has a prefetch");
    }

    #[test]
    fn a_prompt_between_decoding_slots_gets_a_token_in_their_batch() {
        let bridged = |views: &[SequenceView], remaining| {
            let none = LastTurn { adapters: AdapterSet(9), may_stay: false };
            let shares = next_batch(views, BUDGET, none).unwrap().1;
            let (mut decoding, mut prompts): (Vec<_>, Vec<_>) = shares
                .into_iter()
                .partition(|share| views.iter().any(|v| v.slot == share.slot && v.prefill_tokens == 0));
            bridge(&mut decoding, &mut prompts, views, BASE, remaining);
            [decoding, prompts].map(|shares| shares.iter().map(|s| (s.slot.0, s.tokens)).collect::<Vec<_>>())
        };
        let (at_ends, wide) = ([view(0, 0, 0), view(2, 0, 0)], view(9, 0, 0));
        let with = |more: &[SequenceView]| [&at_ends, more].concat();
        assert_eq!(bridged(&with(&[view(1, 0, 100)]), 9), [vec![(0, 1), (1, 1), (2, 1)], vec![(1, 16)]]);
        assert_eq!(
            bridged(&with(&[view(1, 0, 9)]), 9),
            [vec![(0, 1), (1, 1), (2, 1)], vec![(1, 8)]],
            "its last token needs logits"
        );
        assert_eq!(bridged(&with(&[view(1, 0, 1)]), 9), [vec![(0, 1), (2, 1)], vec![(1, 1)]]);
        assert_eq!(
            bridged(&with(&[view(1, 1, 100)]), 9)[0],
            [(0, 1), (2, 1)],
            "with other adapters it is in another batch"
        );
        assert_eq!(bridged(&with(&[view(1, 0, 100)]), 0)[0], [(0, 1), (2, 1)]);
        assert_eq!(bridged(&with(&[view(3, 0, 100)]), 9)[0], [(0, 1), (2, 1)], "no sequence decodes behind it");
        let several = [view(0, 0, 0), view(1, 0, 100), SequenceView { output_tokens: 3, ..view(2, 0, 0) }];
        assert_eq!(bridged(&several, 9)[0], [(0, 1), (2, 3)], "two passes are needed anyway");
        let far: Vec<SequenceView> = (3..9).map(|slot| view(slot, 0, 100)).chain([wide]).collect();
        assert_eq!(bridged(&with(&far), 9)[0], [(0, 1), (2, 1), (9, 1)], "too many tokens for a pass");
    }

    #[test]
    fn no_short_piece_of_the_next_prompt_is_computed() {
        let prefilled = |first, then: &[u32]| {
            let mut views = vec![view(0, 0, 0), view(1, 0, first)];
            views.extend(then.iter().zip(2..).map(|(prompt, slot)| view(slot, 0, *prompt)));
            let shares = next_batch(&views, BUDGET, LAST).unwrap().1;
            shares.iter().skip(1).map(|share| (share.slot.0, share.tokens)).collect::<Vec<_>>()
        };
        assert_eq!(prefilled(9, &[100]), [(1, 9)]);
        assert_eq!(prefilled(8, &[100]), [(1, 8), (2, 8)]);
        assert_eq!(prefilled(9, &[7, 100]), [(1, 9), (2, 7)]);
        assert_eq!(prefilled(100, &[100]), [(1, 16)]);
    }

    #[test]
    fn chunks_have_no_limit_where_no_client_reads() {
        let chunk = |priority| {
            next_batch(&[SequenceView { priority, ..view(0, 0, 0) }, view(1, 0, 2000)], BUDGET, LAST).unwrap().1[1]
                .tokens
        };
        assert_eq!([Priority::Interactive, Priority::Batch].map(chunk), [16, 63]);
    }

    #[test]
    fn waiting_prompts_raise_the_latency_factor() {
        let running = |streams, prompts| {
            let mut views: Vec<SequenceView> = (0..streams).map(|slot| view(slot, 0, 0)).collect();
            views.extend((streams..streams + prompts).map(|slot| view(slot, 0, 2000)));
            views
        };
        let all = [(1, 1), (1, 2), (1, 7), (3, 5), (4, 4), (7, 1)]
            .map(|(streams, prompts)| itl_factor(&running(streams, prompts)));
        assert_eq!(all, [1.0, 1.5, 3.0, 2.0, 1.6, 1.0]);
        let batch = running(1, 7)
            .into_iter()
            .map(|view| SequenceView { priority: Priority::Batch, ..view })
            .collect::<Vec<_>>();
        assert_eq!(itl_factor(&batch), 1.0);
    }

    #[test]
    fn chunks_are_whole_multiples_where_these_fit() {
        let chunk = |fitting, multiple| chunk_tokens(Some(fitting), multiple);
        assert_eq!([chunk(150, 1), chunk(15, 1), chunk(1, 1)], [150, 15, 8]);
        assert_eq!([chunk(165, 64), chunk(150, 64), chunk(75, 64), chunk(37, 64)], [192, 128, 64, 64]);
        assert_eq!(
            [chunk(30, 64), chunk(1, 64)],
            [30, 8],
            "one multiple would take more than twice the target latency"
        );
        assert_eq!([chunk(20, 8), chunk(19, 8), chunk(0, 8)], [24, 16, 8]);
    }

    #[test]
    fn a_lone_prompt_gets_the_whole_batch() {
        assert_eq!(next_batch(&[view(0, 0, 2000)], BUDGET, LAST).unwrap().1[0].tokens, 64);
    }

    #[test]
    fn a_started_prompt_is_finished_and_only_a_short_one_overtakes_it() {
        let mut started = view(0, 0, 36);
        started.served_tokens = 64;
        let first = |views: &[SequenceView]| next_batch(views, BUDGET, LAST).unwrap().1[0].slot;
        assert_eq!(first(&[view(1, 0, 100), started]), Slot(0));
        assert_eq!(first(&[view(1, 0, 20), started]), Slot(1));
    }

    #[test]
    fn a_long_prompt_is_overtaken_only_so_often() {
        let first = |late| {
            let short = SequenceView { arrival: late, ..view(1, 0, 20) };
            next_batch(&[view(0, 0, 600), short, view(2, 0, 0)], BUDGET, LAST).unwrap().1[1].slot
        };
        assert_eq!((1..1000).find(|late| first(*late) == Slot(0)), Some(73));
    }

    #[test]
    fn background_prefill_waits_for_all_other_work_and_is_cut_in_chunks() {
        let background = SequenceView { priority: Priority::Background, ..view(0, 0, 100) };
        let alone = |slot, tokens| Some((BASE, vec![BatchShare { slot: Slot(slot), tokens }]));
        assert_eq!(next_batch(&[background, view(1, 0, 0)], BUDGET, LAST), alone(1, 1));
        assert_eq!(
            next_batch(&[background, SequenceView { is_blocked: true, ..view(1, 0, 0) }], BUDGET, LAST),
            alone(0, BUDGET.chunk_tokens)
        );
        assert_eq!(
            next_batch(
                &[background, SequenceView { adapters: AdapterSet(1), ..background }, view(1, 2, 0)],
                BUDGET,
                LAST
            )
            .unwrap()
            .0,
            AdapterSet(2)
        );
    }

    #[test]
    fn prefetch_runs_beside_decoding_sequences_and_behind_all_waiting_prompts() {
        let prefetch = SequenceView { priority: Priority::Prefetch, ..view(0, 0, 100) };
        let share = |slot, tokens| BatchShare { slot: Slot(slot), tokens };
        assert_eq!(next_batch(&[prefetch, view(1, 0, 0)], BUDGET, LAST), Some((BASE, vec![share(1, 1), share(0, 16)])));
        let prompt = view(1, 0, 40);
        assert_eq!(next_batch(&[prefetch, prompt], BUDGET, LAST), Some((BASE, vec![share(1, 40)])));
        assert_eq!(
            next_batch(&[prefetch, view(1, 0, 0), SequenceView { slot: Slot(2), ..prompt }], BUDGET, LAST)
                .unwrap()
                .1
                .len(),
            2
        );
        let background = SequenceView { priority: Priority::Background, ..view(1, 0, 100) };
        assert_eq!(next_batch(&[background, prefetch], BUDGET, LAST), Some((BASE, vec![share(0, 64)])));
    }

    #[test]
    fn drafts_take_the_tokens_that_remain() {
        let tokens = |views: &[SequenceView]| {
            let shares = next_batch(views, BUDGET, LAST).unwrap().1;
            shares.iter().map(|share| share.tokens).collect::<Vec<_>>()
        };
        let (drafting, forced) =
            (SequenceView { draft_tokens: 8, ..view(0, 0, 0) }, SequenceView { output_tokens: 12, ..view(1, 0, 0) });
        assert_eq!(tokens(&[drafting, forced]), [6, 12], "a chunk of 16 is shared out beside one token each");
        assert_eq!(tokens(&[drafting, view(1, 0, 100)]), [1, 16], "no drafts beside prompts");
        let cut = SequenceView { output_tokens: 40, draft_tokens: 8, ..view(0, 0, 0) };
        assert_eq!(tokens(&[cut]), [17], "drafts come after all output tokens");
    }

    #[test]
    fn the_flow_that_was_served_less_comes_first() {
        let mut greedy = view(0, 0, 100);
        greedy.served_tokens = 1000;
        assert_eq!(next_batch(&[greedy, view(1, 0, 100)], BUDGET, LAST).unwrap().1[0].slot, Slot(1));
    }

    #[test]
    fn the_highest_priority_is_admitted_first_and_then_the_least_served_flow() {
        let of = |aged_priority, served_tokens, arrival| QueuedView {
            aged_priority,
            served_tokens,
            remaining_steps: 1,
            arrival,
        };
        assert_eq!(admit(&[of(2, 0, 0), of(1, 9, 1)]), Some(1));
        assert_eq!(admit(&[of(1, 9, 0), of(1, 0, 1)]), Some(1));
        assert_eq!(admit(&[of(1, 5, 0), QueuedView { remaining_steps: 0, ..of(1, 5, 1) }]), Some(1), "nearly done");
        assert_eq!(admit(&[]), None);
    }

    prop_compose! {
        fn any_view()(
            adapters in 0..3u32,
            prefill_tokens in 0..300u32,
            served_tokens in 0..9u64,
            is_blocked: bool,
            priority in 0..3,
        ) -> SequenceView {
            let priority = [Priority::Router, Priority::Interactive, Priority::Batch][priority as usize];
            SequenceView {
                priority,
                served_tokens,
                is_blocked,
                ..view(0, adapters, prefill_tokens)
            }
        }
    }

    proptest! {
        #[test]
        fn every_batch_keeps_its_limits_and_every_sequence_is_served(mut views in prop::collection::vec(any_view(), 0..20)) {
            for (at, view) in views.iter_mut().enumerate() {
                view.slot = Slot(at as u32);
                view.arrival = at as u64;
            }
            let mut last = LAST;
            for at in 1..5000 {
                let Some((adapters, shares)) = next_batch(&views, BUDGET, last) else { break };
                last = LastTurn { adapters, may_stay: at % 4 != 0 };
                let prefills = shares.iter().any(|share| views[share.slot.0 as usize].prefill_tokens > 0);
                for view in &mut views {
                    let history = &mut view.history;
                    history.is_held_up = prefills || history.is_held_up && view.adapters != adapters;
                    if view.adapters == adapters {
                        history.last_batch = at;
                        history.last_prefill = if prefills { at } else { history.last_prefill };
                    }
                }
                prop_assert!(shares.iter().map(|s| s.tokens).sum::<u32>() <= BUDGET.batch_tokens);
                prop_assert!(!shares.is_empty());
                for share in shares {
                    let view = &mut views[share.slot.0 as usize];
                    prop_assert!(!view.is_blocked && view.adapters == adapters && share.tokens <= view.prefill_tokens.max(1));
                    view.prefill_tokens -= share.tokens.min(view.prefill_tokens);
                    view.served_tokens += u64::from(share.tokens);
                }
                if views.iter().all(|v| v.is_blocked || v.prefill_tokens == 0) {
                    break;
                }
            }
            prop_assert!(views.iter().all(|v| v.is_blocked || v.prefill_tokens == 0));
        }
    }
}
