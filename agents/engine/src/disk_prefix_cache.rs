//! The disk tier of the prefix cache, so that a restarted engine is warm.
//!
//! One file per prefix, named after the fingerprint of its cells and the hash of its tokens. The name of a prefix that is the same for
//! every task says so; every other file may hold the text of a caller, and [`erase_text`] deletes it. A file is a cache entry: it is
//! written aside and renamed, its content is checked against a hash when it is read, and if anything is wrong with it, it is
//! deleted and the prefix computed again. A thread of its own writes the files. All engines of a directory share its budget;
//! the least recently used file is evicted first.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use crate::backend::{AdapterSet, Token};
use crate::erase_count;

mod prefix_file_header;

use prefix_file_header::PrefixFileHeader;

pub(crate) use prefix_file_header::CacheFingerprint;

/// The end of the name of a file whose prefix is the same for every task.
const FIXED_SUFFIX: &str = ".fixed.prefix";
/// The same of one that is being written.
const FIXED_PART_SUFFIX: &str = ".fixed.part";
/// The end of the name of any other file, and of those of earlier versions.
const SUFFIX: &str = ".prefix";
/// The end of the name of a file that is being written.
const PART_SUFFIX: &str = ".part";
/// Files that wait to be written; a full queue means a slow disk, and further ones are not written.
const MAX_QUEUED_WRITES: usize = 16;

/// Location and budget.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory; it is created if it is missing.
    pub dir: PathBuf,
    /// Bytes that all files in it may take together.
    pub max_bytes: u64,
}

/// The prefix files of one engine, by the adapters that they were computed with.
pub(crate) struct DiskPrefixCache {
    dir: PathBuf,
    files: HashMap<AdapterSet, Vec<PrefixFile>>,
    fingerprints: HashMap<AdapterSet, CacheFingerprint>,
    /// The number of erases when no text was known to the engine that is erased since; `None` before its first text.
    erase_count: Option<u64>,
    /// Taken when the cache is dropped.
    writer: Option<(mpsc::SyncSender<WriterCommand>, JoinHandle<()>)>,
}

struct PrefixFile {
    tokens: Arc<[Token]>,
    path: PathBuf,
    /// Dropped when it is written, or when it is certain that it will not be.
    queued: Weak<()>,
}

impl PrefixFile {
    fn is_queued(&self) -> bool {
        self.queued.strong_count() > 0
    }

    /// Whether it is on disk, or will be: another engine may have evicted it, and an erase deletes it.
    fn is_there(&self) -> bool {
        // In this order: it may be written meanwhile.
        self.is_queued() || self.path.exists()
    }

    fn is_fixed(&self) -> bool {
        is_fixed(&self.path)
    }
}

/// A command to the thread that writes.
enum WriterCommand {
    Write(PrefixWrite),
    /// Deletes the files that may hold the text of a caller, those written before included.
    RemoveText(oneshot::Sender<io::Result<()>>),
}

/// The content of a file.
pub(crate) struct DiskPrefix {
    pub(crate) tokens: Arc<[Token]>,
    pub(crate) state: Vec<u8>,
    /// Seconds that it took to compute.
    pub(crate) seconds: f64,
    /// Whether it is the same for every task.
    pub(crate) is_fixed: bool,
}

struct PrefixWrite {
    path: PathBuf,
    fingerprint: CacheFingerprint,
    tokens: Arc<[Token]>,
    state: Arc<[u8]>,
    seconds: f64,
    /// If it may hold the text of a caller: the number of erases before the engine took the text.
    erase_count: Option<u64>,
    /// See [`PrefixFile::queued`].
    _queued: Arc<()>,
}

impl DiskPrefixCache {
    /// Opens a directory. Without a usable one there is no disk tier, which costs time and nothing else.
    pub(crate) fn open(options: &Options) -> Option<Self> {
        if let Err(error) = create_private_dir(&options.dir) {
            tracing::warn!(dir = %options.dir.display(), %error, "cannot use the directory of the disk prefix cache; it is disabled");
            return None;
        }
        let (writer, inbox) = mpsc::sync_channel(MAX_QUEUED_WRITES);
        let (dir, max_bytes) = (options.dir.clone(), options.max_bytes);
        let thread = std::thread::Builder::new().name("prefix-writer".to_owned());
        let thread = thread.spawn(move || write_all(&inbox, &dir, max_bytes)).ok()?;
        let (files, fingerprints) = (HashMap::new(), HashMap::new());
        let dir = options.dir.clone();
        Some(Self { dir, files, fingerprints, erase_count: None, writer: Some((writer, thread)) })
    }

    /// Lists the files of these adapters, unless that is done. Comes before any text with them.
    pub(crate) fn index_adapters(&mut self, adapters: AdapterSet, fingerprint: CacheFingerprint) {
        self.erase_count.get_or_insert_with(|| erase_count::read(&self.dir));
        if self.fingerprints.insert(adapters, fingerprint) == Some(fingerprint) {
            return;
        }
        let start = format!("{}-", hex(&fingerprint[..8]));
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let own = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&start));
        let indexed = |path: PathBuf| {
            let header = PrefixFileHeader::read(&mut File::open(&path).ok()?, &fingerprint)?;
            Some(PrefixFile { tokens: header.tokens, path, queued: Weak::new() })
        };
        self.files.insert(adapters, own.filter_map(|entry| indexed(entry.path())).collect());
    }

    /// The longest prefix of a prompt on disk that is longer than `longer_than`. `may_be_whole`: the whole prompt counts too.
    pub(crate) fn find(
        &mut self,
        adapters: AdapterSet,
        prompt: &[Token],
        longer_than: usize,
        may_be_whole: bool,
    ) -> Option<DiskPrefix> {
        let most = prompt.len() - usize::from(!may_be_whole && !prompt.is_empty());
        let fingerprint = *self.fingerprints.get(&adapters)?;
        let files = self.files.get_mut(&adapters)?;
        let matches = |file: &&PrefixFile| {
            let is_of_prompt =
                (longer_than + 1..=most).contains(&file.tokens.len()) && prompt.starts_with(&file.tokens);
            is_of_prompt && !file.is_queued()
        };
        let (tokens, path) = loop {
            let longest = files.iter().filter(matches).max_by_key(|file| file.tokens.len());
            let (tokens, path) = longest.map(|file| (file.tokens.clone(), file.path.clone()))?;
            if path.exists() {
                break (tokens, path);
            }
            files.retain(|file| file.path != path);
        };
        let found = read(&path, &fingerprint).filter(|found| found.tokens == tokens);
        if found.is_none() {
            tracing::warn!(path = %path.display(), "a file of the disk prefix cache is damaged; its prefix is computed again");
            // It may be deleted already.
            let _ = fs::remove_file(&path);
            files.retain(|file| file.path != path);
        }
        found
    }

    /// Writes a prefix to disk, in the background. `is_fixed`: it is the same for every task.
    pub(crate) fn insert(
        &mut self,
        adapters: AdapterSet,
        (tokens, is_fixed): (&[Token], bool),
        state: &Arc<[u8]>,
        seconds: f64,
    ) {
        let Some(fingerprint) = self.fingerprints.get(&adapters) else { return };
        let Some(files) = self.files.get_mut(&adapters) else { return };
        if files.iter().any(|file| *file.tokens == *tokens && file.is_there()) {
            return;
        }
        files.retain(|file| *file.tokens != *tokens);
        let (tokens, state): (Arc<[Token]>, _) = (tokens.into(), state.clone());
        let path = self.dir.join(file_name(fingerprint, &tokens, is_fixed));
        let queued = Arc::new(());
        let file = PrefixFile { tokens: tokens.clone(), path: path.clone(), queued: Arc::downgrade(&queued) };
        let erase_count = self.erase_count.filter(|_| !is_fixed);
        let write =
            PrefixWrite { path, fingerprint: *fingerprint, tokens, state, seconds, erase_count, _queued: queued };
        // If the queue is full, the prefix is computed once more after the next start.
        let write = WriterCommand::Write(write);
        if self.writer.as_ref().is_some_and(|(writer, _)| writer.try_send(write).is_ok()) {
            files.push(file);
        }
    }
}

impl DiskPrefixCache {
    /// Deletes the files that may hold the text of a caller, in the background, and answers when they are gone. The engine has
    /// forgotten these texts.
    pub(crate) fn remove_text(&mut self, reply: oneshot::Sender<io::Result<()>>) {
        self.erase_count = Some(erase_count::read(&self.dir));
        for files in self.files.values_mut() {
            files.retain(PrefixFile::is_fixed);
        }
        // Waits for one file at most if the queue is full. A writer that has panicked drops the reply.
        if let Some((writer, _)) = &self.writer {
            drop(writer.send(WriterCommand::RemoveText(reply)));
        }
    }
}

/// Deletes the files of a directory that may hold the text of a caller: all but those of prefixes that are the same for every task.
/// Returns their number. From now on, an engine that uses the directory writes no other such file, until it has forgotten the texts of
/// callers: see [`forget_text`](crate::EngineHandle::forget_text).
///
/// # Errors
/// The directory cannot be read, a file not be deleted, or a process holds the lock of the directory.
pub fn erase_text(dir: &Path) -> io::Result<u64> {
    match erase_count::raise(dir) {
        // No engine has used it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        raised => raised?,
    }
    remove_text(dir)
}

fn remove_text(dir: &Path) -> io::Result<u64> {
    erase_count::while_none_is_written(dir, || remove_text_files(dir))
}

fn remove_text_files(dir: &Path) -> io::Result<u64> {
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_cached = [SUFFIX, PART_SUFFIX].iter().any(|suffix| path.to_string_lossy().ends_with(suffix));
        if !is_cached || is_fixed(&path) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => removed += 1,
            // Another engine may have evicted it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

fn is_fixed(path: &Path) -> bool {
    [FIXED_SUFFIX, FIXED_PART_SUFFIX].iter().any(|suffix| path.to_string_lossy().ends_with(suffix))
}

impl Drop for DiskPrefixCache {
    /// Waits until all queued files are on disk.
    fn drop(&mut self) {
        if let Some((writer, thread)) = self.writer.take() {
            drop(writer);
            // A writer that panicked has lost a cache entry.
            let _ = thread.join();
        }
    }
}

fn read(path: &Path, fingerprint: &CacheFingerprint) -> Option<DiskPrefix> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let header = PrefixFileHeader::read(&mut file, fingerprint)?;
    // A damaged length must not reserve more memory than the file has bytes.
    let mut state = Vec::with_capacity(usize::try_from(header.length.min(size)).ok()?);
    file.read_to_end(&mut state).ok()?;
    let is_intact = state.len() as u64 == header.length && Sha256::digest(&state)[..] == header.hash;
    // Eviction goes by the time of the last use; where that cannot be set, the file is evicted a little earlier.
    let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    let (tokens, seconds, is_fixed) = (header.tokens, header.seconds, is_fixed(path));
    is_intact.then_some(DiskPrefix { tokens, state, seconds, is_fixed })
}

fn write_all(inbox: &mpsc::Receiver<WriterCommand>, dir: &Path, max_bytes: u64) {
    while let Ok(command) = inbox.recv() {
        let write = match command {
            WriterCommand::Write(write) => write,
            WriterCommand::RemoveText(reply) => {
                // The caller may have stopped waiting.
                let _ = reply.send(remove_text(dir).map(drop));
                continue;
            }
        };
        if write.state.len() as u64 > max_bytes {
            continue;
        }
        let stored = match write.erase_count {
            None => store(&write).map(|()| true),
            Some(noted) => erase_count::write_if_current(dir, noted, || store(&write)),
        };
        match stored {
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!(path = %write.path.display(), "a prefix is not written, since texts were erased");
            }
            Err(error) => {
                tracing::warn!(path = %write.path.display(), %error, "cannot write a file of the disk prefix cache");
            }
        }
        evict_oldest(dir, max_bytes);
    }
}

fn store(write: &PrefixWrite) -> io::Result<()> {
    let part = write.path.with_extension("part");
    let written = File::create(&part).and_then(|file| {
        let mut out = io::BufWriter::new(file);
        prefix_file_header::write(&write.fingerprint, write.seconds, &write.tokens, &write.state, &mut out)?;
        out.write_all(&write.state)?;
        out.flush()
    });
    let stored = written.and_then(|()| fs::rename(&part, &write.path));
    if stored.is_err() {
        // A part that could not be written may not exist.
        let _ = fs::remove_file(&part);
    }
    stored
}

/// Deletes the least recently used files until the rest fits.
fn evict_oldest(dir: &Path, max_bytes: u64) {
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
        if total <= max_bytes {
            return;
        }
        // Another engine may have deleted it.
        let _ = fs::remove_file(path);
        total -= size;
    }
}

fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn file_name(fingerprint: &CacheFingerprint, tokens: &[Token], is_fixed: bool) -> String {
    let suffix = if is_fixed { FIXED_SUFFIX } else { SUFFIX };
    format!("{}-{}{suffix}", hex(&fingerprint[..8]), hex(&hash_tokens(tokens)[..16]))
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
    use std::thread;

    use super::*;

    const FINGERPRINT: CacheFingerprint = [7; 32];

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(|b| Token(b.into())).collect()
    }

    /// A file on disk, as the writer's thread leaves it.
    fn write_file(dir: &Path, fingerprint: CacheFingerprint, text: &str, state: &[u8]) -> PathBuf {
        let tokens: Arc<[Token]> = tokens(text).into();
        let path = dir.join(file_name(&fingerprint, &tokens, true));
        let (state, _queued) = (state.into(), Arc::new(()));
        let write = PrefixWrite { path, fingerprint, tokens, state, seconds: 1.5, erase_count: None, _queued };
        store(&write).unwrap();
        write.path
    }

    fn open(dir: &Path) -> DiskPrefixCache {
        let mut cache = DiskPrefixCache::open(&Options { dir: dir.to_owned(), max_bytes: 1 << 20 }).unwrap();
        cache.index_adapters(AdapterSet(0), FINGERPRINT);
        cache
    }

    #[test]
    fn the_longest_prefix_is_found_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        write_file(dir.path(), FINGERPRINT, "You", b"short");
        write_file(dir.path(), FINGERPRINT, "You are", b"long");
        write_file(dir.path(), [8; 32], "You are a", b"another model's");
        let mut cache = open(dir.path());
        let found = cache.find(AdapterSet(0), &tokens("You are a sailor"), 0, false).unwrap();
        assert_eq!((found.tokens.len(), found.state.as_slice(), found.seconds), (7, b"long".as_slice(), 1.5));
        assert!(cache.find(AdapterSet(0), &tokens("You are a sailor"), 7, false).is_none(), "no longer one");
        assert_eq!(cache.find(AdapterSet(0), &tokens("You are"), 0, false).unwrap().tokens.len(), 3);
        assert_eq!(cache.find(AdapterSet(0), &tokens("You are"), 0, true).unwrap().tokens.len(), 7);
        assert!(cache.find(AdapterSet(1), &tokens("You are"), 0, true).is_none());
    }

    fn insert(cache: &mut DiskPrefixCache, text: &str, is_fixed: bool) {
        cache.insert(AdapterSet(0), (&tokens(text), is_fixed), &b"state".as_slice().into(), 1.0);
    }

    /// Waits until all that was inserted before is written; deletes what may hold the text of a caller.
    fn forget_text(cache: &mut DiskPrefixCache) {
        let (reply, removed) = oneshot::channel();
        cache.remove_text(reply);
        removed.blocking_recv().unwrap().unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(name).collect();
        names.retain(|name| name != erase_count::COUNT_FILE_NAME);
        names.sort();
        names
    }

    #[test]
    fn files_that_may_hold_the_text_of_a_caller_are_removed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = open(dir.path());
        insert(&mut cache, "You are", true);
        insert(&mut cache, "You are Ann", false);
        for other in ["0-0.part", "0-0.fixed.part", "0-0.prefix", "note"] {
            fs::write(dir.path().join(other), "x").unwrap();
        }
        forget_text(&mut cache);
        let fixed = file_name(&FINGERPRINT, &tokens("You are"), true);
        assert_eq!(names(dir.path()), ["0-0.fixed.part", &fixed, "note"]);
        let found = cache.find(AdapterSet(0), &tokens("You are Ann, a sailor"), 0, false).unwrap();
        assert_eq!((found.tokens.len(), found.is_fixed), (7, true));
        fs::write(dir.path().join("0-0.prefix"), "x").unwrap();
        assert_eq!(erase_text(dir.path()).unwrap(), 1);
        assert_eq!(erase_text(dir.path()).unwrap(), 0);
        assert_eq!(erase_text(&dir.path().join("none")).unwrap(), 0);
    }

    #[test]
    fn an_engine_that_was_not_told_of_an_erase_writes_no_text_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut told, mut untold) = (open(dir.path()), open(dir.path()));
        let unused = DiskPrefixCache::open(&Options { dir: dir.path().to_owned(), max_bytes: 1 << 20 });
        assert_eq!(erase_text(dir.path()).unwrap(), 0);
        forget_text(&mut told);
        // What it has in its memory and its queue is of before.
        insert(&mut untold, "You are Ann", false);
        insert(&mut untold, "You are", true);
        drop(untold);
        let fixed = file_name(&FINGERPRINT, &tokens("You are"), true);
        assert_eq!(names(dir.path()), [fixed.as_str()]);
        insert(&mut told, "You are Bob", false);
        drop(told);
        let mut later = unused.unwrap();
        later.index_adapters(AdapterSet(0), FINGERPRINT);
        insert(&mut later, "You are Eve", false);
        drop(later);
        let mut all = ["You are Bob", "You are Eve"].map(|text| file_name(&FINGERPRINT, &tokens(text), false)).to_vec();
        all.push(fixed);
        all.sort();
        assert_eq!(names(dir.path()), all);
    }

    #[test]
    fn an_erase_waits_for_the_file_that_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let (begun, has_begun) = mpsc::channel();
        let (path, file) = (dir.path().to_owned(), dir.path().join("0-0.prefix"));
        let writing = thread::spawn(move || {
            erase_count::write_if_current(&path, 0, || {
                begun.send(()).unwrap();
                // Until the erase has counted itself, and cannot go on.
                while erase_count::read(&path) == 0 {
                    thread::yield_now();
                }
                fs::write(path.join("0-0.prefix"), "text")
            })
        });
        has_begun.recv().unwrap();
        assert_eq!(erase_text(dir.path()).unwrap(), 1);
        assert!(writing.join().unwrap().unwrap() && !file.exists());
    }

    #[test]
    fn a_prefix_that_was_evicted_is_stored_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = open(dir.path());
        let path = dir.path().join(file_name(&FINGERPRINT, &tokens("You are"), true));
        for is_looked_up in [false, true] {
            insert(&mut cache, "You", true);
            insert(&mut cache, "You are", true);
            forget_text(&mut cache);
            fs::remove_file(&path).unwrap();
            if is_looked_up {
                let found = cache.find(AdapterSet(0), &tokens("You are a sailor"), 0, false).unwrap();
                assert_eq!(found.tokens.len(), 3, "the next longest");
            }
            insert(&mut cache, "You are", true);
            forget_text(&mut cache);
            assert!(path.exists());
        }
    }

    #[test]
    fn damaged_files_are_deleted_and_never_used() {
        let dir = tempfile::tempdir().unwrap();
        let file = write_file(dir.path(), FINGERPRINT, "You are", b"long state");
        let find = || open(dir.path()).find(AdapterSet(0), &tokens("You are a sailor"), 0, false);
        let whole = fs::read(&file).unwrap();
        for cut in 0..whole.len() {
            fs::write(&file, &whole[..cut]).unwrap();
            assert!(find().is_none(), "cut at {cut}");
        }
        let last = whole.len() - 1;
        let mut flipped = whole;
        flipped[last] ^= 1;
        fs::write(&file, flipped).unwrap();
        assert!(find().is_none());
        assert!(!file.exists());
    }

    #[test]
    fn the_least_recently_used_file_is_evicted_when_the_budget_is_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["a", "b", "c"].map(|text| write_file(dir.path(), FINGERPRINT, text, &[0; 1000]));
        for (age, file) in [30, 10, 20].into_iter().zip(&files) {
            let then = SystemTime::now() - std::time::Duration::from_secs(age);
            File::options().append(true).open(file).unwrap().set_modified(then).unwrap();
        }
        evict_oldest(dir.path(), 2500);
        assert_eq!(files.each_ref().map(|file| file.exists()), [false, true, true]);
        evict_oldest(dir.path(), 1500);
        assert_eq!(files.each_ref().map(|file| file.exists()), [false, true, false]);
    }
}
