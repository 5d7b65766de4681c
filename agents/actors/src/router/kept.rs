//! Vectors of texts on disk, so that a daemon that is started again knows its roles at once.
//!
//! One file for each embedding model, named after the model's content. It is a cache: it is written aside and renamed, it ends
//! with a hash of itself, and one that is not what it should be is reported, deleted and computed again.
//!
//! ```text
//! "ARTELVX1" | whose vectors, 32 bytes | their length, u32 | their number, u32
//!            | for each: hash of the text, 16 bytes; its numbers, f32 | SHA-256 of all before
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use artel_roles::Model;
use sha2::{Digest as _, Sha256};

use super::nearest::Vector;

const MAGIC: &[u8; 8] = b"ARTELVX1";
const HEADER: usize = MAGIC.len() + size_of::<Owner>() + 8;
const HASH: usize = 32;
/// What one file may take: the vectors of forty thousand texts by a small model.
const MAX_BYTES: usize = 64 << 20;
/// Models whose vectors are kept: the one in use, and those of one before it.
const MAX_FILES: usize = 4;

/// What stands for a text.
pub(super) type Text = [u8; 16];

/// Whose vectors a file holds: a hash of the model's content and of how it reads texts.
pub(super) type Owner = [u8; 32];

/// Where vectors are kept.
pub(crate) struct Kept {
    dir: PathBuf,
    /// Where files of models are looked for.
    models: PathBuf,
    /// One file is written at a time, so that an older state never comes after a newer one.
    writing: Mutex<()>,
}

pub(super) fn text(text: &str) -> Text {
    let mut short = Text::default();
    short.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
    short
}

impl Kept {
    pub(crate) fn new(dir: PathBuf, models: PathBuf) -> Self {
        Self { dir, models, writing: Mutex::default() }
    }

    /// Whose vectors those of this model are; `None` if its file cannot be read. Reads the whole file unless its hash is known.
    pub(super) fn owner(&self, model: &Model) -> Option<Owner> {
        let content = match &model.sha256 {
            Some(known) => known.clone().into_bytes(),
            None => {
                let path = model.candidates(&self.models).into_iter().find(|path| path.exists())?;
                let mut hash = Hashing(Sha256::new());
                io::copy(&mut File::open(path).ok()?, &mut hash).ok()?;
                hash.0.finalize().to_vec()
            }
        };
        // A longer context reads further into a long text.
        let context = model.context.unwrap_or_default().to_le_bytes();
        Some(Sha256::new().chain_update(content).chain_update(context).finalize().into())
    }

    /// What is kept; nothing if there is no file, or none that is whole.
    pub(super) fn load(&self, owner: &Owner) -> HashMap<Text, Vector> {
        let path = self.path(owner);
        let found = match fs::metadata(&path) {
            Ok(meta) if meta.len() as usize <= MAX_BYTES + HEADER + HASH => fs::read(&path),
            Ok(_) => Err(io::Error::other("it is too large")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return HashMap::new(),
            Err(error) => Err(error),
        };
        let read = found.and_then(|bytes| decode(&bytes, owner).ok_or_else(|| io::Error::other("it is damaged")));
        read.unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "kept vectors of texts are computed again");
            // It may be gone already.
            let _ = fs::remove_file(&path);
            HashMap::new()
        })
    }

    /// Keeps what `vectors` gives once it is our turn to write.
    pub(super) fn store(&self, owner: &Owner, vectors: impl FnOnce() -> HashMap<Text, Vector>) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = self.write(owner, &encode(owner, &vectors()));
        if let Err(error) = stored {
            tracing::warn!(dir = %self.dir.display(), %error, "vectors of texts are not kept on disk");
        }
    }

    fn write(&self, owner: &Owner, bytes: &[u8]) -> io::Result<()> {
        let mut dir = fs::DirBuilder::new();
        dir.recursive(true);
        // Texts of a catalog may be private, and so is what is made of them.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut dir, 0o700);
        dir.create(&self.dir)?;
        let path = self.path(owner);
        let part = path.with_extension("part");
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        self.tidy()
    }

    /// Deletes what was written longest ago.
    fn tidy(&self) -> io::Result<()> {
        let own = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "vectors");
        let age = |path: PathBuf| {
            let written = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            (written, path)
        };
        let paths = fs::read_dir(&self.dir)?.flatten().map(|entry| entry.path()).filter(own);
        let mut files: Vec<(SystemTime, PathBuf)> = paths.map(age).collect();
        files.sort();
        let many = files.len().saturating_sub(MAX_FILES);
        files.iter().take(many).try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        let name: String = owner[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Path::new(&self.dir).join(name + ".vectors")
    }
}

struct Hashing(Sha256);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As many as there is room for.
fn encode(owner: &Owner, vectors: &HashMap<Text, Vector>) -> Vec<u8> {
    let length = vectors.values().next().map_or(0, |vector| vector.len());
    let entry = size_of::<Text>() + length * size_of::<f32>();
    let kept: Vec<_> = vectors.iter().filter(|(_, vector)| vector.len() == length).take(MAX_BYTES / entry).collect();
    let mut out = Vec::with_capacity(HEADER + kept.len() * entry + HASH);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(owner);
    // Both are small: all of it fits into the limit.
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&(kept.len() as u32).to_le_bytes());
    for (text, vector) in kept {
        out.extend_from_slice(text);
        vector.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
    }
    let hash = Sha256::digest(&out);
    out.extend_from_slice(&hash);
    out
}

/// `None` for what is damaged, or somebody else's.
fn decode(bytes: &[u8], owner: &Owner) -> Option<HashMap<Text, Vector>> {
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
    let (header, entries) = content.split_at_checked(HEADER)?;
    let number = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?) as usize);
    let (length, count) = (number(HEADER - 8)?, number(HEADER - 4)?);
    let entry = length.checked_mul(size_of::<f32>())?.checked_add(size_of::<Text>())?;
    let whole = header.starts_with(MAGIC)
        && header[MAGIC.len()..].starts_with(owner)
        && entries.len() == count.checked_mul(entry)?
        && Sha256::digest(content)[..] == *hash;
    if !whole {
        return None;
    }
    let vector = |entry: &[u8]| -> Option<(Text, Vector)> {
        let (text, numbers) = entry.split_first_chunk::<16>()?;
        let numbers = numbers.chunks_exact(4).filter_map(|x| Some(f32::from_le_bytes(x.try_into().ok()?)));
        Some((*text, numbers.collect()))
    };
    entries.chunks_exact(entry).map(vector).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::tempdir;

    use super::*;

    const OWNER: Owner = [7; 32];

    fn vectors() -> HashMap<Text, Vector> {
        [("one", [1.0, 0.0]), ("two", [0.6, -0.8])].map(|(t, v)| (text(t), v.as_slice().into())).into()
    }

    #[test]
    fn what_is_kept_is_found_again_by_its_owner_alone() {
        let dir = tempdir().unwrap();
        let kept = Kept::new(dir.path().join("vectors"), PathBuf::new());
        assert!(kept.load(&OWNER).is_empty());
        kept.store(&OWNER, vectors);
        assert_eq!(kept.load(&OWNER), vectors());
        assert!(kept.load(&[8; 32]).is_empty());
        // The same name, and another content.
        let mut other = OWNER;
        other[31] = 0;
        assert!(kept.load(&other).is_empty());
        assert!(kept.load(&OWNER).is_empty(), "what was found damaged is gone");
    }

    #[test]
    fn the_content_of_a_model_is_its_name() {
        let dir = tempdir().unwrap();
        let kept = Kept::new(dir.path().join("vectors"), dir.path().to_owned());
        let model = |context| {
            let yaml = format!("model: texts\nfile: texts.gguf\nuse: embedding\ncontext: {context}\n");
            let source = artel_roles::YamlSource { path: "x.yaml".to_owned(), dir: None, text: yaml };
            let sources = vec![artel_roles::shipped::sources(), vec![source]];
            let catalog = artel_roles::Catalog::parse(sources).unwrap();
            catalog.model("texts").unwrap().clone()
        };
        assert_eq!(kept.owner(&model(512)), None);
        fs::write(dir.path().join("texts.gguf"), "first").unwrap();
        let first = kept.owner(&model(512));
        assert!(first.is_some() && first == kept.owner(&model(512)) && first != kept.owner(&model(256)));
        fs::write(dir.path().join("texts.gguf"), "second").unwrap();
        assert_ne!(kept.owner(&model(512)), first);
    }

    #[test]
    fn few_files_are_kept() {
        let dir = tempdir().unwrap();
        let kept = Kept::new(dir.path().to_owned(), PathBuf::new());
        fs::write(dir.path().join("note.txt"), "stays").unwrap();
        (0..9).for_each(|n| kept.store(&[n; 32], vectors));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_FILES + 1);
        assert!(dir.path().join("note.txt").exists());
    }

    proptest! {
        #[test]
        fn damage_is_seen(at in any::<prop::sample::Index>(), with in 1..=255u8, cut in any::<bool>()) {
            let mut bytes = encode(&OWNER, &vectors());
            prop_assert_eq!(decode(&bytes, &OWNER), Some(vectors()));
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= with }
            prop_assert_eq!(decode(&bytes, &OWNER), None);
        }
    }
}
