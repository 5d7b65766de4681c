//! Repair: builds a new journal from the readable tasks of a damaged one.
//!
//! The damaged files are copied to a backup directory, and only the backup is read. The tasks are written into a new journal
//! beside the old one, which it replaces at the end; until then nothing that a daemon would open has changed.

mod salvage;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_task::event::{Failure, FailureCode};
use artel_task::{CatalogVersion, Clock, Event, EventKind, TaskId};
use tokio::task::JoinSet;

use crate::inspect::check;
use crate::{Error, Journal, Options, Retention, backup, dir};
use salvage::{Salvage, SalvagedTask};

/// The database and its write-ahead log, which may hold the newest commits.
const DATA_FILES: [&str; 2] = ["journal.sqlite", "journal.sqlite-wal"];

/// The index of the log, which SQLite creates again when a database is opened.
const LOG_INDEX: &str = "journal.sqlite-shm";

/// The tasks that are written concurrently, so that they share commits.
const BATCH_TASKS: usize = 256;

/// The events of one row: enough that long tasks need few rows.
const ROW_EVENTS: usize = 256;

/// The result of a repair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// The directory of the damaged files; `None` if there was no damage and nothing was changed.
    pub backup: Option<PathBuf>,
    /// The number of completely recovered tasks.
    pub kept: u64,
    /// Tasks of which only the first events could be read: they are failed now.
    pub failed: Vec<TaskId>,
    /// Tasks of which only the id could be read.
    pub lost: Vec<TaskId>,
    /// An upper bound of the further tasks whose ids could not be read.
    pub unidentified: u64,
    /// Whether the newest tasks may be lost too, in an unknown number.
    pub newest_may_be_lost: bool,
    /// The number of catalogs that could not be read: running tasks that need one of them fail at the next start.
    pub lost_catalogs: u64,
}

/// Repairs the journal in a directory, keeping the readable tasks; `None` if there is none, or if it has an older format.
/// No daemon may use it.
///
/// # Errors
/// [`Error::Locked`] if a daemon uses it, [`Error::Corrupt`] for a file of which nothing can be read; any fault. The journal
/// is then unchanged.
pub async fn repair(dir: &Path) -> Result<Option<RepairReport>, Error> {
    if !dir.join(DATA_FILES[0]).exists() {
        return Ok(None);
    }
    let _lock = dir::open(dir)?;
    match check(dir).await {
        Ok(None) => return Ok(None),
        Ok(Some(report)) if report.problems.is_empty() => {
            return Ok(Some(RepairReport { kept: report.tasks, ..RepairReport::default() }));
        }
        // The check refuses a truncated file as a whole, but a repair can still read a part of it.
        Ok(Some(_)) | Err(Error::Corrupt { .. }) => {}
        Err(error) => return Err(error),
    }
    let (backup, new) = (backup::path(dir, Clock::default().now()), backup::unfinished(dir));
    let repaired = async {
        back_up(dir, &backup).map_err(|e| failed(&backup, e))?;
        let mut report = RepairReport { backup: Some(backup.clone()), ..RepairReport::default() };
        rebuild(&backup, &new, &mut report).await?;
        replace(dir, &new).map_err(|e| failed(dir, e))?;
        Ok(report)
    };
    match repaired.await {
        Ok(report) => Ok(Some(report)),
        Err(error) => {
            // The journal is unchanged, and the disk may be full.
            for leftover in [&backup, &new] {
                drop(fs::remove_dir_all(leftover));
            }
            Err(error)
        }
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Directory { path: path.to_owned(), source: source.into() }
}

/// Copies the damaged files unchanged.
fn back_up(dir: &Path, backup: &Path) -> io::Result<()> {
    dir::create(backup)?;
    for file in DATA_FILES.iter().filter(|file| dir.join(file).exists()) {
        fs::copy(dir.join(file), backup.join(file))?;
        File::open(backup.join(file))?.sync_all()?;
    }
    dir::sync(backup)
}

/// Replaces the old journal by the new one. The old log is removed first: SQLite would take it for the new one's.
fn replace(dir: &Path, new: &Path) -> io::Result<()> {
    for file in [DATA_FILES[1], LOG_INDEX].iter().filter(|file| dir.join(file).exists()) {
        fs::remove_file(dir.join(file))?;
    }
    dir::sync(dir)?;
    fs::rename(new.join(DATA_FILES[0]), dir.join(DATA_FILES[0]))?;
    dir::sync(dir)?;
    fs::remove_dir_all(new)
}

/// Writes all readable tasks and catalogs of the backup into a new journal.
async fn rebuild(backup: &Path, new: &Path, report: &mut RepairReport) -> Result<(), Error> {
    if new.exists() {
        // An earlier repair was interrupted.
        fs::remove_dir_all(new).map_err(|e| failed(new, e))?;
    }
    let retention = Retention { tasks: u64::MAX, age: Duration::MAX, bytes: u64::MAX };
    let journal = Journal::open(new, Options { retention, ..Options::default() }).await?;
    let mut salvage = Salvage::open(backup).await?;
    let (catalogs, lost) = salvage.catalogs().await;
    report.lost_catalogs = lost;
    for (version, sources) in catalogs {
        journal.store_catalog(&CatalogVersion::new(version), sources).await?;
    }
    let mut batch = Vec::with_capacity(BATCH_TASKS);
    let mut number = 0;
    while let Some(next) = salvage.next_number(number).await {
        number = next;
        match salvage.task(number).await {
            SalvagedTask::Absent => {}
            SalvagedTask::Unidentified => report.unidentified += 1,
            SalvagedTask::Lost(task) => report.lost.push(task),
            SalvagedTask::Complete(events) => batch.push((events, false)),
            SalvagedTask::Truncated(events) => batch.push((with_failure(events), true)),
        }
        if batch.len() == BATCH_TASKS {
            write(&journal, std::mem::take(&mut batch), report).await?;
        }
    }
    write(&journal, batch, report).await?;
    // The next start finishes what was not complete, and deletes the copy of the damaged files then.
    journal.begin_erasures(salvage.erasures().await).await?;
    let (newest_may_be_lost, tail_probes) = salvage.tail();
    report.newest_may_be_lost = newest_may_be_lost;
    report.unidentified = report.unidentified.saturating_sub(tail_probes);
    salvage.close().await;
    journal.close().await;
    Ok(())
}

/// Ends a task whose last events are lost with a failure: it is unknown which of its steps were done.
fn with_failure(mut events: Vec<Event>) -> Vec<Event> {
    let Some(last) = events.last() else { return events };
    let message = "the journal was damaged, and the later events of the task are lost".to_owned();
    let failure = Failure::new(FailureCode::Internal, message);
    let (at, kind) = (last.at.max(Clock::default().now()), EventKind::Failed { failure });
    let event = Event { task: last.task, seq: last.seq.next(), at, kind };
    events.push(event);
    events
}

/// Writes tasks in their order.
async fn write(journal: &Journal, batch: Vec<(Vec<Event>, bool)>, report: &mut RepairReport) -> Result<(), Error> {
    let mut writing = JoinSet::new();
    for (events, failed) in batch {
        let (journal, Some(task)) = (journal.clone(), events.first().map(|event| event.task)) else { continue };
        writing.spawn(async move { (task, failed, store(&journal, events).await) });
    }
    for (task, failed, stored) in writing.join_all().await {
        match stored {
            Ok(()) if failed => report.failed.push(task),
            Ok(()) => report.kept += 1,
            // The events were readable but are invalid.
            Err(
                Error::Unstorable { .. }
                | Error::UnexpectedSeq { .. }
                | Error::Ended { .. }
                | Error::RequestReused { .. },
            ) => {
                report.lost.push(task);
            }
            Err(error) => return Err(error),
        }
    }
    report.failed.sort();
    report.lost.sort();
    Ok(())
}

async fn store(journal: &Journal, events: Vec<Event>) -> Result<(), Error> {
    let mut events = events.into_iter();
    let Some(first) = events.next() else { return Ok(()) };
    journal.accept(first).await?;
    loop {
        let row: Vec<Event> = events.by_ref().take(ROW_EVENTS).collect();
        if row.is_empty() {
            return Ok(());
        }
        journal.append(row).await?;
    }
}
