//! The embedding cache on disk, so that a restarted daemon need not embed its roles again.
//!
//! One file for each embedding model, named after the model's content. A file is written aside and renamed, and it ends with a
//! hash of itself. A damaged file is reported and deleted, and its embeddings are computed again.
//!
//! ```text
//! "ARTELVX1" | fingerprint of the model, 32 bytes | dimensions, u32 | number of embeddings, u32
//!            | for each: hash of the text, 16 bytes; its components, f32 | SHA-256 of all before
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use artel_model::{open_regular_file, piece_paths};
use artel_roles::Model;
use artel_router::Embedding;
use sha2::{Digest as _, Sha256};

const MAGIC: &[u8; 8] = b"ARTELVX1";
const HEADER_BYTES: usize = MAGIC.len() + size_of::<ModelFingerprint>() + 8;
const HASH_BYTES: usize = 32;
/// The most that one file takes: the embeddings of some forty thousand texts by a small model.
const MAX_FILE_BYTES: usize = 64 << 20;
/// Files that are kept: that of the model in use, and of earlier ones, which may be used again.
const MAX_FILES: usize = 4;

/// The key of a text: the start of its SHA-256.
pub(crate) type TextHash = [u8; 16];

/// The key of a model: a hash of its content and its context length.
pub(crate) type ModelFingerprint = [u8; 32];

/// Stores the embeddings of each model in a file.
pub struct EmbeddingCache {
    dir: PathBuf,
    /// The folder in which models' paths are resolved.
    models_dir: PathBuf,
    /// One write at a time, so that an older state never replaces a newer one.
    write_lock: Mutex<()>,
}

pub(crate) fn hash_text(text: &str) -> TextHash {
    let mut hash = TextHash::default();
    hash.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
    hash
}

/// A hash of a model's content and of its context length; `None` if its file, which is looked up in this directory too, cannot be
/// read. Reads the whole file unless the catalog has its hash.
pub fn model_fingerprint(model: &Model, models_dir: &Path) -> Option<[u8; 32]> {
    let content = match &model.sha256 {
        Some(known) => known.concatenated().into_bytes(),
        None => {
            let path = model.candidates(models_dir).into_iter().find(|path| path.exists())?;
            let mut hash = HashWriter(Sha256::new());
            for piece in piece_paths(&path) {
                io::copy(&mut open_regular_file(&piece).ok()?, &mut hash).ok()?;
            }
            hash.0.finalize().to_vec()
        }
    };
    // With a longer context the model reads more of a long text.
    let context = model.context.unwrap_or_default().to_le_bytes();
    Some(Sha256::new().chain_update(content).chain_update(context).finalize().into())
}

impl EmbeddingCache {
    /// A cache in this directory, of models that are looked up in the other one.
    pub fn new(dir: PathBuf, models_dir: PathBuf) -> Self {
        Self { dir, models_dir, write_lock: Mutex::default() }
    }

    /// The fingerprint of a model; `None` if its file cannot be read.
    pub(crate) fn fingerprint(&self, model: &Model) -> Option<ModelFingerprint> {
        model_fingerprint(model, &self.models_dir)
    }

    /// The stored embeddings; empty if there is no file, or a damaged one.
    pub(crate) fn load(&self, fingerprint: &ModelFingerprint) -> HashMap<TextHash, Embedding> {
        let path = self.path(fingerprint);
        let bytes = match fs::metadata(&path) {
            Ok(meta) if meta.len() as usize <= MAX_FILE_BYTES + HEADER_BYTES + HASH_BYTES => fs::read(&path),
            Ok(_) => Err(io::Error::other("the file is too large")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return HashMap::new(),
            Err(error) => Err(error),
        };
        let decoded =
            bytes.and_then(|bytes| decode(&bytes, fingerprint).ok_or_else(|| io::Error::other("the file is damaged")));
        decoded.unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "failed to read cached embeddings: computing them again");
            // It may have been deleted already.
            let _ = fs::remove_file(&path);
            HashMap::new()
        })
    }

    /// Stores the embeddings that `embeddings` returns once the write lock is held.
    pub(crate) fn store(
        &self,
        fingerprint: &ModelFingerprint,
        embeddings: impl FnOnce() -> HashMap<TextHash, Embedding>,
    ) {
        let _lock = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = self.write(fingerprint, &encode(fingerprint, &embeddings()));
        if let Err(error) = stored {
            tracing::warn!(dir = %self.dir.display(), %error, "failed to write the embedding cache");
        }
    }

    fn write(&self, fingerprint: &ModelFingerprint, bytes: &[u8]) -> io::Result<()> {
        let mut dir = fs::DirBuilder::new();
        dir.recursive(true);
        // Texts of a catalog may be private, and embeddings reveal them in part.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut dir, 0o700);
        dir.create(&self.dir)?;
        let path = self.path(fingerprint);
        let part = path.with_extension("part");
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        self.remove_old_files()
    }

    /// Deletes the files that were written longest ago.
    fn remove_old_files(&self) -> io::Result<()> {
        let is_own = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "vectors");
        let with_time = |path: PathBuf| {
            let written = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            (written, path)
        };
        let paths = fs::read_dir(&self.dir)?.flatten().map(|entry| entry.path()).filter(is_own);
        let mut files: Vec<(SystemTime, PathBuf)> = paths.map(with_time).collect();
        files.sort();
        let excess = files.len().saturating_sub(MAX_FILES);
        files.iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn path(&self, fingerprint: &ModelFingerprint) -> PathBuf {
        let name: String = fingerprint[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Path::new(&self.dir).join(name + ".vectors")
    }
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Encodes as many embeddings as [`MAX_FILE_BYTES`] allows.
fn encode(fingerprint: &ModelFingerprint, embeddings: &HashMap<TextHash, Embedding>) -> Vec<u8> {
    let dimensions = embeddings.values().next().map_or(0, |embedding| embedding.len());
    let entry_bytes = size_of::<TextHash>() + dimensions * size_of::<f32>();
    let uniform = embeddings.iter().filter(|(_, embedding)| embedding.len() == dimensions);
    let entries: Vec<_> = uniform.take(MAX_FILE_BYTES / entry_bytes).collect();
    let mut out = Vec::with_capacity(HEADER_BYTES + entries.len() * entry_bytes + HASH_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(fingerprint);
    // Both fit: the size of the whole is limited.
    out.extend_from_slice(&(dimensions as u32).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (text, embedding) in entries {
        out.extend_from_slice(text);
        embedding.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
    }
    let hash = Sha256::digest(&out);
    out.extend_from_slice(&hash);
    out
}

/// `None` for a file that is damaged, or of another model.
fn decode(bytes: &[u8], fingerprint: &ModelFingerprint) -> Option<HashMap<TextHash, Embedding>> {
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    let (header, entries) = content.split_at_checked(HEADER_BYTES)?;
    let number = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?) as usize);
    let (dimensions, count) = (number(HEADER_BYTES - 8)?, number(HEADER_BYTES - 4)?);
    let entry_bytes = dimensions.checked_mul(size_of::<f32>())?.checked_add(size_of::<TextHash>())?;
    let is_intact = header.starts_with(MAGIC)
        && header[MAGIC.len()..].starts_with(fingerprint)
        && entries.len() == count.checked_mul(entry_bytes)?
        && Sha256::digest(content)[..] == *hash;
    if !is_intact {
        return None;
    }
    let embedding = |entry: &[u8]| -> Option<(TextHash, Embedding)> {
        let (text, components) = entry.split_first_chunk::<16>()?;
        let components = components.chunks_exact(4).filter_map(|x| Some(f32::from_le_bytes(x.try_into().ok()?)));
        Some((*text, components.collect()))
    };
    entries.chunks_exact(entry_bytes).map(embedding).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::tempdir;

    use super::*;

    const FINGERPRINT: ModelFingerprint = [7; 32];

    fn embeddings() -> HashMap<TextHash, Embedding> {
        [("one", [1.0, 0.0]), ("two", [0.6, -0.8])].map(|(t, v)| (hash_text(t), v.as_slice().into())).into()
    }

    #[test]
    fn stored_embeddings_are_loaded_for_their_model_alone() {
        let dir = tempdir().unwrap();
        let cache = EmbeddingCache::new(dir.path().join("vectors"), PathBuf::new());
        assert!(cache.load(&FINGERPRINT).is_empty());
        cache.store(&FINGERPRINT, embeddings);
        assert_eq!(cache.load(&FINGERPRINT), embeddings());
        assert!(cache.load(&[8; 32]).is_empty());
        // The same file name, and another model.
        let mut other = FINGERPRINT;
        other[31] = 0;
        assert!(cache.load(&other).is_empty());
        assert!(cache.load(&FINGERPRINT).is_empty(), "a damaged file is deleted");
    }

    #[test]
    fn the_fingerprint_depends_on_the_content_and_the_context() {
        let dir = tempdir().unwrap();
        let cache = EmbeddingCache::new(dir.path().join("vectors"), dir.path().to_owned());
        let model = |context| {
            let yaml = format!("model: texts\nfile: texts.gguf\nuse: embedding\ncontext: {context}\n");
            let source = artel_roles::YamlSource { path: "x.yaml".to_owned(), dir: None, text: yaml };
            let sources = vec![artel_roles::shipped::sources(), vec![source]];
            let catalog = artel_roles::Catalog::parse(sources).unwrap();
            catalog.model("texts").unwrap().clone()
        };
        assert_eq!(cache.fingerprint(&model(512)), None);
        fs::write(dir.path().join("texts.gguf"), "first").unwrap();
        let first = cache.fingerprint(&model(512));
        assert!(first.is_some() && first == cache.fingerprint(&model(512)) && first != cache.fingerprint(&model(256)));
        fs::write(dir.path().join("texts.gguf"), "second").unwrap();
        assert_ne!(cache.fingerprint(&model(512)), first);
    }

    #[test]
    fn old_files_are_removed() {
        let dir = tempdir().unwrap();
        let cache = EmbeddingCache::new(dir.path().to_owned(), PathBuf::new());
        fs::write(dir.path().join("note.txt"), "stays").unwrap();
        (0..9).for_each(|n| cache.store(&[n; 32], embeddings));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_FILES + 1);
        assert!(dir.path().join("note.txt").exists());
    }

    proptest! {
        #[test]
        fn damage_is_detected(at in any::<prop::sample::Index>(), with in 1..=255u8, cut in any::<bool>()) {
            let mut bytes = encode(&FINGERPRINT, &embeddings());
            prop_assert_eq!(decode(&bytes, &FINGERPRINT), Some(embeddings()));
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= with }
            prop_assert_eq!(decode(&bytes, &FINGERPRINT), None);
        }
    }
}
