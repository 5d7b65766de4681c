//! The adapters that are loaded, and which of them may be unloaded.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::backend::AdapterSet;
use crate::file_version::FileVersion;

/// Sets of adapters loaded at once. Each takes the memory of its weights, which is a few percent of the model's.
pub(crate) const MAX_ADAPTER_SETS: usize = 256;

/// Adapters that apply together, each with the bits of its scale.
pub(crate) type AdapterKey = Vec<(PathBuf, u32)>;

/// The key of these adapters, whichever version of their files is there.
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
    /// Those of its files when it was loaded.
    versions: Vec<Option<FileVersion>>,
    adapters: AdapterSet,
    /// Whether other files are at its paths by now: no new sequence uses it.
    is_former: bool,
    /// The number of its last use.
    last_use: u64,
}

impl AdapterSets {
    /// The number of a set that was loaded from these versions of its files, which counts as a use. One that was loaded from others
    /// is a former one from now on.
    pub(crate) fn find(&mut self, key: &AdapterKey, versions: &[Option<FileVersion>]) -> Option<AdapterSet> {
        self.uses += 1;
        let mut found = None;
        for set in self.loaded.iter_mut().filter(|set| set.key == *key) {
            set.is_former = set.versions != versions;
            if !set.is_former {
                set.last_use = self.uses;
                found = Some(set.adapters);
            }
        }
        found
    }

    /// Adds a set that [`find`](Self::find) has not found.
    pub(crate) fn add(&mut self, key: AdapterKey, versions: Vec<Option<FileVersion>>, adapters: AdapterSet) {
        self.uses += 1;
        self.loaded.push(LoadedSet { key, versions, adapters, is_former: false, last_use: self.uses });
    }

    pub(crate) fn len(&self) -> usize {
        self.loaded.len()
    }

    /// Tells which sets to retain.
    pub(crate) fn retain(&mut self, keys: impl IntoIterator<Item = AdapterKey>) {
        self.retained = Some(keys.into_iter().collect());
    }

    /// Removes the idle sets that are not retained, and former ones.
    pub(crate) fn take_unretained(&mut self, is_idle: impl Fn(AdapterSet) -> bool) -> Vec<AdapterSet> {
        let retained = self.retained.as_ref();
        let is_retained = |set: &LoadedSet| !set.is_former && retained.is_none_or(|keys| keys.contains(&set.key));
        let is_unused = |set: &mut LoadedSet| !is_retained(set) && is_idle(set.adapters);
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
            sets.add(key(name), Vec::new(), AdapterSet(at as u32 + 1));
        }
        assert_eq!(sets.take_unretained(|_| true), [], "no set to retain is given yet");
        assert_eq!(sets.find(&key("a"), &[]), Some(AdapterSet(1)));
        assert_eq!(sets.take_least_recent(|adapters| adapters != AdapterSet(2)), Some(AdapterSet(3)));
        sets.retain([key("b")]);
        assert_eq!(sets.take_unretained(|adapters| adapters != AdapterSet(1)), []);
        assert_eq!(sets.take_unretained(|_| true), [AdapterSet(1)]);
        assert_eq!((sets.find(&key("a"), &[]), sets.len()), (None, 1));
    }

    #[test]
    fn a_set_whose_file_is_another_one_now_is_loaded_anew_and_the_former_one_removed_when_idle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let (key, version) = (vec![(path.clone(), 0)], || FileVersion::of_each([&path].into_iter()));
        let mut sets = AdapterSets::default();
        sets.retain([key.clone()]);
        let mut add = |number| {
            assert_eq!(sets.find(&key, &version()), None);
            sets.add(key.clone(), version(), AdapterSet(number));
            assert_eq!(sets.find(&key, &version()), Some(AdapterSet(number)));
        };
        add(1);
        std::fs::write(&path, "1").unwrap();
        add(2);
        // Of the same size, in its place, and older.
        let other = dir.path().join("b.gguf");
        std::fs::write(&other, "2").unwrap();
        std::fs::File::open(&other).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        std::fs::rename(&other, &path).unwrap();
        add(3);
        assert_eq!(sets.take_unretained(|adapters| adapters != AdapterSet(1)), [AdapterSet(2)], "1 is in use");
        assert_eq!(sets.take_unretained(|_| true), [AdapterSet(1)]);
        assert_eq!((sets.find(&key, &version()), sets.len()), (Some(AdapterSet(3)), 1));
    }
}
