//! A whole journal made of what can be read of a damaged one.
//!
//! The damaged files are set aside as they were, and only the copy is read. What was read is written into a new journal beside
//! the old one, which takes its place at the end; until then nothing that a daemon would open has changed.

mod salvage;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_task::event::{FailureCode, Failure, Timestamp};
use artel_task::{CatalogVersion, Event, EventKind, TaskId};
use tokio::task::JoinSet;

use crate::survey::check;
use crate::{Error, Journal, Options, Retention, dir};
use salvage::{Found, Salvage};

/// The database and its log, in which the newest commits may be.
const FILES: [&str; 2] = ["journal.sqlite", "journal.sqlite-wal"];

/// The log's index, made anew whenever a database is opened.
const LOG_INDEX: &str = "journal.sqlite-shm";

/// Tasks that are written at once, so that they share commits.
const AT_ONCE: usize = 256;

/// Events of one row, as many as fit well.
const ROW: usize = 256;

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Where the damaged files are; none if there was no damage, and nothing was done.
    pub aside: Option<PathBuf>,
    /// Tasks that are as they were.
    pub kept: u64,
    /// Tasks of which only the beginning could be read: they have failed now.
    pub failed: Vec<TaskId>,
    /// Tasks of which nothing could be read but their names.
    pub lost: Vec<TaskId>,
    /// At most so many more tasks lay where not even names could be read.
    pub nameless: u64,
    /// Whether the newest tasks may be lost, too, so that nobody can say how many they were.
    pub newest: bool,
    /// Catalogs that could not be read: tasks that ran under one of them fail at the next start, and say so.
    pub catalogs: u64,
}

/// Makes the journal of a directory whole, keeping what can be read; `None` if there is none, or if it has an older format.
/// No daemon may run there.
///
/// # Errors
/// [`Error::Locked`] beside a daemon, [`Error::Corrupt`] for a file of which nothing can be read; any fault. The journal is then
/// as it was.
pub async fn repair(dir: &Path) -> Result<Option<Repair>, Error> {
    if !dir.join(FILES[0]).exists() {
        return Ok(None);
    }
    let _lock = dir::open(dir)?;
    match check(dir).await {
        Ok(None) => return Ok(None),
        Ok(Some(report)) if report.problems.is_empty() => {
            return Ok(Some(Repair { kept: report.tasks, ..Repair::default() }));
        }
        // A file that was cut is refused as a whole by whoever does not ask for what is left.
        Ok(Some(_)) | Err(Error::Corrupt { .. }) => {}
        Err(error) => return Err(error),
    }
    let (aside, new) = (dir.join(format!("damaged-{}", now())), dir.join("repairing"));
    let repaired = async {
        put_aside(dir, &aside).map_err(|e| failed(&aside, e))?;
        let mut repair = Repair { aside: Some(aside.clone()), ..Repair::default() };
        rebuild(&aside, &new, &mut repair).await?;
        replace(dir, &new).map_err(|e| failed(dir, e))?;
        Ok(repair)
    };
    match repaired.await {
        Ok(repair) => Ok(Some(repair)),
        Err(error) => {
            // The journal is still there, and the disk may be full.
            for left in [&aside, &new] {
                drop(fs::remove_dir_all(left));
            }
            Err(error)
        }
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Directory { path: path.to_owned(), source: source.into() }
}

/// Copies the files as they are.
fn put_aside(dir: &Path, aside: &Path) -> io::Result<()> {
    dir::create(aside)?;
    for file in FILES.iter().filter(|file| dir.join(file).exists()) {
        fs::copy(dir.join(file), aside.join(file))?;
        File::open(aside.join(file))?.sync_all()?;
    }
    dir::sync(aside)
}

/// Puts the new journal in the place of the old one. The old log goes first: it would be taken for the new one's.
fn replace(dir: &Path, new: &Path) -> io::Result<()> {
    for file in [FILES[1], LOG_INDEX].iter().filter(|file| dir.join(file).exists()) {
        fs::remove_file(dir.join(file))?;
    }
    dir::sync(dir)?;
    fs::rename(new.join(FILES[0]), dir.join(FILES[0]))?;
    dir::sync(dir)?;
    fs::remove_dir_all(new)
}

/// Writes all that can be read of the one into the other.
async fn rebuild(aside: &Path, new: &Path, repair: &mut Repair) -> Result<(), Error> {
    if new.exists() {
        // An earlier repair was cut off.
        fs::remove_dir_all(new).map_err(|e| failed(new, e))?;
    }
    let retention = Retention { tasks: u64::MAX, age: Duration::MAX, bytes: u64::MAX };
    let journal = Journal::open(new, Options { retention, ..Options::default() }).await?;
    let mut salvage = Salvage::open(aside).await?;
    let (catalogs, lost) = salvage.catalogs().await;
    repair.catalogs = lost;
    for (version, sources) in catalogs {
        journal.keep_catalog(&CatalogVersion::new(version), sources).await?;
    }
    let mut batch = Vec::with_capacity(AT_ONCE);
    let mut number = 0;
    while let Some(next) = salvage.after(number).await {
        number = next;
        match salvage.task(number).await {
            Found::Nothing => {}
            Found::Nameless => repair.nameless += 1,
            Found::Lost(task) => repair.lost.push(task),
            Found::Whole(events) => batch.push((events, false)),
            Found::Beginning(events) => batch.push((end(events), true)),
        }
        if batch.len() == AT_ONCE {
            write(&journal, std::mem::take(&mut batch), repair).await?;
        }
    }
    write(&journal, batch, repair).await?;
    let (newest, tried) = salvage.beyond();
    (repair.newest, repair.nameless) = (newest, repair.nameless.saturating_sub(tried));
    salvage.close().await;
    journal.close().await;
    Ok(())
}

/// A task of which the rest is lost has failed: nobody can say which of its steps were done.
fn end(mut events: Vec<Event>) -> Vec<Event> {
    let Some(last) = events.last() else { return events };
    let message = "the journal was damaged: what came after is lost".to_owned();
    let failure = Failure { code: FailureCode::Internal, message, step: None };
    let (at, kind) = (last.at.max(Timestamp(now())), EventKind::Failed { failure });
    let event = Event { task: last.task, seq: last.seq.next(), at, kind };
    events.push(event);
    events
}

/// Writes tasks in their order.
async fn write(journal: &Journal, batch: Vec<(Vec<Event>, bool)>, repair: &mut Repair) -> Result<(), Error> {
    let mut writing = JoinSet::new();
    for (events, failed) in batch {
        let (journal, Some(task)) = (journal.clone(), events.first().map(|event| event.task)) else { continue };
        writing.spawn(async move { (task, failed, store(&journal, events).await) });
    }
    for (task, failed, stored) in writing.join_all().await {
        match stored {
            Ok(()) if failed => repair.failed.push(task),
            Ok(()) => repair.kept += 1,
            // What passed for readable has no sense.
            Err(Error::Unstorable { .. } | Error::Gap { .. } | Error::Ended { .. } | Error::RequestReused { .. }) => {
                repair.lost.push(task);
            }
            Err(error) => return Err(error),
        }
    }
    repair.failed.sort();
    repair.lost.sort();
    Ok(())
}

async fn store(journal: &Journal, events: Vec<Event>) -> Result<(), Error> {
    let mut events = events.into_iter();
    let Some(first) = events.next() else { return Ok(()) };
    journal.accept(first).await?;
    loop {
        let row: Vec<Event> = events.by_ref().take(ROW).collect();
        if row.is_empty() {
            return Ok(());
        }
        journal.append(row).await?;
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
