//! What models were measured to take for computing, which no header tells: kept on disk from one start to the next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

/// Models that are remembered: a large catalog in many shapes.
const MOST: usize = 1000;

/// Bytes by the shape of what was measured.
pub(super) struct Measured {
    path: PathBuf,
    known: Mutex<BTreeMap<String, u64>>,
}

impl Measured {
    /// What was kept in this directory; a file that cannot be read is begun anew.
    pub(super) fn open(data: &Path) -> Self {
        let path = data.join("measured.json");
        let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path, known: Mutex::new(known.unwrap_or_default()) }
    }

    /// The shape of what is measured, from whatever it depends on.
    pub(super) fn key(parts: &[&str]) -> String {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Remembers it; what cannot be written is measured again after the next start.
    pub(super) fn put(&self, key: String, bytes: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&key) == Some(&bytes) {
            return;
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, bytes);
        let written = serde_json::to_vec(&*known).map_err(std::io::Error::from).and_then(|text| {
            let whole = self.path.with_extension("json.new");
            std::fs::write(&whole, text)?;
            std::fs::rename(&whole, &self.path)
        });
        if let Err(error) = written {
            tracing::warn!(%error, path = %self.path.display(), "what models take cannot be remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let key = Measured::key(&["model", "8"]);
        assert_ne!(key, Measured::key(&["model8", ""]));
        let measured = Measured::open(dir.path());
        assert_eq!(measured.get(&key), None);
        measured.put(key.clone(), 7);
        assert_eq!(Measured::open(dir.path()).get(&key), Some(7));
        std::fs::write(dir.path().join("measured.json"), "{").unwrap();
        assert_eq!(Measured::open(dir.path()).get(&key), None);
    }
}
