//! Kept beginnings of prompts on disk, so that an engine that is started again is warm.
//!
//! One file each, named after whose cells they are and what they hold. A file is a cache: it is written aside and renamed,
//! its content is checked against a hash when it is read, and whatever is wrong with it, it is deleted and computed again.
//! Writing is done by a thread of its own. All engines of a directory share its budget; who was used longest ago goes first.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use crate::backend::{Lane, Token};

const MAGIC: &[u8; 8] = b"ARTELPX1";
/// Whose cells a file holds: a hash of the model, the adapter and the form of the cache.
pub(crate) type Key = [u8; 32];
/// Files that wait to be written; more are not written this time.
const QUEUE: usize = 16;
/// The most tokens that a file may claim: more than any context.
const MAX_TOKENS: usize = 1 << 24;

/// Where and how much.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory; it is made if it is missing.
    pub dir: PathBuf,
    /// Bytes that all files in it may take together.
    pub bytes: u64,
}

/// The files of one engine's lanes.
pub(crate) struct Shelf {
    dir: PathBuf,
    items: HashMap<Lane, Vec<Item>>,
    keys: HashMap<Lane, Key>,
    /// Taken when the shelf is closed.
    writer: Option<(mpsc::SyncSender<Write>, JoinHandle<()>)>,
}

struct Item {
    tokens: Arc<[Token]>,
    file: PathBuf,
}

/// What a file holds.
pub(crate) struct Found {
    pub(crate) tokens: Arc<[Token]>,
    pub(crate) state: Vec<u8>,
    /// How long it took to compute.
    pub(crate) seconds: f64,
}

struct Write {
    file: PathBuf,
    key: Key,
    tokens: Arc<[Token]>,
    state: Arc<[u8]>,
    seconds: f64,
}

impl Shelf {
    /// Opens a directory; without one that can be used there is no shelf, which costs time and nothing else.
    pub(crate) fn open(options: &Options) -> Option<Self> {
        if let Err(error) = make_private(&options.dir) {
            tracing::warn!(dir = %options.dir.display(), %error, "prefixes are not kept on disk");
            return None;
        }
        let (writer, inbox) = mpsc::sync_channel(QUEUE);
        let (dir, bytes) = (options.dir.clone(), options.bytes);
        let thread = std::thread::Builder::new().name("prefix-writer".to_owned());
        let thread = thread.spawn(move || write_all(&inbox, &dir, bytes)).ok()?;
        let (items, keys) = (HashMap::new(), HashMap::new());
        Some(Self { dir: options.dir.clone(), items, keys, writer: Some((writer, thread)) })
    }

    /// Reads which files there are for a lane.
    pub(crate) fn add_lane(&mut self, lane: Lane, key: Key) {
        if self.keys.insert(lane, key) == Some(key) {
            return;
        }
        let start = format!("{}-", hex(&key[..8]));
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let own = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&start));
        let item =
            |file: PathBuf| Some(Item { tokens: Header::read(&mut File::open(&file).ok()?, &key)?.tokens, file });
        self.items.insert(lane, own.filter_map(|entry| item(entry.path())).collect());
    }

    /// The longest beginning of a prompt on disk that is longer than `than`. `whole`: the prompt itself counts too.
    pub(crate) fn find(&mut self, lane: Lane, prompt: &[Token], than: usize, whole: bool) -> Option<Found> {
        let most = prompt.len() - usize::from(!whole && !prompt.is_empty());
        let key = *self.keys.get(&lane)?;
        let items = self.items.get_mut(&lane)?;
        let fits = |item: &&Item| (than + 1..=most).contains(&item.tokens.len()) && prompt.starts_with(&item.tokens);
        let (tokens, file) = items
            .iter()
            .filter(fits)
            .max_by_key(|item| item.tokens.len())
            .map(|i| (i.tokens.clone(), i.file.clone()))?;
        if !file.exists() {
            // It is being written, or others needed its room.
            return None;
        }
        let found = read(&file, &key).filter(|found| found.tokens == tokens);
        if found.is_none() {
            tracing::warn!(file = %file.display(), "a kept prefix is damaged; it is computed again");
            // It may be gone already.
            let _ = fs::remove_file(&file);
            items.retain(|item| item.file != file);
        }
        found
    }

    /// Puts a beginning on disk, in the background.
    pub(crate) fn put(&mut self, lane: Lane, tokens: &[Token], state: &Arc<[u8]>, seconds: f64) {
        let (Some(key), Some(items)) = (self.keys.get(&lane), self.items.get_mut(&lane)) else { return };
        if items.iter().any(|item| *item.tokens == *tokens) {
            return;
        }
        let tokens: Arc<[Token]> = tokens.into();
        let file = self.dir.join(format!("{}-{}.prefix", hex(&key[..8]), hex(&hash_tokens(&tokens)[..16])));
        let write = Write { file: file.clone(), key: *key, tokens: tokens.clone(), state: state.clone(), seconds };
        // A full queue means that the disk is slow: then it is computed once more after the next start.
        if self.writer.as_ref().is_some_and(|(writer, _)| writer.try_send(write).is_ok()) {
            items.push(Item { tokens, file });
        }
    }
}

impl Drop for Shelf {
    /// Waits until everything that was put is on disk.
    fn drop(&mut self) {
        if let Some((writer, thread)) = self.writer.take() {
            drop(writer);
            // A writer that panicked has lost a file of a cache.
            let _ = thread.join();
        }
    }
}

/// What comes before the cells.
struct Header {
    tokens: Arc<[Token]>,
    seconds: f64,
    /// Of the cells.
    hash: [u8; 32],
    length: u64,
}

impl Header {
    fn read(file: &mut File, key: &Key) -> Option<Self> {
        let mut start = [0u8; 8 + 32 + 8 + 4];
        file.read_exact(&mut start).ok()?;
        let (magic, rest) = start.split_at(8);
        let (whose, rest) = rest.split_at(32);
        let (seconds, count) = rest.split_at(8);
        let count = u32::from_le_bytes(count.try_into().ok()?) as usize;
        if magic != MAGIC || whose != key || count > MAX_TOKENS {
            return None;
        }
        let mut tokens = vec![0u8; count * 4];
        file.read_exact(&mut tokens).ok()?;
        let mut end = [0u8; 32 + 8];
        file.read_exact(&mut end).ok()?;
        let number = |b: &[u8]| Token(i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Some(Self {
            tokens: tokens.chunks_exact(4).map(number).collect(),
            seconds: f64::from_le_bytes(seconds.try_into().ok()?),
            hash: end[..32].try_into().ok()?,
            length: u64::from_le_bytes(end[32..].try_into().ok()?),
        })
    }

    fn write(write: &Write, out: &mut impl io::Write) -> io::Result<()> {
        out.write_all(MAGIC)?;
        out.write_all(&write.key)?;
        out.write_all(&write.seconds.to_le_bytes())?;
        out.write_all(&(write.tokens.len() as u32).to_le_bytes())?;
        write.tokens.iter().try_for_each(|token| out.write_all(&token.0.to_le_bytes()))?;
        out.write_all(&Sha256::digest(&write.state))?;
        out.write_all(&(write.state.len() as u64).to_le_bytes())
    }
}

fn read(path: &Path, key: &Key) -> Option<Found> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let header = Header::read(&mut file, key)?;
    // A length that the file does not have is no reason to reserve memory for it.
    let mut state = Vec::with_capacity(usize::try_from(header.length.min(size)).ok()?);
    file.read_to_end(&mut state).ok()?;
    let whole = state.len() as u64 == header.length && Sha256::digest(&state)[..] == header.hash;
    // Its age counts from its last use; where that cannot be noted it goes a little earlier.
    let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    whole.then_some(Found { tokens: header.tokens, state, seconds: header.seconds })
}

fn write_all(inbox: &mpsc::Receiver<Write>, dir: &Path, budget: u64) {
    while let Ok(write) = inbox.recv() {
        if write.state.len() as u64 > budget {
            continue;
        }
        if let Err(error) = store(&write) {
            tracing::warn!(file = %write.file.display(), %error, "a prefix is not kept on disk");
        }
        tidy(dir, budget);
    }
}

fn store(write: &Write) -> io::Result<()> {
    let part = write.file.with_extension("part");
    let written = File::create(&part).and_then(|file| {
        let mut out = io::BufWriter::new(file);
        Header::write(write, &mut out)?;
        out.write_all(&write.state)?;
        out.flush()
    });
    let stored = written.and_then(|()| fs::rename(&part, &write.file));
    if stored.is_err() {
        // A part that could not be written may not be there.
        let _ = fs::remove_file(&part);
    }
    stored
}

/// Deletes the files that were used longest ago until the rest fits.
fn tidy(dir: &Path, budget: u64) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "prefix" || e == "part"))
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some((meta.modified().ok()?, meta.len(), entry.path()))
        })
        .collect();
    files.sort();
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in files {
        if total <= budget {
            return;
        }
        // Another engine may have deleted it.
        let _ = fs::remove_file(path);
        total -= size;
    }
}

fn make_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn hash_tokens(tokens: &[Token]) -> [u8; 32] {
    let mut hash = Sha256::new();
    tokens.iter().for_each(|token| hash.update(token.0.to_le_bytes()));
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(|b| Token(b.into())).collect()
    }

    /// A file on disk, as the writer's thread leaves it.
    fn put(dir: &Path, key: Key, text: &str, state: &[u8]) -> PathBuf {
        let tokens: Arc<[Token]> = tokens(text).into();
        let name = format!("{}-{}.prefix", hex(&key[..8]), hex(&hash_tokens(&tokens)[..16]));
        let write = Write { file: dir.join(name), key, tokens, state: state.into(), seconds: 1.5 };
        store(&write).unwrap();
        write.file
    }

    fn open(dir: &Path) -> Shelf {
        let mut shelf = Shelf::open(&Options { dir: dir.to_owned(), bytes: 1 << 20 }).unwrap();
        shelf.add_lane(Lane(0), KEY);
        shelf
    }

    #[test]
    fn the_longest_beginning_is_found_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), KEY, "You", b"short");
        put(dir.path(), KEY, "You are", b"long");
        put(dir.path(), [8; 32], "You are a", b"another model's");
        let mut shelf = open(dir.path());
        let found = shelf.find(Lane(0), &tokens("You are a sailor"), 0, false).unwrap();
        assert_eq!((found.tokens.len(), found.state.as_slice(), found.seconds), (7, b"long".as_slice(), 1.5));
        assert!(shelf.find(Lane(0), &tokens("You are a sailor"), 7, false).is_none(), "no longer one");
        assert_eq!(shelf.find(Lane(0), &tokens("You are"), 0, false).unwrap().tokens.len(), 3);
        assert_eq!(shelf.find(Lane(0), &tokens("You are"), 0, true).unwrap().tokens.len(), 7);
        assert!(shelf.find(Lane(1), &tokens("You are"), 0, true).is_none());
    }

    #[test]
    fn damaged_files_are_deleted_and_never_used() {
        let dir = tempfile::tempdir().unwrap();
        let file = put(dir.path(), KEY, "You are", b"long state");
        let whole = fs::read(&file).unwrap();
        for cut in 0..whole.len() {
            fs::write(&file, &whole[..cut]).unwrap();
            assert!(open(dir.path()).find(Lane(0), &tokens("You are a sailor"), 0, false).is_none(), "cut at {cut}");
        }
        let last = whole.len() - 1;
        let mut flipped = whole;
        flipped[last] ^= 1;
        fs::write(&file, flipped).unwrap();
        assert!(open(dir.path()).find(Lane(0), &tokens("You are a sailor"), 0, false).is_none());
        assert!(!file.exists());
    }

    #[test]
    fn what_was_used_longest_ago_goes_when_the_budget_is_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["a", "b", "c"].map(|text| put(dir.path(), KEY, text, &[0; 1000]));
        for (age, file) in [30, 10, 20].into_iter().zip(&files) {
            let then = SystemTime::now() - std::time::Duration::from_secs(age);
            File::options().append(true).open(file).unwrap().set_modified(then).unwrap();
        }
        tidy(dir.path(), 2500);
        assert_eq!(files.each_ref().map(|file| file.exists()), [false, true, true]);
        tidy(dir.path(), 1500);
        assert_eq!(files.each_ref().map(|file| file.exists()), [false, true, false]);
    }
}
