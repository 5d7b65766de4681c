//! What goes into the next batch: a pure function over plain data.
//!
//! Decoding sequences come first, one token each; what room is left goes to what else they need, to prompts, in bounded chunks
//! while anybody decodes who is waited for, so that no stream stalls behind a long prompt, and, where there are no prompts, to drafts. Of the
//! prompts of one class the one that is soonest done goes first, so that it decodes beside the others instead of all being
//! done at the end; to what it still needs is added half of what its flow was served more than the least served one, so that
//! no flow lives at the cost of another, and something for all who came before it, so that none starves.

use std::time::Duration;

use crate::backend::{Lane, Slot};
use crate::request::Class;

/// Slots between two that are bridged at most: a pass over the weights of a small model took as long as two tokens more in it
/// (SmolLM2-135M in F16 on two cores of a Zen 3: 20 and 10 ms), and tokens of prompts have to be computed anyway.
const WIDEST_GAP: usize = 3;
/// Text that comes in gaps of 300 ms, three times the usual one, still comes about as fast as it is read.
const WIDEST_STRETCH: f64 = 3.0;

/// Tokens that each arrival between two prompts counts as: after so many shorter ones that came later it is a long one's turn.
const LATE: u64 = 8;

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

impl View {
    /// Whether somebody waits for each token of its answer.
    fn is_heard(&self) -> bool {
        !self.blocked && self.class <= Class::Interactive
    }
}

/// A share of the next batch: so many tokens of this sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Whose tokens.
    pub slot: Slot,
    /// How many.
    pub tokens: u32,
}

impl Share {
    /// Adds so many tokens, as far as there is room.
    fn take(&mut self, wanted: u32, room: &mut u32) {
        let tokens = wanted.min(*room);
        self.tokens += tokens;
        *room -= tokens;
    }
}

/// How large a batch may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens in a batch.
    pub batch: u32,
    /// Prompt tokens at a time while anybody who is waited for decodes, and of work ahead of time.
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
    let streams = awake().any(|view| view.is_heard() && view.prompt == 0);
    let lane = awake().map(|view| view.lane).min_by_key(|lane| (lane.0 <= last.0, lane.0))?;
    let mine = || awake().filter(|view| view.lane == lane);
    let decodes: Vec<&View> = mine().filter(|v| v.prompt == 0).take(budget.batch as usize).collect();
    let mut shares: Vec<Share> = decodes.iter().map(|v| Share { slot: v.slot, tokens: 1 }).collect();
    let left = budget.batch - shares.len() as u32;
    // Work ahead of time must not hold up whoever comes next either.
    let mut room = if streams || !others { left.min(budget.chunk) } else { left };
    decodes.iter().zip(&mut shares).for_each(|(view, share)| share.take(view.wants.saturating_sub(1), &mut room));
    let mut prompts: Vec<&View> = mine().filter(|view| view.prompt > 0).collect();
    if prompts.is_empty() {
        let whole = |view: &View, share: &Share| share.tokens >= view.wants;
        let drafts = decodes.iter().zip(&mut shares).filter(|(view, share)| whole(view, share));
        drafts.for_each(|(view, share)| share.take(view.drafts, &mut room));
    }
    let least = awake().map(|view| view.served).min().unwrap_or(0);
    let oldest = prompts.iter().map(|view| view.arrival).min().unwrap_or(0);
    prompts.sort_by_key(|view| {
        let (favour, lateness) = ((view.served - least) / 2, LATE * (view.arrival - oldest));
        (view.class, u64::from(view.prompt) + favour + lateness, view.arrival)
    });
    let most = room;
    for (at, view) in prompts.iter().enumerate() {
        // Prompts of different lengths are computed one after the other, so the beginning of another one costs a pass over the
        // weights; a short one is not worth it.
        if at > 0 && view.prompt > room && room < most / 2 {
            continue;
        }
        let mut share = Share { slot: view.slot, tokens: 0 };
        share.take(view.prompt, &mut room);
        if share.tokens > 0 {
            shares.push(share);
        }
    }
    Some((lane, shares))
}

/// Adds a token each of the prompts that are read in slots between those who decode, as far as there is `room`, so that all of
/// them are side by side: llama.cpp computes only sequences in adjacent slots in one pass over the weights, and only as many
/// tokens of each, so that whoever has several is apart anyway. Orders them by slot.
pub fn bridge(decoding: &mut Vec<Share>, prompts: &mut [Share], sequences: &[View], lane: Lane, room: u32) {
    let read = |slot| {
        let mut here = sequences.iter().filter(|view| (view.lane, view.slot) == (lane, Slot(slot)));
        here.find(|view| view.prompt > 1 && !view.blocked)
    };
    decoding.sort_by_key(|share| share.slot);
    if decoding.iter().any(|share| share.tokens > 1) {
        return;
    }
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

/// Passes over the weights that a token each in these slots takes, where those in slots between them that read prompts read one
/// along: one for all that are side by side.
pub fn passes(decoding: &[Slot], reading: &[Slot]) -> usize {
    let mut decoding = decoding.to_vec();
    decoding.sort_unstable();
    let is_joined = |pair: &&[Slot]| {
        let mut gap = pair[0].0 + 1..pair[1].0;
        gap.len() <= WIDEST_GAP && gap.all(|slot| reading.contains(&Slot(slot)))
    };
    let joined = decoding.windows(2).filter(is_joined).count();
    decoding.len() - joined
}

/// The move of one who decodes into a free slot that saves most passes, if any does; of equal ones, the first in order.
pub fn move_together(decoding: &[Slot], reading: &[Slot], free: &[Slot]) -> Option<(Slot, Slot)> {
    let moves = decoding.iter().flat_map(|from| free.iter().map(move |to| (*from, *to)));
    let after = |(from, to): &(Slot, Slot)| {
        let moved: Vec<Slot> = decoding.iter().map(|slot| if slot == from { *to } else { *slot }).collect();
        passes(&moved, reading)
    };
    let best = moves.min_by_key(after)?;
    (after(&best) < passes(decoding, reading)).then_some(best)
}

/// How many times the gap prompts may take between two tokens: the more wait for their first one and the fewer are answered,
/// the more. Large chunks cost less for each of their tokens, and all who wait have that gain.
pub fn stretch(sequences: &[View]) -> f64 {
    let heard = || sequences.iter().filter(|view| view.is_heard());
    let streams = heard().filter(|view| view.prompt == 0).count();
    (heard().count() as f64 / (streams + 1) as f64).clamp(1.0, WIDEST_STRETCH)
}

/// How many prompt tokens are computed between two tokens of those who decode, where so many fit into the gap (none: not
/// known yet).
///
/// Whole grains are cheaper than pieces of one: it is the nearest number of these, and one grain may take up to twice the
/// gap; what takes longer is cut after all.
pub fn chunk(fits: Option<u32>, grain: u32) -> u32 {
    let fits = fits.unwrap_or(64);
    match grain {
        0 | 1 => fits.max(8),
        grain if fits >= grain => (fits.saturating_add(grain / 2)) / grain * grain,
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
        let several = [view(0, 0, 0), view(1, 0, 100), View { wants: 3, ..view(2, 0, 0) }];
        assert_eq!(bridged(&several, 9)[0], [(0, 1), (2, 3)], "they take two passes anyway");
        let far: Vec<View> = (3..9).map(|slot| view(slot, 0, 100)).chain([wide]).collect();
        assert_eq!(bridged(&with(&far), 9)[0], [(0, 1), (2, 1), (9, 1)], "too many tokens for a pass");
    }

    #[test]
    fn who_decodes_apart_moves_to_where_most_passes_are_saved() {
        let slots = |numbers: &[u32]| numbers.iter().map(|n| Slot(*n)).collect::<Vec<_>>();
        let count = |decoding: &[u32], reading: &[u32]| passes(&slots(decoding), &slots(reading));
        assert_eq!([count(&[], &[]), count(&[3], &[]), count(&[2, 0, 1], &[]), count(&[0, 2, 5], &[])], [0, 1, 1, 3]);
        assert_eq!([count(&[0, 3], &[1, 2]), count(&[0, 3], &[2]), count(&[0, 5], &[1, 2, 3, 4])], [1, 2, 2]);
        let best = |decoding: &[u32], reading: &[u32], free: &[u32]| {
            move_together(&slots(decoding), &slots(reading), &slots(free)).map(|(from, to)| (from.0, to.0))
        };
        assert_eq!(best(&[0, 2], &[], &[1, 3]), Some((0, 1)));
        assert_eq!(best(&[0, 1, 3, 5], &[], &[2, 4]), Some((5, 2)), "one pass of three");
        assert_eq!(best(&[5, 1, 0], &[2], &[3, 4]), Some((5, 3)), "beside who bridges");
        assert_eq!(best(&[0, 4], &[1, 2], &[]), None);
        assert_eq!(best(&[0, 1, 2], &[], &[3]), None, "they are together");
    }

    #[test]
    fn of_the_next_prompt_no_short_piece_is_read() {
        let read = |first, then: &[u32]| {
            let mut views = vec![view(0, 0, 0), view(1, 0, first)];
            views.extend(then.iter().zip(2..).map(|(prompt, slot)| view(slot, 0, *prompt)));
            let shares = next(&views, BUDGET, Lane(0)).unwrap().1;
            shares.iter().skip(1).map(|share| (share.slot.0, share.tokens)).collect::<Vec<_>>()
        };
        assert_eq!(read(9, &[100]), [(1, 9)]);
        assert_eq!(read(8, &[100]), [(1, 8), (2, 8)]);
        assert_eq!(read(9, &[7, 100]), [(1, 9), (2, 7)]);
        assert_eq!(read(100, &[100]), [(1, 16)]);
    }

    #[test]
    fn chunks_have_no_limit_where_nobody_reads() {
        let chunk =
            |class| next(&[View { class, ..view(0, 0, 0) }, view(1, 0, 2000)], BUDGET, Lane(0)).unwrap().1[1].tokens;
        assert_eq!([Class::Interactive, Class::Batch].map(chunk), [16, 63]);
    }

    #[test]
    fn the_gap_is_stretched_by_those_who_wait() {
        let seats = |streams, waits| {
            let mut views: Vec<View> = (0..streams).map(|slot| view(slot, 0, 0)).collect();
            views.extend((streams..streams + waits).map(|slot| view(slot, 0, 2000)));
            views
        };
        let all =
            [(1, 1), (1, 2), (1, 7), (3, 5), (4, 4), (7, 1)].map(|(streams, waits)| stretch(&seats(streams, waits)));
        assert_eq!(all, [1.0, 1.5, 3.0, 2.0, 1.6, 1.0]);
        let unheard = seats(1, 7).into_iter().map(|view| View { class: Class::Batch, ..view }).collect::<Vec<_>>();
        assert_eq!(stretch(&unheard), 1.0);
    }

    #[test]
    fn chunks_are_whole_grains_where_these_fit() {
        let chunk = |fits, grain| chunk(Some(fits), grain);
        assert_eq!([chunk(150, 1), chunk(15, 1), chunk(1, 1)], [150, 15, 8]);
        assert_eq!([chunk(165, 64), chunk(150, 64), chunk(75, 64), chunk(37, 64)], [192, 128, 64, 64]);
        assert_eq!([chunk(30, 64), chunk(1, 64)], [30, 8], "a grain would take more than twice the gap");
        assert_eq!([chunk(20, 8), chunk(19, 8), chunk(0, 8)], [24, 16, 8]);
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
    fn a_long_prompt_is_passed_by_later_ones_only_so_often() {
        let first = |late| {
            let short = View { arrival: late, ..view(1, 0, 20) };
            next(&[view(0, 0, 600), short, view(2, 0, 0)], BUDGET, Lane(0)).unwrap().1[1].slot
        };
        assert_eq!((1..1000).find(|late| first(*late) == Slot(0)), Some(73));
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
