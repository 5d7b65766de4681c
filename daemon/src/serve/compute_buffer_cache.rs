//! Measured sizes of compute buffers. The header of a model does not state them, so they are kept on disk between starts.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use artel_model::open_regular_file;
use sha2::{Digest as _, Sha256};

/// Entries in the cache: enough for a large catalog in many configurations.
const MAX_ENTRIES: usize = 1000;

/// The bytes of compute buffers by a hash of what they depend on.
pub(super) struct ComputeBufferCache {
    path: PathBuf,
    entries: Mutex<BTreeMap<String, u64>>,
}

impl ComputeBufferCache {
    /// Opens the cache in the data directory. An unreadable file counts as empty.
    pub(super) fn open(data: &Path) -> Self {
        let path = data.join("measured.json");
        let file = open_regular_file(&path).ok().map(BufReader::new);
        let entries = file.and_then(|file| serde_json::from_reader(file).ok());
        Self { path, entries: Mutex::new(entries.unwrap_or_default()) }
    }

    /// The key of an entry: a hash of everything that the size depends on.
    pub(super) fn key(parts: &[&str]) -> String {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Stores a size. If the file cannot be written, the size is measured again after the next start.
    pub(super) fn put(&self, key: String, bytes: u64) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.get(&key) == Some(&bytes) {
            return;
        }
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(key, bytes);
        let result = serde_json::to_vec(&*entries).map_err(std::io::Error::from).and_then(|text| {
            let temporary = self.path.with_extension("json.new");
            std::fs::write(&temporary, text)?;
            std::fs::rename(&temporary, &self.path)
        });
        if let Err(error) = result {
            tracing::warn!(%error, path = %self.path.display(), "failed to store the sizes of compute buffers; they are measured again after the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_sizes_are_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let key = ComputeBufferCache::key(&["model", "8"]);
        assert_ne!(key, ComputeBufferCache::key(&["model8", ""]));
        let cache = ComputeBufferCache::open(dir.path());
        assert_eq!(cache.get(&key), None);
        cache.put(key.clone(), 7);
        assert_eq!(ComputeBufferCache::open(dir.path()).get(&key), Some(7));
        std::fs::write(dir.path().join("measured.json"), "{").unwrap();
        assert_eq!(ComputeBufferCache::open(dir.path()).get(&key), None);
    }
}
