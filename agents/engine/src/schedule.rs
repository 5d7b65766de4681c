//! What goes into the next batch: a pure function over plain data.
//!
//! Decoding sequences come first, one token each; what room is left goes to what else they need, to prompts, in bounded chunks
//! while anybody decodes who is waited for, so that no stream stalls behind a long prompt, and, where there are no prompts, to drafts. Of the
//! prompts of one class the one that is soonest done goes first, so that it decodes beside the others instead of all being
//! done at the end; to what it still needs is added half of what its flow was served more than the least served one, so that
//! no flow lives at the cost of another, and none starves.

use std::time::Duration;

use crate::backend::{Lane, Slot};
use crate::request::Class;

/// Slots between two that are bridged at most: a pass over the weights of a small model took as long as two tokens more in it
/// (SmolLM2-135M in F16 on two cores of a Zen 3: 20 and 10 ms), and tokens of prompts have to be computed anyway.
const WIDEST_GAP: usize = 3;

/// What the scheduler knows of a sequence that has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Where it sits.
    pub slot: Slot,
    /// On which lane.
    pub lane: Lane,
    /// How urgent it is.
    pub class: Class,
    /// Tokens that its flow was served so far.
    pub served: u64,
    /// Its place among all arrivals.
    pub arrival: u64,
    /// Prompt tokens to its next stop; 0 once it decodes.
    pub prompt: u32,
    /// Tokens that it needs computed to go on, once it decodes: usually the one that was sampled last.
    pub wants: u32,
    /// Tokens that are likely to come after these, which may be computed on trial.
    pub drafts: u32,
    /// Its reader has no room for more, so it rests.
    pub blocked: bool,
}

/// A share of the next batch: so many tokens of this sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Whose tokens.
    pub slot: Slot,
    /// How many.
    pub tokens: u32,
}

/// How large a batch may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens in a batch.
    pub batch: u32,
    /// Prompt tokens at a time while anybody who is waited for decodes, and of work ahead of time; twice as many while more of
    /// those wait for their first token than decode.
    pub chunk: u32,
}

/// The next batch: a lane and the shares in it, or nothing to do. Lanes take turns after `last`.
///
/// The chunk limit holds if a sequence of *any* lane decodes, since lanes wait for each other. Batch work has no such limit:
/// nobody reads its answers as they come.
pub fn next(sequences: &[View], budget: Budget, last: Lane) -> Option<(Lane, Vec<Share>)> {
    // What is done ahead of time is done when there is nothing else to do, and what is read along when nobody waits for a prompt.
    let others = sequences.iter().any(|view| !view.blocked && view.class != Class::Ahead);
    let prompts = sequences.iter().any(|view| !view.blocked && view.class < Class::Along && view.prompt > 0);
    let rests = |view: &View| match view.class {
        Class::Ahead => others,
        Class::Along => prompts,
        Class::Router | Class::Interactive | Class::Batch => false,
    };
    let awake = || sequences.iter().filter(|view| !view.blocked && !rests(view));
    let heard = || awake().filter(|view| view.class <= Class::Interactive);
    let streams = heard().filter(|view| view.prompt == 0).count();
    let chunk = if heard().count() > 2 * streams { budget.chunk.saturating_mul(2) } else { budget.chunk };
    let lane = awake().map(|view| view.lane).min_by_key(|lane| (lane.0 <= last.0, lane.0))?;
    let mine = || awake().filter(|view| view.lane == lane);
    let decodes: Vec<&View> = mine().filter(|v| v.prompt == 0).take(budget.batch as usize).collect();
    let mut shares: Vec<Share> = decodes.iter().map(|v| Share { slot: v.slot, tokens: 1 }).collect();
    let left = budget.batch - shares.len() as u32;
    // Work ahead of time must not hold up whoever comes next either.
    let mut room = if streams > 0 || !others { left.min(chunk) } else { left };
    let mut add = |share: &mut Share, wanted: u32| {
        let tokens = wanted.min(room);
        share.tokens += tokens;
        room -= tokens;
    };
    decodes.iter().zip(&mut shares).for_each(|(view, share)| add(share, view.wants.saturating_sub(1)));
    let mut prompts: Vec<&View> = mine().filter(|view| view.prompt > 0).collect();
    if prompts.is_empty() {
        let whole = |view: &View, share: &Share| share.tokens >= view.wants;
        let drafts = decodes.iter().zip(&mut shares).filter(|(view, share)| whole(view, share));
        drafts.for_each(|(view, share)| add(share, view.drafts));
    }
    let least = awake().map(|view| view.served).min().unwrap_or(0);
    prompts.sort_by_key(|view| (view.class, u64::from(view.prompt) + (view.served - least) / 2, view.arrival));
    for view in prompts {
        let mut share = Share { slot: view.slot, tokens: 0 };
        add(&mut share, view.prompt);
        if share.tokens > 0 {
            shares.push(share);
        }
    }
    Some((lane, shares))
}

/// Adds a token each of the prompts that are read in slots between those who decode, as far as there is `room`, so that all of
/// them are side by side: llama.cpp computes only sequences in adjacent slots in one pass over the weights. Orders them by slot.
pub fn bridge(decoding: &mut Vec<Share>, prompts: &mut [Share], sequences: &[View], lane: Lane, room: u32) {
    let read = |slot| {
        let mut here = sequences.iter().filter(|view| (view.lane, view.slot) == (lane, Slot(slot)));
        here.find(|view| view.prompt > 1 && !view.blocked)
    };
    decoding.sort_by_key(|share| share.slot);
    let gaps = decoding.windows(2).map(|pair| pair[0].slot.0 + 1..pair[1].slot.0);
    let gaps = gaps.filter(|gap| !gap.is_empty() && gap.len() <= WIDEST_GAP);
    let bridges = gaps.filter_map(|gap| gap.map(read).collect::<Option<Vec<_>>>()).flatten();
    for view in bridges.take(room as usize).collect::<Vec<_>>() {
        decoding.push(Share { slot: view.slot, tokens: 1 });
        let share = prompts.iter_mut().find(|share| share.slot == view.slot);
        share.into_iter().for_each(|share| share.tokens = share.tokens.min(view.prompt - 1));
    }
    decoding.sort_by_key(|share| share.slot);
}

/// How many prompt tokens are computed between two tokens of those who decode: as many as fit into the gap, at this cost in
/// seconds each (0: not known yet).
///
/// Whole grains are cheaper than pieces of one, so one grain may take up to twice the gap; what takes longer is cut after
/// all.
pub fn chunk(gap: Duration, cost: f64, grain: u32) -> u32 {
    let fits = if cost > 0.0 { (gap.as_secs_f64() / cost) as u32 } else { 64 };
    match grain {
        0 | 1 => fits.max(8),
        grain if fits >= grain => fits / grain * grain,
        grain if fits.saturating_mul(2) >= grain => grain,
        _ => fits.max(8),
    }
}

/// What the scheduler knows of a sequence that waits for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// On which lane it wants to sit.
    pub lane: Lane,
    /// Its class as a number, less one for each [`AGEING`] that it waits.
    pub urgency: u32,
    /// Tokens that its flow was served so far.
    pub served: u64,
    /// Steps that its task must do after this one.
    pub left: u32,
    /// Its place among all arrivals.
    pub arrival: u64,
}

/// After so long a wait a sequence counts as one class more urgent, so that batch work never starves.
pub const AGEING: Duration = Duration::from_secs(30);

/// Which waiting sequence gets the next free slot of `lane`: the most urgent, then one whose flow was served least, then one whose
/// task is soonest done.
pub fn admit(waiting: &[Waiting], lane: Lane) -> Option<usize> {
    let candidates = waiting.iter().enumerate().filter(|(_, w)| w.lane == lane);
    candidates.min_by_key(|(_, w)| (w.urgency, w.served, w.left, w.arrival)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn view(slot: u32, lane: u32, prompt: u32) -> View {
        let class = Class::Interactive;
        let (slot, lane, arrival) = (Slot(slot), Lane(lane), u64::from(slot));
        View { slot, lane, class, served: 0, arrival, prompt, wants: 1, drafts: 0, blocked: false }
    }

    const BUDGET: Budget = Budget { batch: 64, chunk: 16 };

    #[test]
    fn a_long_prompt_does_not_stall_a_stream() {
        let shares = next(&[view(0, 0, 2000), view(1, 0, 0)], BUDGET, Lane(0));
        let wanted = vec![Share { slot: Slot(1), tokens: 1 }, Share { slot: Slot(0), tokens: 16 }];
        assert_eq!(shares, Some((Lane(0), wanted)));
    }

    #[test]
    fn who_reads_between_those_who_decode_reads_a_token_with_them() {
        let bridged = |views: &[View], room| {
            let shares = next(views, BUDGET, Lane(9)).unwrap().1;
            let (mut decoding, mut prompts): (Vec<_>, Vec<_>) =
                shares.into_iter().partition(|share| views.iter().any(|v| v.slot == share.slot && v.prompt == 0));
            bridge(&mut decoding, &mut prompts, views, Lane(0), room);
            [decoding, prompts].map(|shares| shares.iter().map(|s| (s.slot.0, s.tokens)).collect::<Vec<_>>())
        };
        let (at_ends, wide) = ([view(0, 0, 0), view(2, 0, 0)], view(9, 0, 0));
        let with = |more: &[View]| [&at_ends, more].concat();
        assert_eq!(bridged(&with(&[view(1, 0, 100)]), 9), [vec![(0, 1), (1, 1), (2, 1)], vec![(1, 16)]]);
        assert_eq!(
            bridged(&with(&[view(1, 0, 9)]), 9),
            [vec![(0, 1), (1, 1), (2, 1)], vec![(1, 8)]],
            "its last token decides"
        );
        assert_eq!(bridged(&with(&[view(1, 0, 1)]), 9), [vec![(0, 1), (2, 1)], vec![(1, 1)]]);
        assert_eq!(bridged(&with(&[view(1, 1, 100)]), 9)[0], [(0, 1), (2, 1)], "another lane has slots of its own");
        assert_eq!(bridged(&with(&[view(1, 0, 100)]), 0)[0], [(0, 1), (2, 1)]);
        assert_eq!(bridged(&with(&[view(3, 0, 100)]), 9)[0], [(0, 1), (2, 1)], "nobody decodes behind it");
        let far: Vec<View> = (3..9).map(|slot| view(slot, 0, 100)).chain([wide]).collect();
        assert_eq!(bridged(&with(&far), 9)[0], [(0, 1), (2, 1), (9, 1)], "too many tokens for a pass");
    }

    #[test]
    fn chunks_are_larger_where_more_wait_than_decode_and_have_no_limit_where_nobody_reads() {
        let chunk = |views: &[View]| {
            let shares = next(views, BUDGET, Lane(0)).unwrap().1;
            shares.iter().filter(|share| share.slot != Slot(0)).map(|share| share.tokens).sum::<u32>()
        };
        let (stream, waits) = (view(0, 0, 0), |slot| view(slot, 0, 2000));
        assert_eq!(chunk(&[stream, waits(1)]), 16);
        assert_eq!(chunk(&[stream, waits(1), waits(2)]), 32);
        assert_eq!(chunk(&[stream, waits(1), View { class: Class::Batch, ..waits(2) }]), 16);
        assert_eq!(chunk(&[View { class: Class::Batch, ..stream }, waits(1)]), 63);
    }

    #[test]
    fn chunks_are_whole_grains_where_these_fit() {
        let chunk = |cost, grain| chunk(Duration::from_millis(150), cost, grain);
        assert_eq!([chunk(0.001, 1), chunk(0.010, 1), chunk(0.1, 1)], [150, 15, 8]);
        assert_eq!([chunk(0.001, 64), chunk(0.002, 64), chunk(0.004, 64)], [128, 64, 64]);
        assert_eq!([chunk(0.005, 64), chunk(0.1, 64)], [30, 8], "a grain would take more than twice the gap");
    }

    #[test]
    fn a_lone_prompt_gets_the_whole_batch() {
        assert_eq!(next(&[view(0, 0, 2000)], BUDGET, Lane(0)).unwrap().1[0].tokens, 64);
    }

    #[test]
    fn a_prompt_that_was_begun_is_finished_and_a_short_one_passes_it() {
        let mut begun = view(0, 0, 36);
        begun.served = 64;
        let first = |views: &[View]| next(views, BUDGET, Lane(0)).unwrap().1[0].slot;
        assert_eq!(first(&[view(1, 0, 100), begun]), Slot(0));
        assert_eq!(first(&[view(1, 0, 20), begun]), Slot(1));
    }

    #[test]
    fn work_ahead_of_time_waits_for_all_other_work_and_is_cut_in_chunks() {
        let ahead = View { class: Class::Ahead, ..view(0, 0, 100) };
        let alone = |slot, tokens| Some((Lane(0), vec![Share { slot: Slot(slot), tokens }]));
        assert_eq!(next(&[ahead, view(1, 0, 0)], BUDGET, Lane(0)), alone(1, 1));
        assert_eq!(next(&[ahead, View { blocked: true, ..view(1, 0, 0) }], BUDGET, Lane(0)), alone(0, BUDGET.chunk));
        assert_eq!(next(&[ahead, View { lane: Lane(1), ..ahead }, view(1, 2, 0)], BUDGET, Lane(0)).unwrap().0, Lane(2));
    }

    #[test]
    fn what_is_read_along_goes_beside_those_who_decode_and_behind_all_who_wait() {
        let along = View { class: Class::Along, ..view(0, 0, 100) };
        let share = |slot, tokens| Share { slot: Slot(slot), tokens };
        assert_eq!(next(&[along, view(1, 0, 0)], BUDGET, Lane(0)), Some((Lane(0), vec![share(1, 1), share(0, 16)])));
        let waits = view(1, 0, 40);
        assert_eq!(next(&[along, waits], BUDGET, Lane(0)), Some((Lane(0), vec![share(1, 40)])));
        assert_eq!(next(&[along, view(1, 0, 0), View { slot: Slot(2), ..waits }], BUDGET, Lane(0)).unwrap().1.len(), 2);
        let ahead = View { class: Class::Ahead, ..view(1, 0, 100) };
        assert_eq!(next(&[ahead, along], BUDGET, Lane(0)), Some((Lane(0), vec![share(0, 64)])));
    }

    #[test]
    fn drafts_take_what_nobody_needs() {
        let tokens = |views: &[View]| {
            let shares = next(views, BUDGET, Lane(0)).unwrap().1;
            shares.iter().map(|share| share.tokens).collect::<Vec<_>>()
        };
        let (drafts, forced) = (View { drafts: 8, ..view(0, 0, 0) }, View { wants: 12, ..view(1, 0, 0) });
        assert_eq!(tokens(&[drafts, forced]), [6, 12], "a chunk of 16 is shared out beside one token each");
        assert_eq!(tokens(&[drafts, view(1, 0, 100)]), [1, 16], "no drafts beside prompts");
        let cut = View { wants: 40, drafts: 8, ..view(0, 0, 0) };
        assert_eq!(tokens(&[cut]), [17], "drafts come after all that is certain");
    }

    #[test]
    fn the_flow_that_was_served_less_goes_first() {
        let mut greedy = view(0, 0, 100);
        greedy.served = 1000;
        assert_eq!(next(&[greedy, view(1, 0, 100)], BUDGET, Lane(0)).unwrap().1[0].slot, Slot(1));
    }

    #[test]
    fn the_most_urgent_sits_down_first_and_then_whose_flow_was_served_least() {
        let of = |urgency, served, arrival| Waiting { lane: Lane(0), urgency, served, left: 1, arrival };
        assert_eq!(admit(&[of(2, 0, 0), of(1, 9, 1)], Lane(0)), Some(1));
        assert_eq!(admit(&[of(1, 9, 0), of(1, 0, 1)], Lane(0)), Some(1));
        assert_eq!(admit(&[of(1, 5, 0), Waiting { left: 0, ..of(1, 5, 1) }], Lane(0)), Some(1), "nearly done");
        assert_eq!(admit(&[of(1, 0, 0)], Lane(1)), None);
    }

    prop_compose! {
        fn any_view()(lane in 0..3u32, prompt in 0..300u32, served in 0..9u64, blocked: bool, class in 0..3) -> View {
            let class = [Class::Router, Class::Interactive, Class::Batch][class as usize];
            View { lane: Lane(lane), class, served, blocked, ..view(0, lane, prompt) }
        }
    }

    proptest! {
        #[test]
        fn every_batch_keeps_its_limits_and_every_sequence_is_served(mut views in prop::collection::vec(any_view(), 0..20)) {
            for (at, view) in views.iter_mut().enumerate() {
                view.slot = Slot(at as u32);
                view.arrival = at as u64;
            }
            let mut last = Lane(0);
            for _ in 0..5000 {
                let Some((lane, shares)) = next(&views, BUDGET, last) else { break };
                last = lane;
                prop_assert!(shares.iter().map(|s| s.tokens).sum::<u32>() <= BUDGET.batch);
                prop_assert!(!shares.is_empty());
                for share in shares {
                    let view = &mut views[share.slot.0 as usize];
                    prop_assert!(!view.blocked && view.lane == lane && share.tokens <= view.prompt.max(1));
                    view.prompt -= share.tokens.min(view.prompt);
                    view.served += u64::from(share.tokens);
                }
                if views.iter().all(|v| v.blocked || v.prompt == 0) {
                    break;
                }
            }
            prop_assert!(views.iter().all(|v| v.blocked || v.prompt == 0));
        }
    }
}
