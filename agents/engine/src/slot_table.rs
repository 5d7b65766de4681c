//! The slots: running sequences, and the tokens that stay resident in the cells of free slots.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::adjacency;
use crate::backend::{AdapterSet, Slot, Token};

/// What a slot table knows of a sequence.
pub(crate) trait HasAdapters {
    /// The adapters that it is computed with.
    fn adapters(&self) -> AdapterSet;
}

/// All slots.
pub(crate) struct SlotTable<S> {
    count: u32,
    running: BTreeMap<Slot, S>,
    resident: BTreeMap<Slot, ResidentPrefix>,
    releases: u64,
}

/// Tokens in the cells of a free slot, which a later prompt may continue.
struct ResidentPrefix {
    /// The adapters that they were computed with.
    adapters: AdapterSet,
    tokens: Vec<Token>,
    /// The number of the release that left them; the oldest is overwritten first.
    release: u64,
    /// The flow they were prefetched for.
    prefetched_for: Option<Arc<str>>,
}

/// A free slot for a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotMatch {
    pub(crate) slot: Slot,
    /// Tokens of the prompt that are resident in its cells, at most all but the last one.
    pub(crate) matched_tokens: usize,
    /// Tokens that this slot saves computing, less the prefetched tokens of other flows that it overwrites.
    pub(crate) saved_tokens: i64,
}

impl<S: HasAdapters> SlotTable<S> {
    pub(crate) fn new(count: u32) -> Self {
        Self { count, running: BTreeMap::new(), resident: BTreeMap::new(), releases: 0 }
    }

    pub(crate) fn running(&self) -> &BTreeMap<Slot, S> {
        &self.running
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut S> {
        self.running.get_mut(&slot)
    }

    pub(crate) fn has_free(&self) -> bool {
        self.free().next().is_some()
    }

    fn free(&self) -> impl Iterator<Item = Slot> {
        let mut running = self.running.keys().peekable();
        // Both are in order.
        (0..self.count).map(Slot).filter(move |slot| running.next_if_eq(&slot).is_none())
    }

    /// How many tokens are resident in the cells of a free slot.
    pub(crate) fn resident_len(&self, slot: Slot) -> usize {
        self.resident.get(&slot).map_or(0, |prefix| prefix.tokens.len())
    }

    /// The adapters of what each slot holds.
    fn adapters(&self) -> Vec<Option<AdapterSet>> {
        let of = |slot: Slot| {
            let running = self.running.get(&slot).map(HasAdapters::adapters);
            running.or_else(|| self.resident.get(&slot).map(|prefix| prefix.adapters))
        };
        (0..self.count).map(|slot| of(Slot(slot))).collect()
    }

    /// The free slot that saves most for a prompt of which the prefix cache can restore `cached` tokens into any slot. Of equal
    /// slots, the one with the longest match, then an empty one, beside slots with the same adapters if there is such a one, then
    /// the one released first. `is_pinned` tells of a flow whether a request for its prefetched tokens is still expected.
    pub(crate) fn best_match(
        &self,
        adapters: AdapterSet,
        prompt: &[Token],
        cached: usize,
        is_pinned: impl Fn(&Arc<str>) -> bool,
    ) -> Option<SlotMatch> {
        let most = prompt.len().saturating_sub(1);
        let rank = |slot: Slot| {
            let Some(prefix) = self.resident.get(&slot) else {
                return (SlotMatch { slot, matched_tokens: 0, saved_tokens: 0 }, u64::MAX);
            };
            let common = if prefix.adapters == adapters { common_prefix_len(&prefix.tokens, prompt) } else { 0 };
            let matched_tokens = common.min(most);
            let is_expected = prefix.prefetched_for.as_ref().is_some_and(&is_pinned);
            let lost = if is_expected { prefix.tokens.len() - matched_tokens } else { 0 };
            let saved_tokens = matched_tokens.saturating_sub(cached) as i64 - lost as i64;
            (SlotMatch { slot, matched_tokens, saved_tokens }, u64::MAX - 1 - prefix.release)
        };
        let of = self.adapters();
        let best = self.free().map(rank).max_by_key(|(found, age)| {
            let SlotMatch { slot, matched_tokens, saved_tokens } = *found;
            let room = adjacency::room(&of, slot.0 as usize, adapters);
            (saved_tokens, matched_tokens, *age, room, u32::MAX - slot.0)
        });
        best.map(|(found, _)| found)
    }

    /// Puts a sequence into a slot, whose resident tokens are no longer available to others.
    pub(crate) fn assign(&mut self, slot: Slot, sequence: S) {
        self.resident.remove(&slot);
        self.running.insert(slot, sequence);
    }

    /// Takes a sequence out of its slot. These tokens stay resident in its cells, perhaps prefetched for a flow; without any,
    /// the cells are free.
    pub(crate) fn release(&mut self, slot: Slot, tokens: Vec<Token>, prefetched_for: Option<Arc<str>>) -> Option<S> {
        let sequence = self.running.remove(&slot)?;
        if !tokens.is_empty() {
            self.releases += 1;
            let (adapters, release) = (sequence.adapters(), self.releases);
            self.resident.insert(slot, ResidentPrefix { adapters, tokens, release, prefetched_for });
        }
        Some(sequence)
    }

    /// Exchanges what two slots hold.
    pub(crate) fn exchange(&mut self, one: Slot, other: Slot) {
        fn exchange_entries<V>(entries: &mut BTreeMap<Slot, V>, one: Slot, other: Slot) {
            let of_one = entries.remove(&one);
            if let Some(value) = entries.remove(&other) {
                entries.insert(one, value);
            }
            if let Some(value) = of_one {
                entries.insert(other, value);
            }
        }
        exchange_entries(&mut self.running, one, other);
        exchange_entries(&mut self.resident, one, other);
    }

    /// Forgets the resident tokens of a free slot.
    pub(crate) fn remove_resident(&mut self, slot: Slot) {
        self.resident.remove(&slot);
    }

    /// Forgets the resident tokens of these adapters; the slots that had some.
    pub(crate) fn take_residents(&mut self, is_theirs: impl Fn(AdapterSet) -> bool) -> Vec<Slot> {
        self.resident.extract_if(.., |_, prefix| is_theirs(prefix.adapters)).map(|(slot, _)| slot).collect()
    }

    /// The sequences that run.
    pub(crate) fn running_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.running.values_mut()
    }

    /// Empties all slots.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = S> {
        self.resident.clear();
        std::mem::take(&mut self.running).into_values()
    }
}

fn common_prefix_len(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(|b| Token(b.into())).collect()
    }

    impl HasAdapters for AdapterSet {
        fn adapters(&self) -> AdapterSet {
            *self
        }
    }

    /// Slots of which the first ones have these texts resident.
    fn with_resident(count: u32, texts: &[(&str, Option<&str>)]) -> SlotTable<AdapterSet> {
        let mut slots = SlotTable::new(count);
        for (slot, (text, flow)) in texts.iter().enumerate() {
            let slot = Slot(slot as u32);
            slots.assign(slot, AdapterSet::NONE);
            slots.release(slot, tokens(text), flow.map(Arc::from));
        }
        slots
    }

    #[test]
    fn a_prompt_gets_the_slot_with_the_longest_match_or_else_the_one_that_loses_nothing() {
        let mut slots = with_resident(3, &[("abcd", None), ("abxx", None)]);
        let best = |slots: &SlotTable<AdapterSet>, text| {
            let found = slots.best_match(AdapterSet::NONE, &tokens(text), 0, |_| false);
            found.map(|found| (found.slot, found.matched_tokens))
        };
        assert_eq!(best(&slots, "abcz"), Some((Slot(0), 3)));
        assert_eq!(best(&slots, "abcd"), Some((Slot(0), 3)), "the last token is computed");
        assert_eq!(best(&slots, "zzz"), Some((Slot(2), 0)), "an empty slot loses nothing");
        slots.assign(Slot(2), AdapterSet(1));
        assert_eq!(best(&slots, "zzz"), Some((Slot(0), 0)), "the oldest is overwritten first");
        slots.assign(Slot(0), AdapterSet::NONE);
        slots.assign(Slot(1), AdapterSet(1));
        assert_eq!(best(&slots, "abc"), None);
        assert!(!slots.has_free());
    }

    #[test]
    fn tokens_of_other_adapters_match_nothing() {
        let mut slots = with_resident(2, &[("abcd", None)]);
        slots.assign(Slot(1), AdapterSet(7));
        slots.release(Slot(1), tokens("abcx"), None);
        let best = |slots: &SlotTable<AdapterSet>, adapters| {
            let found = slots.best_match(AdapterSet(adapters), &tokens("abcx"), 0, |_| false);
            found.map(|found| (found.slot, found.matched_tokens))
        };
        assert_eq!(best(&slots, 0), Some((Slot(0), 3)));
        assert_eq!(best(&slots, 7), Some((Slot(1), 3)));
        assert_eq!(best(&slots, 8), Some((Slot(0), 0)), "the oldest is overwritten");
        assert_eq!(slots.take_residents(|adapters| adapters == AdapterSet(7)), [Slot(1)]);
        assert_eq!(best(&slots, 7), Some((Slot(1), 0)), "an empty slot loses nothing");
    }

    #[test]
    fn prefetched_tokens_stay_for_their_flow() {
        let slots = with_resident(3, &[("ab answers one", Some("b")), ("cd answers", None)]);
        let best = |text: &str, cached, is_pinned| {
            slots.best_match(AdapterSet::NONE, &tokens(text), cached, |_| is_pinned).unwrap()
        };
        let found = |slot, matched_tokens, saved_tokens| SlotMatch { slot: Slot(slot), matched_tokens, saved_tokens };
        assert_eq!(best("ab answers one question", 2, true), found(0, 14, 12), "the request they were prefetched for");
        assert_eq!(best("ab asks", 2, true), found(2, 0, 0), "its prefix is cached elsewhere");
        assert_eq!(best("ab asks", 2, false), found(0, 4, 2), "no request for them is expected any more");
        assert_eq!(best("ab answers two", 0, true), found(0, 11, 8), "it saves more than is lost");
        let full = with_resident(1, &[("ab answers one", Some("b"))]);
        assert_eq!(full.best_match(AdapterSet::NONE, &tokens("x"), 0, |_| true), Some(found(0, 0, -14)));
    }

    #[test]
    fn an_exchange_keeps_what_both_slots_hold() {
        let mut slots = with_resident(4, &[("abcd", Some("b")), ("abxx", None)]);
        slots.assign(Slot(2), AdapterSet(1));
        let held = |slots: &SlotTable<AdapterSet>| {
            let resident = |slot| slots.resident.get(&Slot(slot)).map(|prefix| prefix.tokens.clone());
            let running = slots.running().iter().map(|(slot, adapters)| (slot.0, adapters.0)).collect::<Vec<_>>();
            ([0, 1, 2, 3].map(resident), running)
        };
        let text = |text| Some(tokens(text));
        slots.exchange(Slot(0), Slot(2));
        assert_eq!(held(&slots), ([None, text("abxx"), text("abcd"), None], vec![(0, 1)]));
        slots.exchange(Slot(2), Slot(3));
        slots.exchange(Slot(0), Slot(1));
        assert_eq!(held(&slots), ([text("abxx"), None, None, text("abcd")], vec![(1, 1)]));
        slots.assign(Slot(2), AdapterSet(5));
        slots.exchange(Slot(2), Slot(1));
        assert_eq!(held(&slots).1, [(1, 5), (2, 1)]);
    }

    proptest! {
        /// Where sequences lie decides only between empty slots: a slot with tokens is chosen as if there were no others.
        #[test]
        fn no_prefix_is_lost_for_the_sake_of_adjacent_slots(
            held in prop::collection::vec((0..3u32, "[ab]{0,4}", any::<bool>()), 1..10),
            adapters in 0..3u32,
            prompt in "[ab]{1,5}",
        ) {
            let mut slots = SlotTable::new(held.len() as u32);
            for (at, (adapters, text, runs)) in held.iter().enumerate() {
                let slot = Slot(at as u32);
                slots.assign(slot, AdapterSet(*adapters));
                if !runs {
                    slots.release(slot, tokens(text), None);
                }
            }
            let prompt = tokens(&prompt);
            let found = slots.best_match(AdapterSet(adapters), &prompt, 0, |_| false);
            prop_assert_eq!(found.is_some(), slots.has_free());
            let Some(found) = found else { return Ok(()) };
            let of = |(set, text, _): &(u32, String, bool)| {
                let common = if *set == adapters { common_prefix_len(&tokens(text), &prompt) } else { 0 };
                common.min(prompt.len() - 1)
            };
            let free = || held.iter().filter(|(_, _, runs)| !runs);
            prop_assert_eq!(found.matched_tokens, free().map(of).max().unwrap_or(0));
            let taken = &held[found.slot.0 as usize].1;
            let has_empty = free().any(|(_, text, _)| text.is_empty());
            prop_assert!(taken.is_empty() || found.matched_tokens > 0 || !has_empty, "an empty slot was there");
            let equal = free().filter(|slot| of(slot) == found.matched_tokens && !slot.1.is_empty());
            let first = equal.map(|(_, text, _)| text).next();
            prop_assert!(taken.is_empty() || first == Some(taken), "of equal ones, the first released is overwritten");
        }
    }
}
