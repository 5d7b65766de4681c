//! A look at a journal from outside, beside a daemon that runs or without one. Nothing is written.

use std::path::{Path, PathBuf};

use artel_task::event::Timestamp;
use artel_task::{Event, EventKind, TaskId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection};

use crate::codec::{decode, task_id};
use crate::{Error, Stage, schema};

/// Problems that a check lists; more of them say nothing new.
const PROBLEMS: usize = 100;

/// Tasks that a check reads at once.
const PAGE: i64 = 256;

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// The database.
    pub path: PathBuf,
    /// The version of its format.
    pub format: i64,
    /// Bytes of the database.
    pub bytes: u64,
    /// Of these, bytes that hold nothing.
    pub free: u64,
    /// Bytes of the log beside it.
    pub log: u64,
    /// Tasks that run.
    pub running: u64,
    /// Tasks that gave a result.
    pub completed: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// When the oldest task was accepted.
    pub oldest: Option<Timestamp>,
    /// When the newest task was accepted.
    pub newest: Option<Timestamp>,
    /// When the oldest task that runs was accepted.
    pub oldest_running: Option<Timestamp>,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Tasks looked at.
    pub tasks: u64,
    /// Events read.
    pub events: u64,
    /// What is wrong, a sentence each: the first hundred.
    pub problems: Vec<String>,
    /// The tasks that cannot be read whole.
    pub damaged: Vec<TaskId>,
}

/// Counts what the journal of a directory holds; `None` if there is none.
///
/// # Errors
/// A database that is newer, none of ours, damaged or not to be read.
pub async fn survey(dir: &Path) -> Result<Option<Figures>, Error> {
    let Some((path, mut conn)) = open(dir).await? else { return Ok(None) };
    let failed = |e| Error::database(&path, e);
    let format = schema::check(&path, &mut conn).await?;
    if format == 0 {
        return Ok(None);
    }
    let stages: Vec<(i64, i64)> = sqlx::query_as("SELECT stage, count(*) FROM tasks GROUP BY stage")
        .fetch_all(&mut conn)
        .await
        .map_err(failed)?;
    let (oldest, newest, oldest_running, free): (Option<i64>, Option<i64>, Option<i64>, i64) = sqlx::query_as(
        "SELECT (SELECT min(created) FROM tasks), (SELECT max(created) FROM tasks),
                (SELECT min(created) FROM tasks WHERE stage = ?), f.freelist_count * s.page_size
         FROM pragma_freelist_count f, pragma_page_size s",
    )
    .bind(Stage::Running.code())
    .fetch_one(&mut conn)
    .await
    .map_err(failed)?;
    // An error of a connection that only read loses nothing.
    drop(conn.close().await);
    let count =
        |stage: Stage| stages.iter().find(|(code, _)| *code == stage.code()).map_or(0, |(_, n)| n.unsigned_abs());
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let time = |at: Option<i64>| at.map(|at| Timestamp(at.unsigned_abs()));
    Ok(Some(Figures {
        bytes: size(&path),
        log: size(&path.with_extension("sqlite-wal")),
        format,
        free: free.unsigned_abs(),
        running: count(Stage::Running),
        completed: count(Stage::Completed),
        failed: count(Stage::Failed),
        cancelled: count(Stage::Cancelled),
        oldest: time(oldest),
        newest: time(newest),
        oldest_running: time(oldest_running),
        path,
    }))
}

/// Reads all that the journal of a directory holds, and says what is wrong with it; `None` if there is none, or if it has an
/// older format, which opening it brings forward.
///
/// # Errors
/// A database that is newer, none of ours, or not to be read at all.
pub async fn check(dir: &Path) -> Result<Option<Report>, Error> {
    let Some((path, mut conn)) = open(dir).await? else { return Ok(None) };
    if schema::check(&path, &mut conn).await? != schema::VERSION {
        return Ok(None);
    }
    let mut report = Report::default();
    report.pages(&path, &mut conn).await;
    if let Err(error) = report.tasks(&path, &mut conn).await {
        report.note(error.to_string());
    }
    drop(conn.close().await);
    Ok(Some(report))
}

/// The database, for reading alone.
async fn open(dir: &Path) -> Result<Option<(PathBuf, SqliteConnection)>, Error> {
    let path = dir.join("journal.sqlite");
    if !path.exists() {
        return Ok(None);
    }
    let conn = schema::connect_options(&path).read_only(true).connect().await;
    let conn = conn.map_err(|e| Error::database(&path, e))?;
    Ok(Some((path, conn)))
}

impl Report {
    fn note(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// What SQLite says of its own pages.
    async fn pages(&mut self, path: &Path, conn: &mut SqliteConnection) {
        let lines: sqlx::Result<Vec<String>> = sqlx::query_scalar("PRAGMA integrity_check(100)").fetch_all(conn).await;
        match lines {
            Ok(lines) => lines.into_iter().filter(|line| line != "ok").for_each(|line| self.note(line)),
            Err(error) => self.note(Error::database(path, error).to_string()),
        }
    }

    async fn tasks(&mut self, path: &Path, conn: &mut SqliteConnection) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let page: Vec<(i64, Vec<u8>, i64)> =
                sqlx::query_as("SELECT number, id, stage FROM tasks WHERE number > ? ORDER BY number LIMIT ?")
                    .bind(after)
                    .bind(PAGE)
                    .fetch_all(&mut *conn)
                    .await
                    .map_err(|e| Error::database(path, e))?;
            let Some((last, ..)) = page.last() else { return Ok(()) };
            after = *last;
            for (number, id, stage) in page {
                let task = task_id(path, &id)?;
                self.tasks += 1;
                match events(path, conn, number, task).await {
                    Ok(events) => self.task(task, &events, stage),
                    Err(error) => {
                        self.damaged.push(task);
                        self.note(error.to_string());
                    }
                }
            }
        }
    }

    /// Whether the events of a task are a whole, and what its row says.
    fn task(&mut self, task: TaskId, events: &[Event], stage: i64) {
        self.events += events.len() as u64;
        let gap = events.iter().zip(1..).find(|(event, due)| event.seq.0 != *due);
        let wrong = match (gap, events.first(), events.last()) {
            (Some((_, due)), ..) => format!("it has no event {due}"),
            (None, Some(first), Some(_)) if !matches!(first.kind, EventKind::Accepted(_)) => {
                "it does not begin with `accepted`".to_owned()
            }
            (None, Some(_), Some(last)) if Stage::after(&last.kind).code() != stage => {
                "its row says another state than its events".to_owned()
            }
            (None, Some(_), Some(_)) => return,
            _ => "it has no events".to_owned(),
        };
        self.damaged.push(task);
        self.note(format!("task {task}: {wrong}"));
    }
}

async fn events(path: &Path, conn: &mut SqliteConnection, number: i64, task: TaskId) -> Result<Vec<Event>, Error> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT last, body FROM events WHERE task = ? ORDER BY last")
        .bind(number)
        .fetch_all(conn)
        .await
        .map_err(|e| Error::database(path, e))?;
    let mut events = Vec::new();
    for (last, body) in rows {
        events.extend(decode(path, task, last, &body)?);
    }
    Ok(events)
}
