//! Which slots lie beside each other: sequences with the same adapters in adjacent slots share passes over the weights.
//!
//! llama.cpp keeps the cells of each slot in a stream of their own, and computes in one pass only streams whose numbers follow one
//! another without a gap. Source: `llama_batch_allocr::split_equal` with `sequential`, as `llama_kv_cache::init_batch` calls it.

use crate::backend::{AdapterSet, Slot};

/// Slots between two decoding ones that are bridged at most: a pass over the weights of a small model takes as long as two more
/// tokens in it, and tokens of prompts have to be computed anyway.
pub(crate) const MAX_BRIDGED_SLOTS: usize = 3;

/// What a slot holds, and in how many cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SlotContent {
    pub(crate) work: SlotWork,
    pub(crate) cells: u32,
}

/// What is computed in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SlotWork {
    /// Nothing: it is free, or its sequence pauses.
    #[default]
    Nothing,
    /// One token for each token of output, with these adapters.
    Decode(AdapterSet),
    /// A prompt with these adapters, of which a token may bridge a gap.
    Prompt(AdapterSet),
}

/// Passes over the weights that one token in each decoding slot takes, where prompts with the same adapters bridge the gaps between
/// them: one for each group of adjacent slots with the same adapters.
pub(crate) fn weight_passes(slots: impl IntoIterator<Item = SlotWork>) -> usize {
    let (mut passes, mut last) = (0, None);
    for work in slots {
        last = match (work, last) {
            (SlotWork::Nothing, _) => None,
            (SlotWork::Decode(adapters), last) => {
                let is_joined = last.is_some_and(|(of, gap)| of == adapters && gap <= MAX_BRIDGED_SLOTS);
                passes += usize::from(!is_joined);
                Some((adapters, 0))
            }
            (SlotWork::Prompt(adapters), Some((of, gap))) if of == adapters => Some((of, gap + 1)),
            (SlotWork::Prompt(_), _) => None,
        };
    }
    passes
}

/// The exchange of a slot that decodes with these adapters for another one that saves most passes of all sequences together, if any
/// saves one; of equal ones, the one with the fewest cells. The content of both is kept, whatever it is.
pub(crate) fn best_exchange(slots: &[SlotContent], adapters: AdapterSet) -> Option<(Slot, Slot)> {
    let decodes = |at: &usize| slots[*at].work == SlotWork::Decode(adapters);
    let pairs = (0..slots.len()).filter(decodes).flat_map(|from| (0..slots.len()).map(move |to| (from, to)));
    let pairs = pairs.filter(|(from, to)| slots[*from].work != slots[*to].work);
    let passes_after = |(from, to): (usize, usize)| {
        let source = |at| {
            if at == from {
                to
            } else if at == to {
                from
            } else {
                at
            }
        };
        weight_passes((0..slots.len()).map(|at| slots[source(at)].work))
    };
    let now = weight_passes(slots.iter().map(|slot| slot.work));
    let saving = pairs.map(|pair| (passes_after(pair), pair)).filter(|(passes, _)| *passes < now);
    let best = saving.min_by_key(|(passes, (from, to))| (*passes, slots[*from].cells + slots[*to].cells));
    let slot = |at: usize| Slot(u32::try_from(at).unwrap_or(u32::MAX));
    best.map(|(_, (from, to))| (slot(from), slot(to)))
}

/// How well an empty slot lies for these adapters, the best the highest, where `of` tells the adapters of what each slot holds: beside
/// slots of theirs, then far from those of others, so that each set has room to grow.
pub(crate) fn room(of: &[Option<AdapterSet>], slot: usize, adapters: AdapterSet) -> (usize, usize) {
    let is_own = |at: usize| of.get(at).copied().flatten() == Some(adapters);
    let beside = usize::from(is_own(slot + 1)) + usize::from(slot.checked_sub(1).is_some_and(is_own));
    let others = (0..of.len()).filter(|at| of[*at].is_some_and(|other| other != adapters));
    (beside, others.map(|at| at.abs_diff(slot)).min().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Letters decode and capitals are prompts, a set of adapters each; a dot stands for nothing.
    fn works(text: &str) -> Vec<SlotWork> {
        let set = |letter: char| AdapterSet(u32::from(letter.to_ascii_lowercase()));
        let work = |letter: char| match letter {
            '.' => SlotWork::Nothing,
            letter if letter.is_lowercase() => SlotWork::Decode(set(letter)),
            letter => SlotWork::Prompt(set(letter)),
        };
        text.chars().map(work).collect()
    }

    const A: AdapterSet = AdapterSet('a' as u32);

    #[test]
    fn adjacent_slots_with_the_same_adapters_share_a_pass() {
        let texts = ["", "...a", "aaa", "a.aa.a", "aAa", "aAAAa", "aAAAAa", "aA.a", "aBa", "abab", "aabb", "aBbA"];
        assert_eq!(texts.map(|text| weight_passes(works(text))), [0, 1, 1, 3, 1, 1, 2, 2, 2, 4, 2, 2]);
    }

    #[test]
    fn the_exchange_that_saves_most_passes_is_chosen() {
        let best = |text: &str, cells: &[u32]| {
            let cells = cells.iter().copied().chain(std::iter::repeat(1));
            let slots = works(text).into_iter().zip(cells).map(|(work, cells)| SlotContent { work, cells });
            best_exchange(&slots.collect::<Vec<_>>(), A).map(|(from, to)| (from.0, to.0))
        };
        assert_eq!(best("a.a.", &[9, 0, 8, 0]), Some((2, 1)), "the one with fewer cells moves");
        assert_eq!(best("aa.a.a", &[9, 9, 0, 9, 0, 9]), Some((5, 2)), "one pass of four");
        assert_eq!(best("aaA.a", &[9, 9, 9, 0]), Some((4, 3)), "beside a bridge");
        assert_eq!(best("abab", &[1, 9, 9, 1]), Some((0, 3)), "running sequences with other adapters change places");
        assert_eq!(best("abab", &[9, 1, 1, 9]), Some((2, 1)));
        assert_eq!(best("aBa", &[]), Some((0, 1)), "so do prompts");
        assert_eq!(best("bab", &[1, 1, 9]), Some((1, 0)), "it stood between two that go together");
        assert_eq!(["aaa", "aabb", "a", ".a.", "aaAa", "caab"].map(|text| best(text, &[])), [None; 6]);
    }

    #[test]
    fn an_empty_slot_beside_the_same_adapters_is_best_and_then_one_with_room() {
        // Four sets begin one after another, then each has a second sequence.
        let mut of = vec![None; 8];
        for set in [1, 2, 3, 4, 1, 2, 3, 4].map(AdapterSet) {
            let empty = (0..of.len()).filter(|at| of[*at].is_none());
            let best = empty.max_by_key(|at| (room(&of, *at, set), usize::MAX - at)).unwrap();
            of[best] = Some(set);
        }
        let sets: Vec<u32> = of.into_iter().flatten().map(|set| set.0).collect();
        assert_eq!(sets, [1, 1, 3, 3, 4, 4, 2, 2]);
        let mut alone = vec![None; 4];
        for _ in 0..4 {
            let first = alone.iter().position(Option::is_none).unwrap();
            let empty = (0..alone.len()).filter(|at| alone[*at].is_none());
            assert_eq!(empty.max_by_key(|at| (room(&alone, *at, A), usize::MAX - at)), Some(first));
            alone[first] = Some(A);
        }
    }

    /// All arrangements of two slots each of these sets.
    fn pairs_of(sets: &str) -> Vec<String> {
        let mut texts = vec![String::new()];
        for _ in 0..2 * sets.len() {
            let longer = |text: String| {
                let more = sets.chars().filter(|set| text.matches(*set).count() < 2).collect::<Vec<_>>();
                more.into_iter().map(move |set| format!("{text}{set}"))
            };
            texts = texts.into_iter().flat_map(longer).collect();
        }
        texts
    }

    #[test]
    fn eight_slots_of_four_sets_come_close_to_a_pass_each() {
        let (mut before, mut after, mut exchanges) = (0, 0, 0);
        let texts = pairs_of("abcd");
        for text in &texts {
            let mut slots: Vec<SlotContent> =
                works(text).into_iter().map(|work| SlotContent { work, cells: 1 }).collect();
            let passes = |slots: &[SlotContent]| weight_passes(slots.iter().map(|slot| slot.work));
            before += passes(&slots);
            let best =
                |slots: &[SlotContent]| "abcd".chars().find_map(|set| best_exchange(slots, AdapterSet(set as u32)));
            while let Some((from, to)) = best(&slots) {
                slots.swap(from.0 as usize, to.0 as usize);
                exchanges += 1;
            }
            after += passes(&slots);
        }
        let mean = |sum: usize| (10 * sum).div_ceil(texts.len());
        assert_eq!((texts.len(), mean(before), mean(after), mean(exchanges)), (2520, 70, 45, 19));
    }

    proptest! {
        #[test]
        fn every_exchange_saves_a_pass_and_loses_nothing(text in "[abcABC.]{0,12}") {
            let slots = works(&text).into_iter().zip(0..).map(|(work, cells)| SlotContent { work, cells });
            let mut slots: Vec<SlotContent> = slots.collect();
            let passes = |slots: &[SlotContent]| weight_passes(slots.iter().map(|slot| slot.work));
            let sets = || "abc".chars().filter(|letter| text.contains(*letter));
            while let Some((from, to)) = sets().find_map(|set| best_exchange(&slots, AdapterSet(u32::from(set)))) {
                let before = passes(&slots);
                slots.swap(from.0 as usize, to.0 as usize);
                prop_assert!(passes(&slots) < before);
            }
            let mut cells: Vec<u32> = slots.iter().map(|slot| slot.cells).collect();
            cells.sort_unstable();
            prop_assert_eq!(cells, (0..text.len() as u32).collect::<Vec<_>>());
        }
    }
}
