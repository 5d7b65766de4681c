//! Answers that are kept, for nodes that ask for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use artel_roles::Role;
use artel_task::CatalogVersion;
use artel_task::event::Output;
use sha2::{Digest, Sha256};

/// The most answers that are kept: a day's work of a small crew.
const MAX_ANSWERS: usize = 4096;
/// The most bytes of text in them: a small part of what one model's cache takes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Hash of a catalog's version, a role and what is said to it.
pub(crate) type Key = [u8; 32];

/// Answers of all roles, those asked for last; clones are the same cache. It lives as long as the daemon.
#[derive(Clone, Default)]
pub(crate) struct Cache(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    answers: HashMap<Key, (u64, Output)>,
    /// When each answer was last asked for.
    order: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
}

/// The answers under one catalog.
#[derive(Clone)]
pub(crate) struct Earlier {
    cache: Cache,
    catalog: CatalogVersion,
}

impl Cache {
    /// Answers given under another catalog are others.
    pub(crate) fn under(&self, catalog: &CatalogVersion) -> Earlier {
        Earlier { cache: self.clone(), catalog: catalog.clone() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("nothing panics while it holds the cache")
    }
}

impl Earlier {
    pub(crate) fn key(&self, role: &Role, system: &str, user: &str) -> Key {
        let mut hash = Sha256::new();
        for part in [self.catalog.as_str(), role.name.as_str(), system, user] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Output> {
        self.cache.kept().get(key)
    }

    pub(crate) fn put(&self, key: Key, output: &Output) {
        self.cache.kept().put(key, output);
    }
}

/// An answer's JSON takes about as much as its text.
fn size(output: &Output) -> usize {
    output.text.len() * if output.json.is_some() { 2 } else { 1 }
}

impl Kept {
    fn get(&mut self, key: &Key) -> Option<Output> {
        let (used, output) = self.answers.get_mut(key)?;
        self.order.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.order.insert(self.clock, *key);
        Some(output.clone())
    }

    fn put(&mut self, key: Key, output: &Output) {
        if size(output) > MAX_BYTES || self.answers.contains_key(&key) {
            return;
        }
        self.clock += 1;
        self.bytes += size(output);
        self.answers.insert(key, (self.clock, output.clone()));
        self.order.insert(self.clock, key);
        while self.bytes > MAX_BYTES || self.answers.len() > MAX_ANSWERS {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            if let Some((_, output)) = self.answers.remove(&oldest) {
                self.bytes -= size(&output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        key
    }

    #[test]
    fn what_was_asked_for_last_stays() {
        let mut kept = Kept::default();
        for n in 0..MAX_ANSWERS {
            kept.put(key(n), &Output::text(n.to_string()));
        }
        assert_eq!(kept.get(&key(0)), Some(Output::text("0")));
        kept.put(key(MAX_ANSWERS), &Output::text("new"));
        assert_eq!((kept.get(&key(0)).is_some(), kept.get(&key(1)), kept.answers.len()), (true, None, MAX_ANSWERS));
    }

    #[test]
    fn no_more_bytes_are_kept_than_the_limit() {
        let mut kept = Kept::default();
        for n in 0..40 {
            kept.put(key(n), &Output::text("x".repeat(MAX_BYTES / 10)));
        }
        assert!(kept.bytes <= MAX_BYTES && kept.answers.len() == 10 && kept.order.len() == 10);
        kept.put(key(99), &Output::text("x".repeat(MAX_BYTES + 1)));
        assert_eq!(kept.get(&key(99)), None);
    }
}
