//! The prefix cache: prompt prefixes in host memory as the cells they fill, so that none is computed twice.
//!
//! An entry is bytes: it is copied into the cells of as many sequences as need it, independently of what other slots do
//! meanwhile, and outlives all of them. An entry belongs to the adapters that it was computed with: under others it is wrong.
//!
//! When the budget is used up, prefixes that no flow has pinned are evicted first; among those, and among the pinned ones in
//! turn, the order is that of GreedyDual-Size (Cao and Irani, 1997), which weighs the seconds to recompute an entry against
//! its bytes and the time since its last use.

use std::sync::Arc;

use crate::backend::{AdapterSet, Token};
use crate::prefix_pins::PrefixPins;

/// Shorter prefixes are computed faster than they are restored.
pub(crate) const MIN_PREFIX_TOKENS: usize = 16;

/// Cached prefixes, within a budget of bytes.
pub(crate) struct PrefixCache {
    budget: usize,
    bytes: usize,
    entries: Vec<CachedPrefix>,
    /// The value of the last evicted entry; GreedyDual-Size calls it L.
    inflation: f64,
    /// Flows whose prefixes will be needed soon.
    pins: PrefixPins,
}

struct CachedPrefix {
    adapters: AdapterSet,
    flow: Arc<str>,
    /// Whether it is the same for every task.
    is_fixed: bool,
    tokens: Arc<[Token]>,
    state: Arc<[u8]>,
    seconds: f64,
    /// GreedyDual-Size calls it H.
    value: f64,
}

impl PrefixCache {
    pub(crate) fn new(budget: usize, pins: PrefixPins) -> Self {
        Self { budget, bytes: 0, entries: Vec::new(), inflation: 0.0, pins }
    }

    /// The longest cached prefix of a prompt, at most all but its last token, whose logits are needed.
    pub(crate) fn find(&mut self, adapters: AdapterSet, prompt: &[Token]) -> Option<(usize, Arc<[u8]>)> {
        let matches = |entry: &&mut CachedPrefix| {
            entry.adapters == adapters && entry.tokens.len() < prompt.len() && prompt.starts_with(&entry.tokens)
        };
        let longest = self.entries.iter_mut().filter(matches).max_by_key(|entry| entry.tokens.len())?;
        longest.value = self.inflation + longest.seconds / longest.state.len().max(1) as f64;
        Some((longest.tokens.len(), longest.state.clone()))
    }

    /// Whether exactly this prefix is cached.
    pub(crate) fn contains(&self, adapters: AdapterSet, tokens: &[Token]) -> bool {
        self.entries.iter().any(|entry| entry.adapters == adapters && *entry.tokens == *tokens)
    }

    /// Caches a prefix that took so many seconds to compute, if its value is above that of the entries it would evict. `is_fixed`: it
    /// is the same for every task.
    pub(crate) fn insert(
        &mut self,
        adapters: AdapterSet,
        (flow, is_fixed): (&Arc<str>, bool),
        tokens: &[Token],
        state: &Arc<[u8]>,
        seconds: f64,
    ) {
        if state.len() > self.budget || self.contains(adapters, tokens) {
            return;
        }
        let value = self.inflation + seconds / state.len().max(1) as f64;
        self.bytes += state.len();
        let (tokens, state) = (tokens.into(), state.clone());
        self.entries.push(CachedPrefix { adapters, flow: flow.clone(), is_fixed, tokens, state, seconds, value });
        while self.bytes > self.budget {
            self.evict();
        }
    }

    /// Whether a flow is pinned.
    pub(crate) fn is_pinned(&self, flow: &Arc<str>) -> bool {
        self.pins.contains(flow)
    }

    fn evict(&mut self) {
        let rank = |entry: &CachedPrefix| (self.pins.contains(&entry.flow), entry.value);
        let least = (0..self.entries.len()).min_by(|a, b| {
            let (a, b) = (rank(&self.entries[*a]), rank(&self.entries[*b]));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let evicted = self.entries.swap_remove(least.expect("bytes are over the budget, so there is an entry"));
        self.bytes -= evicted.state.len();
        self.inflation = self.inflation.max(evicted.value);
        tracing::debug!(
            flow = %evicted.flow,
            tokens = evicted.tokens.len(),
            bytes = evicted.state.len(),
            "evicted a prefix from the prefix cache"
        );
    }

    /// Removes the prefixes of unloaded adapters.
    pub(crate) fn remove_adapters(&mut self, adapters: AdapterSet) {
        self.retain(|entry| entry.adapters != adapters);
    }

    /// Removes the prefixes that may hold the text of a caller.
    pub(crate) fn remove_text(&mut self) {
        self.retain(|entry| entry.is_fixed);
    }

    fn retain(&mut self, is_kept: impl Fn(&CachedPrefix) -> bool) {
        self.entries.retain(is_kept);
        self.bytes = self.entries.iter().map(|entry| entry.state.len()).sum();
    }

    /// Bytes of host memory in use.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(|b| Token(b.into())).collect()
    }

    fn flow(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn the_longest_prefix_with_the_same_adapters_is_found() {
        let mut cache = PrefixCache::new(100, PrefixPins::default());
        cache.insert(AdapterSet(0), (&flow("a"), true), &tokens("You"), &[1; 3].into(), 1.0);
        cache.insert(AdapterSet(0), (&flow("a"), true), &tokens("You are"), &[2; 7].into(), 1.0);
        cache.insert(AdapterSet(1), (&flow("a"), true), &tokens("You are a"), &[3; 9].into(), 1.0);
        assert_eq!(cache.find(AdapterSet(0), &tokens("You are a sailor")).unwrap(), (7, vec![2; 7].into()));
        assert_eq!(cache.find(AdapterSet(0), &tokens("Your")).unwrap().0, 3);
        assert_eq!(cache.find(AdapterSet(0), &tokens("You are")).unwrap().0, 3, "the last token is computed");
        assert!(cache.find(AdapterSet(1), &tokens("You are")).is_none());
    }

    #[test]
    fn pinned_prefixes_stay_longest_and_then_those_that_are_costly_and_used() {
        let pins = PrefixPins::default();
        let mut cache = PrefixCache::new(30, pins.clone());
        cache.insert(AdapterSet(0), (&flow("cheap"), true), &tokens("cheap."), &[0; 10].into(), 1.0);
        cache.insert(AdapterSet(0), (&flow("dear"), true), &tokens("dear.."), &[0; 10].into(), 5.0);
        cache.insert(AdapterSet(0), (&flow("next"), true), &tokens("next.."), &[0; 10].into(), 0.5);
        let pin = pins.pin(vec![flow("next")]);
        cache.insert(AdapterSet(0), (&flow("new"), true), &tokens("new..."), &[0; 10].into(), 2.0);
        let contains = |cache: &PrefixCache, text| cache.contains(AdapterSet(0), &tokens(text));
        assert!(!contains(&cache, "cheap.") && contains(&cache, "next.."));
        drop(pin);
        cache.insert(AdapterSet(0), (&flow("newer"), true), &tokens("newer."), &[0; 10].into(), 2.0);
        assert!(!contains(&cache, "next..") && contains(&cache, "dear.."));
        cache.insert(AdapterSet(0), (&flow("huge"), true), &tokens("huge.."), &[0; 31].into(), 99.0);
        assert_eq!(cache.bytes(), 30);
    }

    #[test]
    fn only_prefixes_that_are_the_same_for_every_task_outlive_the_text_of_callers() {
        let mut cache = PrefixCache::new(100, PrefixPins::default());
        cache.insert(AdapterSet(0), (&flow("a"), true), &tokens("You are"), &[1; 7].into(), 1.0);
        cache.insert(AdapterSet(0), (&flow("a"), false), &tokens("You are Ann"), &[2; 9].into(), 1.0);
        cache.remove_text();
        assert_eq!(cache.bytes(), 7);
        assert_eq!(cache.find(AdapterSet(0), &tokens("You are Ann's")).unwrap().0, 7);
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_every_match_is_a_prefix(
            prompts in prop::collection::vec((0..2u32, "[ab]{1,6}", 1..40usize), 0..60),
        ) {
            let mut cache = PrefixCache::new(100, PrefixPins::default());
            for (adapters, text, size) in prompts {
                let (adapters, prompt) = (AdapterSet(adapters), tokens(&text));
                if let Some((length, _)) = cache.find(adapters, &prompt) {
                    prop_assert!(length < prompt.len() && cache.contains(adapters, &prompt[..length]));
                }
                cache.insert(adapters, (&flow(&text), true), &prompt, &vec![0; size].into(), 1.0);
                prop_assert!(cache.bytes() <= 100);
            }
        }
    }
}
