//! Which adapters have a lane, and which lanes may go.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::backend::Lane;

/// Lanes of adapters at once: each has cells of its own, which cost memory.
pub(crate) const MAX_LANES: usize = 64;

/// An adapter and the bits of its scale.
pub(crate) type Key = (PathBuf, u32);

/// The lanes of adapters that are loaded.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    known: Vec<Known>,
    /// The adapters that are to stay, once somebody has said so.
    listed: Option<HashSet<Key>>,
    uses: u64,
}

#[derive(Debug)]
struct Known {
    key: Key,
    lane: Lane,
    /// Which use was the last one.
    used: u64,
}

impl Lanes {
    /// The lane of an adapter, which counts as a use.
    pub(crate) fn find(&mut self, key: &Key) -> Option<Lane> {
        self.uses += 1;
        let known = self.known.iter_mut().find(|known| known.key == *key)?;
        known.used = self.uses;
        Some(known.lane)
    }

    pub(crate) fn add(&mut self, key: Key, lane: Lane) {
        self.uses += 1;
        self.known.push(Known { key, lane, used: self.uses });
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Only these adapters are to stay.
    pub(crate) fn list(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.listed = Some(keys.into_iter().collect());
    }

    /// Takes out the lanes that are no longer listed and idle.
    pub(crate) fn unlisted(&mut self, idle: impl Fn(Lane) -> bool) -> Vec<Lane> {
        let Some(listed) = &self.listed else { return Vec::new() };
        let goes = |known: &mut Known| !listed.contains(&known.key) && idle(known.lane);
        self.known.extract_if(.., goes).map(|known| known.lane).collect()
    }

    /// Takes out the idle lane that was used least lately.
    pub(crate) fn oldest(&mut self, idle: impl Fn(Lane) -> bool) -> Option<Lane> {
        let of = 0..self.known.len();
        let at = of.filter(|at| idle(self.known[*at].lane)).min_by_key(|at| self.known[*at].used)?;
        Some(self.known.swap_remove(at).lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        (name.into(), 0)
    }

    #[test]
    fn lanes_go_when_they_are_no_longer_listed_or_the_oldest_and_never_while_in_use() {
        let mut lanes = Lanes::default();
        for (at, name) in ["a", "b", "c"].iter().enumerate() {
            lanes.add(key(name), Lane(at as u32 + 1));
        }
        assert_eq!(lanes.unlisted(|_| true), [], "nobody has said which are to stay");
        assert_eq!(lanes.find(&key("a")), Some(Lane(1)));
        assert_eq!(lanes.oldest(|lane| lane != Lane(2)), Some(Lane(3)));
        lanes.list([key("b")]);
        assert_eq!(lanes.unlisted(|lane| lane != Lane(1)), []);
        assert_eq!(lanes.unlisted(|_| true), [Lane(1)]);
        assert_eq!((lanes.find(&key("a")), lanes.len()), (None, 1));
    }
}
