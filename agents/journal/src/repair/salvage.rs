//! Reads the intact parts of a damaged journal. A damaged page only spoils the queries that read it, so there are many small
//! queries, each by key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use artel_task::{Event, EventKind, TaskId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use crate::codec::{corrupt, decode, task_id};
use crate::{Damage, Erasure, Error, TaskStatus, read, schema};

/// The numbers that are probed one by one where the existing ones are unknown: about a minute of work.
const MAX_PROBES: u64 = 1 << 20;

/// The successive numbers that are probed past the last known one: more than a few damaged pages hold.
const MAX_TAIL_PROBES: u64 = 1 << 12;

/// A damaged journal, open for reading.
pub(super) struct Salvage {
    path: PathBuf,
    conn: SqliteConnection,
    /// The tasks in the index of ids: it may list a task whose row is lost.
    ids: BTreeMap<i64, TaskId>,
    /// The greatest known number, and whether it is certainly the last one.
    last: (i64, bool),
    /// The probes that are left.
    probes: u64,
    /// The probes past the last known number.
    tail_probes: u64,
}

/// The readable part of a task.
pub(super) enum SalvagedTask {
    /// There is no such task.
    Absent,
    /// It is unknown whether there was one.
    Unidentified,
    /// Only its id.
    Lost(TaskId),
    /// All of its events.
    Complete(Vec<Event>),
    /// Its first events; later ones are lost.
    Truncated(Vec<Event>),
}

/// The row of a task.
enum SalvagedRow {
    Missing,
    Unreadable,
    Read(TaskId, Option<TaskStatus>),
}

impl Salvage {
    pub(super) async fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("journal.sqlite");
        // SQLite only reads a file that is shorter than its header says if this pragma is set before anything else.
        let connect = SqliteConnectOptions::new().filename(&path).read_only(true).pragma("writable_schema", "ON");
        let mut conn = connect.connect().await.map_err(|e| Error::database(&path, e))?;
        if schema::check(&path, &mut conn).await? != schema::FORMAT_VERSION {
            return Err(corrupt(&path, Damage::Format));
        }
        let ids = ids(&path, &mut conn).await;
        let max_number: sqlx::Result<Option<i64>> =
            sqlx::query_scalar("SELECT max(number) FROM tasks").fetch_one(&mut conn).await;
        let indexed = ids.last_key_value().map(|(number, _)| *number);
        let is_last = max_number.is_ok();
        let last = max_number.ok().flatten().max(indexed).unwrap_or(0);
        Ok(Self { path, conn, ids, last: (last, is_last), probes: MAX_PROBES, tail_probes: 0 })
    }

    /// The number of the next task that may exist.
    pub(super) async fn next_number(&mut self, number: i64) -> Option<i64> {
        let next: sqlx::Result<Option<i64>> =
            sqlx::query_scalar("SELECT number FROM tasks WHERE number > ? ORDER BY number LIMIT 1")
                .bind(number)
                .fetch_optional(&mut self.conn)
                .await;
        let indexed = self.ids.range(number + 1..).next().map(|(number, _)| *number);
        let (last, is_last) = self.last;
        match next {
            Ok(next) => {
                self.tail_probes = 0;
                next.into_iter().chain(indexed).min()
            }
            Err(_) if self.probes > 0 && (number < last || !is_last && self.tail_probes < MAX_TAIL_PROBES) => {
                self.probes -= 1;
                self.tail_probes += u64::from(number >= last);
                Some(number + 1)
            }
            Err(_) => indexed,
        }
    }

    /// Whether there may be tasks past the last one that was found, and how many numbers past it were probed in vain.
    pub(super) fn tail(&self) -> (bool, u64) {
        (!self.last.1 || self.probes == 0, self.tail_probes)
    }

    pub(super) async fn close(self) {
        // An error loses nothing: the connection only read.
        drop(self.conn.close().await);
    }

    /// The erases that were not complete, as far as they can be read.
    pub(super) async fn erasures(&mut self) -> Vec<Erasure> {
        read::erasures(&mut self.conn).await.unwrap_or_default()
    }

    /// The versions and sources of catalogs, the oldest first, and the number of unreadable ones.
    pub(super) async fn catalogs(&mut self) -> (Vec<(String, String)>, u64) {
        let numbers: sqlx::Result<Vec<i64>> =
            sqlx::query_scalar("SELECT number FROM catalogs ORDER BY kept").fetch_all(&mut self.conn).await;
        // The index of versions contains the numbers too.
        let numbers = match numbers {
            Ok(numbers) => numbers,
            Err(_) => sqlx::query_scalar(
                "SELECT number FROM catalogs INDEXED BY sqlite_autoindex_catalogs_1 ORDER BY version",
            )
            .fetch_all(&mut self.conn)
            .await
            .unwrap_or_default(),
        };
        let (mut catalogs, mut lost) = (Vec::new(), 0);
        for number in numbers {
            let row: sqlx::Result<(String, Option<String>)> =
                sqlx::query_as("SELECT version, sources FROM catalogs WHERE number = ?")
                    .bind(number)
                    .fetch_one(&mut self.conn)
                    .await;
            match row {
                Ok((version, Some(sources))) => catalogs.push((version, sources)),
                Ok((_, None)) => {}
                Err(_) => lost += 1,
            }
        }
        (catalogs, lost)
    }

    /// The readable part of the task of this number.
    pub(super) async fn task(&mut self, number: i64) -> SalvagedTask {
        let indexed = self.ids.get(&number).copied();
        let (task, status) = match (self.row(number).await, indexed) {
            // A row takes precedence over an index that contradicts it.
            (SalvagedRow::Read(task, status), _) => (task, status),
            (SalvagedRow::Unreadable | SalvagedRow::Missing, Some(task)) => (task, None),
            (SalvagedRow::Unreadable, None) => return SalvagedTask::Unidentified,
            (SalvagedRow::Missing, None) => return SalvagedTask::Absent,
        };
        let (events, more) = self.events(number, task).await;
        if !events.first().is_some_and(|event| matches!(event.kind, EventKind::Accepted(_))) {
            return SalvagedTask::Lost(task);
        }
        let has_ended = events.last().is_some_and(|event| event.kind.is_last());
        // A row with another status than `running` means that the event that set it existed.
        let read = events.last().map(|event| TaskStatus::after(&event.kind));
        let more = more || status.is_some_and(|status| status != TaskStatus::Running && Some(status) != read);
        if has_ended || !more { SalvagedTask::Complete(events) } else { SalvagedTask::Truncated(events) }
    }

    async fn row(&mut self, number: i64) -> SalvagedRow {
        let row: sqlx::Result<Option<(Vec<u8>, i64)>> = sqlx::query_as("SELECT id, stage FROM tasks WHERE number = ?")
            .bind(number)
            .fetch_optional(&mut self.conn)
            .await;
        match row {
            Ok(None) => SalvagedRow::Missing,
            Ok(Some((id, status))) => match task_id(&self.path, &id) {
                Ok(task) => SalvagedRow::Read(task, TaskStatus::from_code(status)),
                Err(_) => SalvagedRow::Unreadable,
            },
            Err(_) => SalvagedRow::Unreadable,
        }
    }

    /// The events of a task up to the first damaged or missing one, and whether there are or were more.
    async fn events(&mut self, number: i64, task: TaskId) -> (Vec<Event>, bool) {
        let mut events: Vec<Event> = Vec::new();
        let mut after = 0;
        loop {
            let row: sqlx::Result<Option<(i64, Vec<u8>)>> =
                sqlx::query_as("SELECT last, body FROM events WHERE task = ? AND last > ? ORDER BY last LIMIT 1")
                    .bind(number)
                    .bind(after)
                    .fetch_optional(&mut self.conn)
                    .await;
            let (last, body) = match row {
                Ok(Some(row)) => row,
                Ok(None) => return (events, false),
                Err(_) => return (events, true),
            };
            let Ok(read) = decode(&self.path, task, last, &body) else { return (events, true) };
            let expected = events.len() as u64 + 1;
            if read.first().is_none_or(|event| event.seq.0 != expected) {
                return (events, true);
            }
            events.extend(read);
            after = last;
        }
    }
}

/// The tasks in the index of ids, read from both ends up to where it is damaged.
async fn ids(path: &Path, conn: &mut SqliteConnection) -> BTreeMap<i64, TaskId> {
    let mut ids = BTreeMap::new();
    for (sql, mut at) in [
        ("SELECT number, id FROM tasks INDEXED BY tasks_id WHERE id > ? ORDER BY id LIMIT 1", vec![0; 16]),
        ("SELECT number, id FROM tasks INDEXED BY tasks_id WHERE id < ? ORDER BY id DESC LIMIT 1", vec![0xff; 17]),
    ] {
        loop {
            let next: sqlx::Result<Option<(i64, Vec<u8>)>> =
                sqlx::query_as(sql).bind(at.as_slice()).fetch_optional(&mut *conn).await;
            let Ok(Some((number, id))) = next else { break };
            let is_known = task_id(path, &id).ok().and_then(|task| ids.insert(number, task)).is_some();
            if is_known {
                // The rest was read from the other end.
                break;
            }
            at = id;
        }
    }
    ids
}
