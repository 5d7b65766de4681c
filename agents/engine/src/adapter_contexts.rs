//! The contexts of loaded adapters, and which of them may be unloaded.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::backend::AdapterContext;

/// Adapters loaded at once: each has a KV cache of its own, which costs memory.
pub(crate) const MAX_ADAPTERS: usize = 64;

/// An adapter and the bits of its scale.
pub(crate) type AdapterKey = (PathBuf, u32);

/// The contexts of the adapters that are loaded.
#[derive(Debug, Default)]
pub(crate) struct AdapterContexts {
    loaded: Vec<LoadedAdapter>,
    /// The adapters to retain, once they have been set.
    retained: Option<HashSet<AdapterKey>>,
    uses: u64,
}

#[derive(Debug)]
struct LoadedAdapter {
    key: AdapterKey,
    context: AdapterContext,
    /// The number of its last use.
    last_use: u64,
}

impl AdapterContexts {
    /// The context of an adapter, which counts as a use.
    pub(crate) fn find(&mut self, key: &AdapterKey) -> Option<AdapterContext> {
        self.uses += 1;
        let adapter = self.loaded.iter_mut().find(|adapter| adapter.key == *key)?;
        adapter.last_use = self.uses;
        Some(adapter.context)
    }

    pub(crate) fn add(&mut self, key: AdapterKey, context: AdapterContext) {
        self.uses += 1;
        self.loaded.push(LoadedAdapter { key, context, last_use: self.uses });
    }

    pub(crate) fn len(&self) -> usize {
        self.loaded.len()
    }

    /// Sets the adapters to retain.
    pub(crate) fn retain(&mut self, keys: impl IntoIterator<Item = AdapterKey>) {
        self.retained = Some(keys.into_iter().collect());
    }

    /// Removes the idle contexts of adapters that are not retained.
    pub(crate) fn take_unretained(&mut self, is_idle: impl Fn(AdapterContext) -> bool) -> Vec<AdapterContext> {
        let Some(retained) = &self.retained else { return Vec::new() };
        let is_unused = |adapter: &mut LoadedAdapter| !retained.contains(&adapter.key) && is_idle(adapter.context);
        self.loaded.extract_if(.., is_unused).map(|adapter| adapter.context).collect()
    }

    /// Removes the least recently used idle context.
    pub(crate) fn take_least_recent(&mut self, is_idle: impl Fn(AdapterContext) -> bool) -> Option<AdapterContext> {
        let indices = 0..self.loaded.len();
        let idle = indices.filter(|at| is_idle(self.loaded[*at].context));
        let at = idle.min_by_key(|at| self.loaded[*at].last_use)?;
        Some(self.loaded.swap_remove(at).context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> AdapterKey {
        (name.into(), 0)
    }

    #[test]
    fn contexts_are_removed_when_not_retained_or_least_recent_and_never_while_in_use() {
        let mut contexts = AdapterContexts::default();
        for (at, name) in ["a", "b", "c"].iter().enumerate() {
            contexts.add(key(name), AdapterContext(at as u32 + 1));
        }
        assert_eq!(contexts.take_unretained(|_| true), [], "no set to retain is given yet");
        assert_eq!(contexts.find(&key("a")), Some(AdapterContext(1)));
        assert_eq!(contexts.take_least_recent(|context| context != AdapterContext(2)), Some(AdapterContext(3)));
        contexts.retain([key("b")]);
        assert_eq!(contexts.take_unretained(|context| context != AdapterContext(1)), []);
        assert_eq!(contexts.take_unretained(|_| true), [AdapterContext(1)]);
        assert_eq!((contexts.find(&key("a")), contexts.len()), (None, 1));
    }
}
