//! The files of adapters that were compared with the hashes which their documents state: each once, as long as it does not change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use artel_engine::LoadError;
use artel_model::PieceHashes;
use artel_roles::Adapter;

/// Files that are what their documents state.
#[derive(Debug, Default)]
pub(super) struct VerifiedAdapters(Mutex<HashMap<PathBuf, VerifiedFile>>);

/// A file as it was when its hash was computed.
#[derive(Debug, PartialEq, Eq)]
struct VerifiedFile {
    sha256: PieceHashes,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl VerifiedAdapters {
    /// Compares the file of an adapter with the hash that its document states, if it states one. A file that is not there is reported
    /// where it is asked for.
    pub(super) async fn verify(&self, adapter: &Adapter, models: &Path) -> Result<(), LoadError> {
        let Some(sha256) = adapter.sha256.clone() else { return Ok(()) };
        let Some(path) = adapter.candidates(models).into_iter().find(|path| path.exists()) else { return Ok(()) };
        let metadata = path.metadata().map_err(|e| LoadError::permanent(format!("{}: {e}", path.display())))?;
        let file = VerifiedFile { bytes: metadata.len(), modified: metadata.modified().ok(), sha256: sha256.clone() };
        if self.files().get(&path) == Some(&file) {
            return Ok(());
        }
        let hashed = path.clone();
        let verified = tokio::task::spawn_blocking(move || artel_gguf::verify_sha256(&hashed, &sha256)).await;
        verified
            .map_err(|e| LoadError::transient(format!("hashing {} panicked: {e}", path.display())))?
            .map_err(|e| LoadError::permanent(e.to_string()))?;
        self.files().insert(path, file);
        Ok(())
    }

    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, VerifiedFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use artel_roles::{Catalog, YamlSource};

    use super::*;

    /// Of the three bytes `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[tokio::test]
    async fn a_file_is_refused_when_it_is_another_one_than_its_document_states() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("adapter: a\nfile: a.gguf\nsha256: {ABC}\n");
        let source = YamlSource { path: "a.yaml".to_owned(), dir: Some(dir.path().to_owned()), text };
        let catalog = Catalog::parse(vec![vec![source]]).unwrap();
        let (adapter, verified) = (catalog.adapter("a").unwrap(), VerifiedAdapters::default());
        verified.verify(adapter, dir.path()).await.unwrap();
        std::fs::write(dir.path().join("a.gguf"), "abc").unwrap();
        for _ in 0..2 {
            verified.verify(adapter, dir.path()).await.unwrap();
        }
        std::fs::write(dir.path().join("a.gguf"), "abcd").unwrap();
        let error = verified.verify(adapter, dir.path()).await.unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("a.gguf"), "{error}");
    }
}
