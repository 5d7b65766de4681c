//! What people say about decisions of routers: a file of lines beside the journal, each on disk before it is acknowledged.
//!
//! It is no part of the journal's database, since it outlives the tasks that it is about: an owner fits routers to it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use artel_task::{RoleName, TaskId};
use serde::{Deserialize, Serialize};

/// Words that are kept: far more than a router is fitted to.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of a text that are kept: about what a router looks at.
const MAX_TEXT: usize = 16 << 10;
/// Bytes of the file: older words about the same decisions are left out when it is next opened.
const MAX_BYTES: u64 = 1 << 30;

/// What somebody said about a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The task.
    pub task: TaskId,
    /// The router's step, as it is written in events.
    pub step: String,
    /// What the router read, cut to some kilobytes.
    pub text: String,
    /// What it chose.
    pub chosen: RoleName,
    /// The role that would have been right; `None`: none of the candidates.
    pub role: Option<RoleName>,
    /// A remark for people.
    pub comment: String,
}

/// Why a word was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read or written.
    #[error("failed to keep feedback in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is none of ours.
    #[error("{path} has a line that is no feedback: {line}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// Too much is kept.
    #[error("{path} is full; move it away to begin anew")]
    Full {
        /// The file.
        path: PathBuf,
    },
}

/// The words that are kept. Clones are the same.
#[derive(Debug, Clone)]
pub struct Feedback {
    inner: Arc<Mutex<Inner>>,
    path: Arc<Path>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    bytes: u64,
    words: Vec<Word>,
    /// Where the word about each decision is.
    places: HashMap<(TaskId, String), usize>,
}

impl Feedback {
    /// Opens `dir/feedback.jsonl`, making it where it is missing. The journal of the same directory must be open, so that
    /// nobody else writes. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Line`]. A last line that was cut off by a crash was never acknowledged and is dropped.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path: Arc<Path> = dir.join("feedback.jsonl").into();
        let failed = |source| Error::File { path: path.to_path_buf(), source };
        let mut text = String::new();
        match File::open(&path) {
            Ok(mut file) => drop(file.read_to_string(&mut text).map_err(failed)?),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let (mut words, mut places) = (Vec::new(), HashMap::new());
        for (at, line) in text[..whole].lines().enumerate() {
            let bad = |_| Error::Line { path: path.to_path_buf(), line: at + 1 };
            put(&mut words, &mut places, serde_json::from_str(line).map_err(bad)?);
        }
        let replaced = text[..whole].lines().count() > words.len();
        let file = if replaced { rewrite(&path, &words) } else { append(&path, whole as u64) }.map_err(failed)?;
        // The file's name must outlive a crash too.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let inner = Inner { file, bytes, words, places };
        Ok(Self { inner: Arc::new(Mutex::new(inner)), path })
    }

    /// Keeps a word; it is on disk when this returns. A later word about the same decision replaces the earlier one. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::File`].
    pub fn keep(&self, mut word: Word) -> Result<(), Error> {
        let failed = |source| Error::File { path: self.path.to_path_buf(), source };
        word.text.truncate(word.text.floor_char_boundary(MAX_TEXT));
        let mut line = serde_json::to_string(&word).map_err(|e| failed(e.into()))?;
        line.push('\n');
        let mut inner = self.inner.lock().expect("nothing panics while it holds the words");
        let is_new = !inner.places.contains_key(&(word.task, word.step.clone()));
        if (is_new && inner.words.len() >= MAX_ENTRIES) || inner.bytes + line.len() as u64 > MAX_BYTES {
            return Err(Error::Full { path: self.path.to_path_buf() });
        }
        let before = inner.bytes;
        let written = inner.file.write_all(line.as_bytes()).and_then(|()| inner.file.sync_data());
        if let Err(error) = written {
            // Half a line would join the next one.
            let _ = inner.file.set_len(before);
            return Err(failed(error));
        }
        inner.bytes += line.len() as u64;
        let Inner { words, places, .. } = &mut *inner;
        put(words, places, word);
        Ok(())
    }

    /// Up to `limit` words from this place on, the latest about each decision, in the order in which decisions were first
    /// spoken of.
    pub fn words(&self, from: usize, limit: usize) -> Vec<Word> {
        let inner = self.inner.lock().expect("nothing panics while it holds the words");
        inner.words.iter().skip(from).take(limit).cloned().collect()
    }
}

fn append(path: &Path, whole: u64) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    file.set_len(whole)?;
    file.sync_all()?;
    Ok(file)
}

/// The file without words that were replaced: either the old one or the new one is there, whatever happens.
fn rewrite(path: &Path, words: &[Word]) -> std::io::Result<File> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    for word in words {
        serde_json::to_writer(&mut file, word)?;
        file.write_all(b"\n")?;
    }
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    OpenOptions::new().append(true).open(path)
}

fn put(words: &mut Vec<Word>, places: &mut HashMap<(TaskId, String), usize>, word: Word) {
    match places.get(&(word.task, word.step.clone())) {
        Some(at) => words[*at] = word,
        None => {
            places.insert((word.task, word.step.clone()), words.len());
            words.push(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(step: &str, role: &str) -> Word {
        let name = |name| RoleName::parse(name).unwrap();
        Word {
            task: TaskId::new(1, [0; 10]),
            step: step.to_owned(),
            text: "Где?\nHere".to_owned(),
            chosen: name("gguf"),
            role: RoleName::parse(role).ok(),
            comment: String::new(),
        }
    }

    #[test]
    fn the_latest_word_is_kept_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = Feedback::open(dir.path()).unwrap();
        for (step, role) in [("a", "rag"), ("b", ""), ("a", "lora")] {
            feedback.keep(word(step, role)).unwrap();
        }
        let kept = [word("a", "lora"), word("b", "")];
        assert_eq!(feedback.words(0, 10), kept);
        drop(feedback);
        let again = Feedback::open(dir.path()).unwrap();
        assert_eq!(again.words(0, 10), kept);
        assert_eq!(again.words(1, 10), kept[1..]);
    }

    #[test]
    fn a_line_that_was_cut_off_is_dropped_and_a_foreign_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = Feedback::open(dir.path()).unwrap();
        feedback.keep(word("a", "rag")).unwrap();
        let path = dir.path().join("feedback.jsonl");
        let append =
            |text: &str| OpenOptions::new().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        append("{\"task\":\"0");
        let again = Feedback::open(dir.path()).unwrap();
        again.keep(word("b", "rag")).unwrap();
        assert_eq!(Feedback::open(dir.path()).unwrap().words(0, 10), [word("a", "rag"), word("b", "rag")]);
        append("nonsense\n");
        assert!(matches!(Feedback::open(dir.path()), Err(Error::Line { line: 3, .. })));
    }
}
