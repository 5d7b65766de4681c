//! Statistics and the integrity check of a journal, with or without a running daemon. Nothing is written.

use std::path::{Path, PathBuf};

use artel_task::event::Timestamp;
use artel_task::{Event, EventKind, TaskId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection};

use crate::codec::{decode, task_id};
use crate::{Error, TaskStatus, connection, damage, schema};

/// The problems that a check lists; more of them add no information.
const MAX_PROBLEMS: usize = 100;

/// The tasks that a check reads per query.
const PAGE_TASKS: i64 = 256;

/// Statistics of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalStats {
    /// The database.
    pub path: PathBuf,
    /// The version of its format.
    pub format: i64,
    /// The size of the database in bytes.
    pub database_bytes: u64,
    /// The free bytes among them.
    pub free_bytes: u64,
    /// The size of the write-ahead log in bytes.
    pub log_bytes: u64,
    /// Running tasks.
    pub running: u64,
    /// Completed tasks.
    pub completed: u64,
    /// Failed tasks.
    pub failed: u64,
    /// Cancelled tasks.
    pub cancelled: u64,
    /// When the oldest task was accepted.
    pub oldest: Option<Timestamp>,
    /// When the newest task was accepted.
    pub newest: Option<Timestamp>,
    /// When the oldest running task was accepted.
    pub oldest_running: Option<Timestamp>,
}

/// The result of an integrity check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntegrityReport {
    /// The number of checked tasks.
    pub tasks: u64,
    /// The number of decoded events.
    pub events: u64,
    /// The first hundred problems, as messages.
    pub problems: Vec<String>,
    /// The tasks that cannot be read completely.
    pub damaged: Vec<TaskId>,
}

/// A task that no daemon runs, although it has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAsideTask {
    /// The task.
    pub task: TaskId,
    /// What keeps it from running, and what to do.
    pub reason: String,
}

/// The statistics of the journal in a directory; `None` if there is none.
///
/// # Errors
/// If the database is newer, not a journal, damaged or unreadable.
pub async fn stats(dir: &Path) -> Result<Option<JournalStats>, Error> {
    let Some((path, mut conn)) = open(dir).await? else { return Ok(None) };
    let failed = |e| Error::database(&path, e);
    let format = schema::check(&path, &mut conn).await?;
    if format == 0 {
        return Ok(None);
    }
    let counts: Vec<(i64, i64)> = sqlx::query_as("SELECT stage, count(*) FROM tasks GROUP BY stage")
        .fetch_all(&mut conn)
        .await
        .map_err(failed)?;
    let (oldest, newest, oldest_running, free): (Option<i64>, Option<i64>, Option<i64>, i64) = sqlx::query_as(
        "SELECT (SELECT min(created) FROM tasks), (SELECT max(created) FROM tasks),
                (SELECT min(created) FROM tasks WHERE stage = ?), f.freelist_count * s.page_size
         FROM pragma_freelist_count f, pragma_page_size s",
    )
    .bind(TaskStatus::Running.code())
    .fetch_one(&mut conn)
    .await
    .map_err(failed)?;
    // An error on closing loses nothing: the connection only read.
    drop(conn.close().await);
    let count = |status: TaskStatus| {
        counts.iter().find(|(code, _)| *code == status.code()).map_or(0, |(_, n)| n.unsigned_abs())
    };
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let time = |at: Option<i64>| at.map(|at| Timestamp(at.unsigned_abs()));
    Ok(Some(JournalStats {
        database_bytes: size(&path),
        log_bytes: size(&path.with_extension("sqlite-wal")),
        format,
        free_bytes: free.unsigned_abs(),
        running: count(TaskStatus::Running),
        completed: count(TaskStatus::Completed),
        failed: count(TaskStatus::Failed),
        cancelled: count(TaskStatus::Cancelled),
        oldest: time(oldest),
        newest: time(newest),
        oldest_running: time(oldest_running),
        path,
    }))
}

/// Reads the whole journal in a directory and lists its problems; `None` if there is none, or if it has an older format,
/// which opening it migrates.
///
/// # Errors
/// If the database is newer, not a journal, or cannot be read at all.
pub async fn check(dir: &Path) -> Result<Option<IntegrityReport>, Error> {
    let Some((path, mut conn)) = open(dir).await? else { return Ok(None) };
    if schema::check(&path, &mut conn).await? != schema::FORMAT_VERSION {
        return Ok(None);
    }
    let mut report = IntegrityReport::default();
    report.check_pages(&path, &mut conn).await;
    if let Err(error) = report.check_tasks(&path, &mut conn).await {
        report.add_problem(error.to_string());
    }
    drop(conn.close().await);
    Ok(Some(report))
}

/// The tasks in a journal that have not ended and that no daemon runs, oldest first: those that were set aside, and those
/// whose rows are damaged. Empty if there is no journal, or if it has an older format.
///
/// # Errors
/// If the database is newer, not a journal, damaged as a whole or unreadable.
pub async fn set_aside(dir: &Path) -> Result<Vec<SetAsideTask>, Error> {
    let Some((path, mut conn)) = open(dir).await? else { return Ok(Vec::new()) };
    if schema::check(&path, &mut conn).await? != schema::FORMAT_VERSION {
        return Ok(Vec::new());
    }
    let open_tasks: Vec<(i64, Vec<u8>, i64)> =
        sqlx::query_as("SELECT number, id, stage FROM tasks WHERE ended IS NULL ORDER BY id")
            .fetch_all(&mut conn)
            .await
            .map_err(|e| Error::database(&path, e))?;
    let mut found = Vec::new();
    for (number, id, status) in open_tasks {
        // `check` reports an id that is none.
        let Ok(task) = task_id(&path, &id) else { continue };
        let reason = match events(&path, &mut conn, number, task).await {
            Ok(events) => match (problem(&events, status), events.last().map(|last| &last.kind)) {
                (Some(problem), _) => Some(damage::set_aside_reason(&problem)),
                (None, Some(EventKind::SetAside { reason })) => Some(reason.clone()),
                _ => None,
            },
            Err(Error::Corrupt { detail, .. }) => Some(damage::set_aside_reason(&detail)),
            Err(error) => return Err(error),
        };
        found.extend(reason.map(|reason| SetAsideTask { task, reason }));
    }
    drop(conn.close().await);
    Ok(found)
}

/// Opens the database read-only.
async fn open(dir: &Path) -> Result<Option<(PathBuf, SqliteConnection)>, Error> {
    let path = dir.join("journal.sqlite");
    if !path.exists() {
        return Ok(None);
    }
    let conn = connection::connect_options(&path).read_only(true).connect().await;
    let conn = conn.map_err(|e| Error::database(&path, e))?;
    Ok(Some((path, conn)))
}

impl IntegrityReport {
    fn add_problem(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// Runs the integrity check of SQLite.
    async fn check_pages(&mut self, path: &Path, conn: &mut SqliteConnection) {
        let lines: sqlx::Result<Vec<String>> = sqlx::query_scalar("PRAGMA integrity_check(100)").fetch_all(conn).await;
        match lines {
            Ok(lines) => lines.into_iter().filter(|line| line != "ok").for_each(|line| self.add_problem(line)),
            Err(error) => self.add_problem(Error::database(path, error).to_string()),
        }
    }

    async fn check_tasks(&mut self, path: &Path, conn: &mut SqliteConnection) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let page: Vec<(i64, Vec<u8>, i64)> =
                sqlx::query_as("SELECT number, id, stage FROM tasks WHERE number > ? ORDER BY number LIMIT ?")
                    .bind(after)
                    .bind(PAGE_TASKS)
                    .fetch_all(&mut *conn)
                    .await
                    .map_err(|e| Error::database(path, e))?;
            let Some((last, ..)) = page.last() else { return Ok(()) };
            after = *last;
            for (number, id, status) in page {
                let task = task_id(path, &id)?;
                self.tasks += 1;
                match events(path, conn, number, task).await {
                    Ok(events) => self.check_task(task, &events, status),
                    Err(error) => {
                        self.damaged.push(task);
                        self.add_problem(error.to_string());
                    }
                }
            }
        }
    }

    /// Checks that the events of a task are complete and match its row.
    fn check_task(&mut self, task: TaskId, events: &[Event], status: i64) {
        self.events += events.len() as u64;
        if let Some(problem) = problem(events, status) {
            self.damaged.push(task);
            self.add_problem(format!("task {task}: {problem}"));
        }
    }
}

/// What is wrong with the events of a task, whose row has this status.
fn problem(events: &[Event], status: i64) -> Option<String> {
    let gap = events.iter().zip(1..).find(|(event, expected)| event.seq.0 != *expected);
    match (gap, events.first(), events.last()) {
        (Some((_, expected)), ..) => Some(format!("it has no event {expected}")),
        (None, Some(first), Some(_)) if !matches!(first.kind, EventKind::Accepted(_)) => {
            Some("it does not start with `accepted`".to_owned())
        }
        (None, Some(_), Some(last)) if TaskStatus::after(&last.kind).code() != status => {
            Some("its row has another state than its events".to_owned())
        }
        (None, Some(_), Some(_)) => None,
        _ => Some("it has no events".to_owned()),
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
