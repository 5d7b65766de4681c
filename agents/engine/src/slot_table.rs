//! The slots of all contexts: running sequences, and the tokens that stay resident in the cells of free slots.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::{AdapterContext, Slot, Token};

/// The slots of all contexts.
pub(crate) struct SlotTable<S> {
    /// Slots of each context.
    slots_per_context: u32,
    running: BTreeMap<(AdapterContext, Slot), S>,
    resident: BTreeMap<(AdapterContext, Slot), ResidentPrefix>,
    releases: u64,
}

/// Tokens in the cells of a free slot, which a later prompt may continue.
struct ResidentPrefix {
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

impl<S> SlotTable<S> {
    pub(crate) fn new(slots_per_context: u32) -> Self {
        Self { slots_per_context, running: BTreeMap::new(), resident: BTreeMap::new(), releases: 0 }
    }

    pub(crate) fn running(&self) -> &BTreeMap<(AdapterContext, Slot), S> {
        &self.running
    }

    pub(crate) fn get_mut(&mut self, at: (AdapterContext, Slot)) -> Option<&mut S> {
        self.running.get_mut(&at)
    }

    pub(crate) fn has_free(&self, context: AdapterContext) -> bool {
        self.free(context).next().is_some()
    }

    fn free(&self, context: AdapterContext) -> impl Iterator<Item = Slot> {
        let running = self.running.range((context, Slot(0))..=(context, Slot(u32::MAX)));
        let mut running = running.map(|((_, slot), _)| *slot).peekable();
        // Both are in order.
        (0..self.slots_per_context).map(Slot).filter(move |slot| running.next_if_eq(slot).is_none())
    }

    /// Free slots without prefetched tokens: empty ones first, then in the order of their release.
    pub(crate) fn spare(&self, context: AdapterContext) -> Vec<Slot> {
        let resident = |slot: &Slot| self.resident.get(&(context, *slot));
        let mut spare: Vec<Slot> = self
            .free(context)
            .filter(|slot| resident(slot).is_none_or(|prefix| prefix.prefetched_for.is_none()))
            .collect();
        spare.sort_by_key(|slot| resident(slot).map(|prefix| prefix.release));
        spare
    }

    /// The free slot that saves most for a prompt of which the prefix cache can restore `cached` tokens into any slot. Of equal
    /// slots, the one with the longest match, then an empty one, then the one released first. `is_pinned` tells of a flow
    /// whether a request for its prefetched tokens is still expected.
    pub(crate) fn best_match(
        &self,
        context: AdapterContext,
        prompt: &[Token],
        cached: usize,
        is_pinned: impl Fn(&Arc<str>) -> bool,
    ) -> Option<SlotMatch> {
        let most = prompt.len().saturating_sub(1);
        let rank = |slot: Slot| {
            let Some(prefix) = self.resident.get(&(context, slot)) else {
                return (SlotMatch { slot, matched_tokens: 0, saved_tokens: 0 }, u64::MAX);
            };
            let matched_tokens = common_prefix_len(&prefix.tokens, prompt).min(most);
            let is_expected = prefix.prefetched_for.as_ref().is_some_and(&is_pinned);
            let lost = if is_expected { prefix.tokens.len() - matched_tokens } else { 0 };
            let saved_tokens = matched_tokens.saturating_sub(cached) as i64 - lost as i64;
            (SlotMatch { slot, matched_tokens, saved_tokens }, u64::MAX - 1 - prefix.release)
        };
        let best = self.free(context).map(rank).max_by_key(|(found, age)| {
            let SlotMatch { slot, matched_tokens, saved_tokens } = *found;
            (saved_tokens, matched_tokens, *age, u32::MAX - slot.0)
        });
        best.map(|(found, _)| found)
    }

    /// Puts a sequence into a slot, whose resident tokens are no longer available to others.
    pub(crate) fn assign(&mut self, at: (AdapterContext, Slot), sequence: S) {
        self.resident.remove(&at);
        self.running.insert(at, sequence);
    }

    /// Takes a sequence out of its slot. These tokens stay resident in its cells, perhaps prefetched for a flow; without any,
    /// the cells are free.
    pub(crate) fn release(
        &mut self,
        at: (AdapterContext, Slot),
        tokens: Vec<Token>,
        prefetched_for: Option<Arc<str>>,
    ) -> Option<S> {
        let sequence = self.running.remove(&at);
        if sequence.is_some() && !tokens.is_empty() {
            self.releases += 1;
            self.resident.insert(at, ResidentPrefix { tokens, release: self.releases, prefetched_for });
        }
        sequence
    }

    /// Forgets the resident tokens of a free slot.
    pub(crate) fn remove_resident(&mut self, at: (AdapterContext, Slot)) {
        self.resident.remove(&at);
    }

    /// Forgets all resident tokens; the free slots that had some.
    pub(crate) fn take_residents(&mut self) -> Vec<(AdapterContext, Slot)> {
        std::mem::take(&mut self.resident).into_keys().collect()
    }

    /// The sequences that run.
    pub(crate) fn running_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.running.values_mut()
    }

    /// Forgets the resident tokens of a context without running sequences.
    pub(crate) fn remove_context(&mut self, context: AdapterContext) {
        self.resident.retain(|(c, _), _| *c != context);
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

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(|b| Token(b.into())).collect()
    }

    /// Slots of which the first ones have these texts resident.
    fn with_resident(count: u32, texts: &[(&str, Option<&str>)]) -> SlotTable<()> {
        let mut slots = SlotTable::new(count);
        for (slot, (text, flow)) in texts.iter().enumerate() {
            let at = (AdapterContext(0), Slot(slot as u32));
            slots.assign(at, ());
            slots.release(at, tokens(text), flow.map(Arc::from));
        }
        slots
    }

    #[test]
    fn a_prompt_gets_the_slot_with_the_longest_match_or_else_the_one_that_loses_nothing() {
        let mut slots = with_resident(3, &[("abcd", None), ("abxx", None)]);
        let at = |slot| (AdapterContext(0), Slot(slot));
        let best = |slots: &SlotTable<()>, text| {
            let found = slots.best_match(AdapterContext(0), &tokens(text), 0, |_| false);
            found.map(|found| (found.slot, found.matched_tokens))
        };
        assert_eq!(best(&slots, "abcz"), Some((Slot(0), 3)));
        assert_eq!(best(&slots, "abcd"), Some((Slot(0), 3)), "the last token is computed");
        assert_eq!(best(&slots, "zzz"), Some((Slot(2), 0)), "an empty slot loses nothing");
        slots.assign(at(2), ());
        assert_eq!(best(&slots, "zzz"), Some((Slot(0), 0)), "the oldest is overwritten first");
        slots.assign(at(0), ());
        slots.assign(at(1), ());
        assert_eq!(best(&slots, "abc"), None);
        assert!(slots.has_free(AdapterContext(1)));
    }

    #[test]
    fn prefetched_tokens_stay_for_their_flow() {
        let slots = with_resident(3, &[("ab answers one", Some("b")), ("cd answers", None)]);
        let best = |text: &str, cached, is_pinned| {
            slots.best_match(AdapterContext(0), &tokens(text), cached, |_| is_pinned).unwrap()
        };
        let found = |slot, matched_tokens, saved_tokens| SlotMatch { slot: Slot(slot), matched_tokens, saved_tokens };
        assert_eq!(best("ab answers one question", 2, true), found(0, 14, 12), "the request they were prefetched for");
        assert_eq!(best("ab asks", 2, true), found(2, 0, 0), "its prefix is cached elsewhere");
        assert_eq!(best("ab asks", 2, false), found(0, 4, 2), "no request for them is expected any more");
        assert_eq!(best("ab answers two", 0, true), found(0, 11, 8), "it saves more than is lost");
        let full = with_resident(1, &[("ab answers one", Some("b"))]);
        assert_eq!(full.best_match(AdapterContext(0), &tokens("x"), 0, |_| true), Some(found(0, 0, -14)));
        assert_eq!(slots.spare(AdapterContext(0)), [Slot(2), Slot(1)], "an empty one first, never prefetched tokens");
    }
}
