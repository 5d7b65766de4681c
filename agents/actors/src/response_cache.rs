//! The response cache, for nodes with `cache: true`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use artel_roles::Role;
use artel_task::CatalogVersion;
use artel_task::event::Output;
use sha2::{Digest, Sha256};

/// A day's work of a few roles.
const MAX_RESPONSES: usize = 4096;
/// Text of all responses together: a small part of one model's KV cache.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Hash of a catalog's version, a role and its prompt.
pub(crate) type ResponseKey = [u8; 32];

/// Responses of all roles, evicted by least recent use; clones are the same cache. It lives as long as the daemon.
#[derive(Clone, Default)]
pub(crate) struct ResponseCache(Arc<Mutex<ResponseEntries>>);

#[derive(Default)]
struct ResponseEntries {
    responses: HashMap<ResponseKey, (u64, Output)>,
    /// When each response was last used.
    order: BTreeMap<u64, ResponseKey>,
    clock: u64,
    bytes: usize,
}

/// The responses under one catalog.
#[derive(Clone)]
pub(crate) struct ScopedResponseCache {
    cache: ResponseCache,
    catalog: CatalogVersion,
}

impl ResponseCache {
    /// A response is valid under its own catalog only.
    pub(crate) fn scoped(&self, catalog: &CatalogVersion) -> ScopedResponseCache {
        ScopedResponseCache { cache: self.clone(), catalog: catalog.clone() }
    }

    /// Drops all responses: they are the texts of callers and of models.
    pub(crate) fn clear(&self) {
        *self.entries() = ResponseEntries::default();
    }

    fn entries(&self) -> MutexGuard<'_, ResponseEntries> {
        self.0.lock().expect("nothing panics while it holds the cache")
    }
}

impl ScopedResponseCache {
    pub(crate) fn key(&self, role: &Role, system: &str, user: &str) -> ResponseKey {
        let mut hash = Sha256::new();
        for part in [self.catalog.as_str(), role.name.as_str(), system, user] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }

    pub(crate) fn get(&self, key: &ResponseKey) -> Option<Output> {
        self.cache.entries().get(key)
    }

    pub(crate) fn put(&self, key: ResponseKey, output: &Output) {
        self.cache.entries().put(key, output);
    }
}

/// The JSON of an output takes about as much as its text.
fn size_bytes(output: &Output) -> usize {
    let reasoning = output.reasoning.as_ref().map_or(0, String::len);
    output.text.len() * if output.json.is_some() { 2 } else { 1 } + reasoning
}

impl ResponseEntries {
    fn get(&mut self, key: &ResponseKey) -> Option<Output> {
        let (used, output) = self.responses.get_mut(key)?;
        self.order.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.order.insert(self.clock, *key);
        Some(output.clone())
    }

    fn put(&mut self, key: ResponseKey, output: &Output) {
        if size_bytes(output) > MAX_BYTES || self.responses.contains_key(&key) {
            return;
        }
        self.clock += 1;
        self.bytes += size_bytes(output);
        self.responses.insert(key, (self.clock, output.clone()));
        self.order.insert(self.clock, key);
        while self.bytes > MAX_BYTES || self.responses.len() > MAX_RESPONSES {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            if let Some((_, output)) = self.responses.remove(&oldest) {
                self.bytes -= size_bytes(&output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ResponseKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        key
    }

    #[test]
    fn the_most_recently_used_response_stays() {
        let mut entries = ResponseEntries::default();
        for n in 0..MAX_RESPONSES {
            entries.put(key(n), &Output::text(n.to_string()));
        }
        assert_eq!(entries.get(&key(0)), Some(Output::text("0")));
        entries.put(key(MAX_RESPONSES), &Output::text("new"));
        assert_eq!(
            (entries.get(&key(0)).is_some(), entries.get(&key(1)), entries.responses.len()),
            (true, None, MAX_RESPONSES)
        );
    }

    #[test]
    fn no_more_bytes_are_cached_than_the_limit() {
        let mut entries = ResponseEntries::default();
        for n in 0..40 {
            entries.put(key(n), &Output::text("x".repeat(MAX_BYTES / 10)));
        }
        assert!(entries.bytes <= MAX_BYTES && entries.responses.len() == 10 && entries.order.len() == 10);
        entries.put(key(99), &Output::text("x".repeat(MAX_BYTES + 1)));
        assert_eq!(entries.get(&key(99)), None);
    }
}
