//! A file of JSON lines with one record for each step of a task: the latest. Records are read from it when they are asked for; their
//! places alone are in memory.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artel_journal::Erasure;
use artel_model::open_regular_file;
use artel_task::{CallerName, TaskId};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The maximum number of records: far more than people write, and than a router or an adapter is made from. A place takes some 150
/// bytes of memory.
const MAX_RECORDS: usize = 100_000;
/// The maximum size of a file. Replaced records are removed when it is reached, and when the file is opened.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A record of a step.
pub trait StepRecord: Serialize + DeserializeOwned {
    /// The name of the file.
    const FILE_NAME: &'static str;
    /// A record in words.
    const WHAT: &'static str;

    /// The task and the step that it is about.
    fn place(&self) -> (TaskId, &str);

    /// The caller that the task belongs to.
    fn owner(&self) -> &CallerName;

    /// Cuts what is stored in part alone.
    fn shorten(&mut self) {}
}

/// Why a file of records could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot access the file {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A line is not a record.
    #[error("line {line} of the file {} is not a record of {what}; correct or remove it", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// What its lines are.
        what: &'static str,
        /// The line's number, from 1.
        line: usize,
    },
    /// The limit of records or bytes is reached.
    #[error("the file {} is full; move it away to start a new one", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
}

/// The stored records of one kind. All clones share one file.
#[derive(Debug)]
pub struct RecordFile<R> {
    state: Arc<Mutex<FileState>>,
    path: Arc<Path>,
    erase_observers: EraseObservers,
    records: PhantomData<fn() -> R>,
}

impl<R> Clone for RecordFile<R> {
    fn clone(&self) -> Self {
        let (state, path, erase_observers) = (self.state.clone(), self.path.clone(), self.erase_observers.clone());
        Self { state, path, erase_observers, records: PhantomData }
    }
}

/// What else is to be done where records were erased.
#[derive(Clone, Default)]
struct EraseObservers(Arc<Mutex<Vec<EraseObserver>>>);

type EraseObserver = Arc<dyn Fn() -> Result<(), Error> + Send + Sync>;

impl std::fmt::Debug for EraseObservers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EraseObservers").finish_non_exhaustive()
    }
}

impl EraseObservers {
    fn list(&self) -> MutexGuard<'_, Vec<EraseObserver>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct FileState {
    file: File,
    bytes: u64,
    places: Vec<RecordPlace>,
    /// The index of the place of each step.
    indices: HashMap<(TaskId, String), usize>,
}

/// Where a record is, and whose.
#[derive(Debug, Clone)]
struct RecordPlace {
    start: u64,
    bytes: usize,
    task: TaskId,
    owner: CallerName,
}

impl FileState {
    /// The record of the same step is replaced.
    fn keep(&mut self, (task, step): (TaskId, &str), place: RecordPlace) {
        match self.indices.get(&(task, step.to_owned())) {
            Some(index) => self.places[*index] = place,
            None => {
                self.indices.insert((task, step.to_owned()), self.places.len());
                self.places.push(place);
            }
        }
    }

    fn line(&self, place: &RecordPlace) -> std::io::Result<Vec<u8>> {
        let mut line = vec![0; place.bytes];
        self.file.read_exact_at(&mut line, place.start)?;
        Ok(line)
    }
}

impl<R: StepRecord> RecordFile<R> {
    /// Opens the file in this directory, creating it if it is missing. The journal of the same directory must be open: its lock keeps
    /// other writers out. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Line`]. A last line that was cut off by a crash was never acknowledged and is dropped.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path: Arc<Path> = dir.join(R::FILE_NAME).into();
        let failed = |source| Error::File { path: path.to_path_buf(), source };
        // A rewrite that was interrupted may have left records that are erased since.
        match std::fs::remove_file(path.with_extension("new")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        match open_regular_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut state = FileState {
            file: open_file(&path).map_err(failed)?,
            bytes: 0,
            places: Vec::new(),
            indices: HashMap::new(),
        };
        let lines = read_places::<R>(&path, &mut state)?;
        // What a crash cut off is no record.
        state.file.set_len(state.bytes).and_then(|()| state.file.sync_all()).map_err(failed)?;
        if lines > state.places.len() {
            let places = state.places.clone();
            rewrite::<R>(&path, &mut state, &places).map_err(failed)?;
        }
        sync_dir(&path).map_err(failed)?;
        let state = Arc::new(Mutex::new(state));
        Ok(Self { state, path, erase_observers: EraseObservers::default(), records: PhantomData })
    }

    /// Stores a record; it is on disk when this returns. A later record of the same step replaces the earlier one. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::File`].
    pub fn append(&self, mut record: R) -> Result<(), Error> {
        record.shorten();
        let line = line_of(&record).map_err(|error| self.failed(error))?;
        let (task, step) = record.place();
        let mut state = self.state();
        let is_new = !state.indices.contains_key(&(task, step.to_owned()));
        if state.bytes + line.len() as u64 > MAX_FILE_BYTES {
            // Replaced records take space until then.
            let places = state.places.clone();
            rewrite::<R>(&self.path, &mut state, &places).map_err(|error| self.failed(error))?;
            sync_dir(&self.path).map_err(|error| self.failed(error))?;
        }
        let start = state.bytes;
        if (is_new && state.places.len() >= MAX_RECORDS) || start + line.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::Full { path: self.path.to_path_buf() });
        }
        let written = state.file.write_all_at(&line, start).and_then(|()| state.file.sync_data());
        if let Err(error) = written {
            // The next line is written over an incomplete one, whether this succeeds or not.
            let _ = state.file.set_len(start);
            return Err(self.failed(error));
        }
        state.bytes += line.len() as u64;
        let place = RecordPlace { start, bytes: line.len(), task, owner: record.owner().clone() };
        state.keep((task, step), place);
        Ok(())
    }

    /// Up to `limit` records on tasks of this caller, or of all callers, from this index among them on: the latest of each step, in the
    /// order in which steps first got one. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn records(&self, owner: Option<&CallerName>, from: usize, limit: usize) -> Result<Vec<R>, Error> {
        let state = self.state();
        let places = state.places.iter().filter(|place| owner.is_none_or(|owner| place.owner == *owner));
        let read = |place| {
            let line = state.line(place)?;
            Ok(serde_json::from_slice(&line)?)
        };
        places.skip(from).take(limit).map(read).collect::<std::io::Result<Vec<R>>>().map_err(|e| self.failed(e))
    }

    /// Whether there is a record on a task of this caller, or of any caller. It may be there longer than the task. Waits for the disk
    /// while another thread writes.
    pub fn has_task(&self, owner: Option<&CallerName>, task: TaskId) -> bool {
        self.state().places.iter().any(|place| place.task == task && owner.is_none_or(|owner| place.owner == *owner))
    }

    /// The tasks that there are records on, of all callers. Waits for the disk while another thread writes.
    pub fn tasks(&self) -> HashSet<TaskId> {
        self.state().places.iter().map(|place| place.task).collect()
    }

    /// Removes the records that one of these erases includes, and returns their number; the file is written anew without them. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// [`Error::File`]; then they may be removed or not. Those of the observers; then they are removed here.
    pub fn erase(&self, erasures: &[Erasure]) -> Result<u64, Error> {
        self.erase_with(erasures, sync_dir)
    }

    /// Has this called after each erase, before the erase returns, which fails if this does. It may block on the disk.
    pub fn on_erase(&self, observe: impl Fn() -> Result<(), Error> + Send + Sync + 'static) {
        self.erase_observers.list().push(Arc::new(observe));
    }

    pub(crate) fn erase_with(
        &self,
        erasures: &[Erasure],
        sync_dir: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<u64, Error> {
        let mut state = self.state();
        let is_erased = |place: &RecordPlace| erasures.iter().any(|all| all.includes(place.task, &place.owner));
        let kept: Vec<RecordPlace> = state.places.iter().filter(|place| !is_erased(place)).cloned().collect();
        let removed = state.places.len() - kept.len();
        if removed > 0 {
            rewrite::<R>(&self.path, &mut state, &kept).map_err(|error| self.failed(error))?;
        }
        // Even if there is nothing to remove: this may have failed the last time.
        sync_dir(&self.path).map_err(|error| self.failed(error))?;
        drop(state);
        let observers = self.erase_observers.list().clone();
        observers.iter().map(|observe| observe()).fold(Ok(()), Result::and)?;
        Ok(removed as u64)
    }

    fn state(&self) -> MutexGuard<'_, FileState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::File { path: self.path.to_path_buf(), source }
    }
}

/// Reads where the records are, and returns the number of lines.
fn read_places<R: StepRecord>(path: &Path, state: &mut FileState) -> Result<usize, Error> {
    let failed = |source| Error::File { path: path.to_path_buf(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let (mut line, mut lines) = (Vec::new(), 0);
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            return Ok(lines);
        }
        lines += 1;
        let invalid = |_| Error::Line { path: path.to_path_buf(), what: R::WHAT, line: lines };
        let record: R = serde_json::from_slice(&line).map_err(invalid)?;
        let ((task, step), owner) = (record.place(), record.owner().clone());
        let place = RecordPlace { start: state.bytes, bytes: line.len(), task, owner };
        state.keep((task, step), place);
        state.bytes += line.len() as u64;
    }
}

fn line_of(record: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}

fn open_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

/// The directory entry must survive a crash too.
fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())
}

/// Writes the file with these records alone. After a crash at any time, either the old file or the new one exists. Nothing can fail
/// once the new one has its name: the old one must not be used then.
fn rewrite<R: StepRecord>(path: &Path, state: &mut FileState, kept: &[RecordPlace]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let file = open_file(&new)?;
    file.set_len(0)?;
    let mut rewritten = FileState { file, bytes: 0, places: Vec::new(), indices: HashMap::new() };
    for place in kept {
        let line = state.line(place)?;
        let record: R = serde_json::from_slice(&line)?;
        rewritten.file.write_all_at(&line, rewritten.bytes)?;
        rewritten.keep(record.place(), RecordPlace { start: rewritten.bytes, ..place.clone() });
        rewritten.bytes += line.len() as u64;
    }
    rewritten.file.sync_all()?;
    std::fs::rename(&new, path)?;
    *state = rewritten;
    Ok(())
}
