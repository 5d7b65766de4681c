//! The adapters that are loaded, and which of them may be unloaded.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::backend::AdapterSet;

/// Sets of adapters loaded at once. Each takes the memory of its weights, which is a few percent of the model's.
pub(crate) const MAX_ADAPTER_SETS: usize = 256;

/// Adapters that apply together, each with the bits of its scale.
pub(crate) type AdapterKey = Vec<(PathBuf, u32)>;

/// The key of these adapters.
pub(crate) fn key_of(adapters: &[(PathBuf, f32)]) -> AdapterKey {
    adapters.iter().map(|(path, scale)| (path.clone(), scale.to_bits())).collect()
}

/// The sets of adapters that are loaded.
#[derive(Debug, Default)]
pub(crate) struct AdapterSets {
    loaded: Vec<LoadedSet>,
    /// The sets to retain, once they have been told.
    retained: Option<HashSet<AdapterKey>>,
    uses: u64,
}

#[derive(Debug)]
struct LoadedSet {
    key: AdapterKey,
    adapters: AdapterSet,
    /// The number of its last use.
    last_use: u64,
}

impl AdapterSets {
    /// The number of a set, which counts as a use.
    pub(crate) fn find(&mut self, key: &AdapterKey) -> Option<AdapterSet> {
        self.uses += 1;
        let set = self.loaded.iter_mut().find(|set| set.key == *key)?;
        set.last_use = self.uses;
        Some(set.adapters)
    }

    pub(crate) fn add(&mut self, key: AdapterKey, adapters: AdapterSet) {
        self.uses += 1;
        self.loaded.push(LoadedSet { key, adapters, last_use: self.uses });
    }

    pub(crate) fn len(&self) -> usize {
        self.loaded.len()
    }

    /// Tells which sets to retain.
    pub(crate) fn retain(&mut self, keys: impl IntoIterator<Item = AdapterKey>) {
        self.retained = Some(keys.into_iter().collect());
    }

    /// Removes the idle sets that are not retained.
    pub(crate) fn take_unretained(&mut self, is_idle: impl Fn(AdapterSet) -> bool) -> Vec<AdapterSet> {
        let Some(retained) = &self.retained else { return Vec::new() };
        let is_unused = |set: &mut LoadedSet| !retained.contains(&set.key) && is_idle(set.adapters);
        self.loaded.extract_if(.., is_unused).map(|set| set.adapters).collect()
    }

    /// Removes the least recently used idle set.
    pub(crate) fn take_least_recent(&mut self, is_idle: impl Fn(AdapterSet) -> bool) -> Option<AdapterSet> {
        let indices = 0..self.loaded.len();
        let idle = indices.filter(|at| is_idle(self.loaded[*at].adapters));
        let at = idle.min_by_key(|at| self.loaded[*at].last_use)?;
        Some(self.loaded.swap_remove(at).adapters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> AdapterKey {
        vec![(name.into(), 0)]
    }

    #[test]
    fn sets_are_removed_when_not_retained_or_least_recent_and_never_while_in_use() {
        let mut sets = AdapterSets::default();
        for (at, name) in ["a", "b", "c"].iter().enumerate() {
            sets.add(key(name), AdapterSet(at as u32 + 1));
        }
        assert_eq!(sets.take_unretained(|_| true), [], "no set to retain is given yet");
        assert_eq!(sets.find(&key("a")), Some(AdapterSet(1)));
        assert_eq!(sets.take_least_recent(|adapters| adapters != AdapterSet(2)), Some(AdapterSet(3)));
        sets.retain([key("b")]);
        assert_eq!(sets.take_unretained(|adapters| adapters != AdapterSet(1)), []);
        assert_eq!(sets.take_unretained(|_| true), [AdapterSet(1)]);
        assert_eq!((sets.find(&key("a")), sets.len()), (None, 1));
    }
}
