//! Feedback of users on routing decisions: a file of JSON lines beside the journal. A record is on disk before it is
//! acknowledged.
//!
//! It is not part of the database, since it outlives the tasks that it refers to: routers are fitted to it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use artel_model::open_regular_file;
use artel_task::{CallerName, RoleName, TaskId};
use serde::{Deserialize, Serialize};

use crate::Erasure;

/// The maximum number of records: far more than a router is fitted to.
const MAX_RECORDS: usize = 100_000;
/// The maximum length of a stored text: about as much as a router reads.
const MAX_TEXT_BYTES: usize = 16 << 10;
/// The maximum size of the file. Replaced records are removed when it is next opened.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Feedback on a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackRecord {
    /// The task of the decision.
    pub task: TaskId,
    /// The router's step, as events write it.
    pub step: String,
    /// The text that was routed, cut to some kilobytes.
    pub text: String,
    /// The role that the router chose.
    pub chosen: RoleName,
    /// The role that would have been right; `None`: none of the candidates.
    pub role: Option<RoleName>,
    /// A comment in free text.
    pub comment: String,
    /// The caller that the task belongs to.
    #[serde(default = "CallerName::owner")]
    pub owner: CallerName,
    /// The caller that gave the feedback.
    #[serde(default = "CallerName::owner")]
    pub caller: CallerName,
}

/// Why the feedback store could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot access the feedback file {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A line is not a feedback record.
    #[error("line {line} of the feedback file {} is not a feedback record; correct or remove it", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// The limit of records or bytes is reached.
    #[error("the feedback file {} is full; move it away to start a new one", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
}

/// The stored feedback. All clones share one file.
#[derive(Debug, Clone)]
pub struct FeedbackStore {
    file: Arc<Mutex<FeedbackFile>>,
    path: Arc<Path>,
}

#[derive(Debug)]
struct FeedbackFile {
    file: File,
    bytes: u64,
    records: Vec<FeedbackRecord>,
    /// The index of the record of each decision.
    indices: HashMap<(TaskId, String), usize>,
}

impl FeedbackStore {
    /// Opens `dir/feedback.jsonl`, creating it if it is missing. The journal of the same directory must be open: its lock keeps
    /// other writers out. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Line`]. A last line that was cut off by a crash was never acknowledged and is dropped.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path: Arc<Path> = dir.join("feedback.jsonl").into();
        let failed = |source| Error::File { path: path.to_path_buf(), source };
        let mut text = String::new();
        match open_regular_file(&path) {
            Ok(mut file) => drop(file.read_to_string(&mut text).map_err(failed)?),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        let (mut records, mut indices) = (Vec::new(), HashMap::new());
        for (index, line) in text[..complete].lines().enumerate() {
            let invalid = |_| Error::Line { path: path.to_path_buf(), line: index + 1 };
            upsert(&mut records, &mut indices, serde_json::from_str(line).map_err(invalid)?);
        }
        // A rewrite that was interrupted may have left records that are erased since.
        match std::fs::remove_file(path.with_extension("new")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let replaced = text[..complete].lines().count() > records.len();
        let opened = if replaced { rewrite(&path, &records) } else { open_append(&path, complete as u64) };
        let (file, bytes) = opened.map_err(failed)?;
        sync_dir(&path).map_err(failed)?;
        let file = FeedbackFile { file, bytes, records, indices };
        Ok(Self { file: Arc::new(Mutex::new(file)), path })
    }

    /// Stores a record; it is on disk when this returns. A later record of the same decision replaces the earlier one. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::File`].
    pub fn append(&self, mut record: FeedbackRecord) -> Result<(), Error> {
        let failed = |source| Error::File { path: self.path.to_path_buf(), source };
        record.text.truncate(record.text.floor_char_boundary(MAX_TEXT_BYTES));
        let mut line = serde_json::to_string(&record).map_err(|e| failed(e.into()))?;
        line.push('\n');
        let mut state = self.file.lock().expect("nothing panics while it holds the lock");
        let is_new = !state.indices.contains_key(&(record.task, record.step.clone()));
        if (is_new && state.records.len() >= MAX_RECORDS) || state.bytes + line.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::Full { path: self.path.to_path_buf() });
        }
        let before = state.bytes;
        let written = state.file.write_all(line.as_bytes()).and_then(|()| state.file.sync_data());
        if let Err(error) = written {
            // An incomplete line would be joined with the next one.
            let _ = state.file.set_len(before);
            return Err(failed(error));
        }
        state.bytes += line.len() as u64;
        let FeedbackFile { records, indices, .. } = &mut *state;
        upsert(records, indices, record);
        Ok(())
    }

    /// Up to `limit` records on tasks of this caller, or of all callers, from this index among them on: the latest of each decision,
    /// in the order in which decisions first got feedback. Waits for the disk while another thread writes.
    pub fn records(&self, owner: Option<&CallerName>, from: usize, limit: usize) -> Vec<FeedbackRecord> {
        let state = self.file.lock().expect("nothing panics while it holds the lock");
        let records = state.records.iter().filter(|record| owner.is_none_or(|owner| record.owner == *owner));
        records.skip(from).take(limit).cloned().collect()
    }

    /// Whether there is feedback on a task of this caller, or of any caller. It may be there longer than the task. Waits for the disk
    /// while another thread writes.
    pub fn has_task(&self, owner: Option<&CallerName>, task: TaskId) -> bool {
        let state = self.file.lock().expect("nothing panics while it holds the lock");
        state.records.iter().any(|record| record.task == task && owner.is_none_or(|owner| record.owner == *owner))
    }

    /// Removes the records that one of these erases includes, and returns their number; the file is written anew without them. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// [`Error::File`]; then they may be removed or not.
    pub fn erase(&self, erasures: &[Erasure]) -> Result<u64, Error> {
        self.erase_with(erasures, sync_dir)
    }

    fn erase_with(
        &self,
        erasures: &[Erasure],
        sync_dir: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<u64, Error> {
        let failed = |source| Error::File { path: self.path.to_path_buf(), source };
        let mut state = self.file.lock().expect("nothing panics while it holds the lock");
        let is_erased = |record: &FeedbackRecord| erasures.iter().any(|all| all.includes(record.task, &record.owner));
        let kept: Vec<FeedbackRecord> = state.records.iter().filter(|record| !is_erased(record)).cloned().collect();
        let removed = state.records.len() - kept.len();
        if removed > 0 {
            let (file, bytes) = rewrite(&self.path, &kept).map_err(failed)?;
            let (mut records, mut indices) = (Vec::new(), HashMap::new());
            kept.into_iter().for_each(|record| upsert(&mut records, &mut indices, record));
            *state = FeedbackFile { file, bytes, records, indices };
        }
        // Even if there is nothing to remove: this may have failed the last time.
        sync_dir(&self.path).map_err(failed)?;
        Ok(removed as u64)
    }
}

/// The directory entry must survive a crash too.
fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())
}

/// Opens the file with its first bytes alone; returns how many these are, too.
fn open_append(path: &Path, complete_bytes: u64) -> std::io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    file.set_len(complete_bytes)?;
    file.sync_all()?;
    Ok((file, complete_bytes))
}

/// Writes the file without replaced records, and returns it with its size. After a crash at any time, either the old file or the new
/// one exists. Nothing can fail once the new one has its name: the caller must not go on with the old one then.
fn rewrite(path: &Path, records: &[FeedbackRecord]) -> std::io::Result<(File, u64)> {
    let new = path.with_extension("new");
    let (mut file, _) = open_append(&new, 0)?;
    for record in records {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        file.write_all(&line)?;
    }
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    std::fs::rename(&new, path)?;
    Ok((file, bytes))
}

fn upsert(records: &mut Vec<FeedbackRecord>, indices: &mut HashMap<(TaskId, String), usize>, record: FeedbackRecord) {
    match indices.get(&(record.task, record.step.clone())) {
        Some(index) => records[*index] = record,
        None => {
            indices.insert((record.task, record.step.clone()), records.len());
            records.push(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: &str, role: &str) -> FeedbackRecord {
        let name = |name| RoleName::parse(name).unwrap();
        FeedbackRecord {
            task: TaskId::new(1, [0; 10]),
            step: step.to_owned(),
            text: "Где?\nHere".to_owned(),
            chosen: name("gguf"),
            role: RoleName::parse(role).ok(),
            comment: String::new(),
            owner: CallerName::owner(),
            caller: CallerName::owner(),
        }
    }

    fn of_caller(name: &str, millis: u64) -> FeedbackRecord {
        let name = CallerName::parse(name).unwrap();
        let task = TaskId::new(millis, [1; 10]);
        FeedbackRecord { task, owner: name.clone(), caller: name, ..record("a", "rag") }
    }

    #[test]
    fn a_record_without_names_is_of_the_owner() {
        let old = r#"{"task":"00000000-0001-7000-8000-000000000000","step":"a","text":"?","chosen":"gguf","role":null,"comment":""}"#;
        let read: FeedbackRecord = serde_json::from_str(old).unwrap();
        assert!(read.owner.is_owner() && read.caller.is_owner());
    }

    #[test]
    fn each_caller_has_its_own_records_and_an_erase_leaves_those_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = FeedbackStore::open(dir.path()).unwrap();
        let [early, late, other] = [of_caller("alice", 5), of_caller("alice", 9), of_caller("bob", 4)];
        for record in [&early, &late, &other] {
            feedback.append(record.clone()).unwrap();
        }
        assert_eq!(feedback.records(Some(&early.owner), 1, 9), std::slice::from_ref(&late));
        assert_eq!(feedback.records(None, 0, 9).len(), 3);
        assert!(feedback.has_task(Some(&early.owner), late.task) && !feedback.has_task(Some(&other.owner), late.task));
        let until = artel_task::event::Timestamp(5);
        let erasure = Erasure::Owner { name: early.owner, until };
        assert_eq!(feedback.erase(std::slice::from_ref(&erasure)).unwrap(), 1);
        assert_eq!(feedback.erase(&[erasure]).unwrap(), 0);
        assert_eq!(feedback.erase(&[Erasure::Task(other.task)]).unwrap(), 1);
        feedback.append(of_caller("carol", 7)).unwrap();
        let left = [late, of_caller("carol", 7)];
        assert_eq!(feedback.records(None, 0, 9), left);
        drop(feedback);
        assert_eq!(FeedbackStore::open(dir.path()).unwrap().records(None, 0, 9), left);
        let text = std::fs::read_to_string(dir.path().join("feedback.jsonl")).unwrap();
        assert!(!text.contains("bob") && text.lines().count() == 2, "{text}");
    }

    #[test]
    fn feedback_after_an_erase_that_failed_at_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = FeedbackStore::open(dir.path()).unwrap();
        let [erased, kept, later] = [of_caller("alice", 5), of_caller("bob", 6), of_caller("carol", 7)];
        for record in [&erased, &kept] {
            feedback.append(record.clone()).unwrap();
        }
        let erasure = [Erasure::Task(erased.task)];
        let failing = |_: &Path| Err(std::io::Error::from(ErrorKind::Other));
        assert!(matches!(feedback.erase_with(&erasure, failing), Err(Error::File { .. })));
        feedback.append(later.clone()).unwrap();
        assert!(feedback.erase_with(&erasure, failing).is_err(), "that it is removed is not on disk yet");
        assert_eq!(feedback.erase(&erasure).unwrap(), 0);
        drop(feedback);
        assert_eq!(FeedbackStore::open(dir.path()).unwrap().records(None, 0, 9), [kept, later]);
    }

    #[test]
    fn the_latest_record_of_a_decision_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = FeedbackStore::open(dir.path()).unwrap();
        for (step, role) in [("a", "rag"), ("b", ""), ("a", "lora")] {
            feedback.append(record(step, role)).unwrap();
        }
        let expected = [record("a", "lora"), record("b", "")];
        assert_eq!(feedback.records(None, 0, 10), expected);
        drop(feedback);
        let again = FeedbackStore::open(dir.path()).unwrap();
        assert_eq!(again.records(None, 0, 10), expected);
        assert_eq!(again.records(None, 1, 10), expected[1..]);
    }

    #[test]
    fn a_truncated_line_is_dropped_and_an_invalid_one_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = FeedbackStore::open(dir.path()).unwrap();
        feedback.append(record("a", "rag")).unwrap();
        let path = dir.path().join("feedback.jsonl");
        let append =
            |text: &str| OpenOptions::new().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        append("{\"task\":\"0");
        let again = FeedbackStore::open(dir.path()).unwrap();
        again.append(record("b", "rag")).unwrap();
        assert_eq!(
            FeedbackStore::open(dir.path()).unwrap().records(None, 0, 10),
            [record("a", "rag"), record("b", "rag")]
        );
        append("nonsense\n");
        assert!(matches!(FeedbackStore::open(dir.path()), Err(Error::Line { line: 3, .. })));
    }
}
