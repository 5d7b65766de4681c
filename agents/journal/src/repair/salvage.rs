//! Reading what can be read. A page that is damaged spoils the questions that lead through it, and no others: so many small
//! questions are asked, each by key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use artel_task::{Event, EventKind, TaskId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use crate::codec::{corrupt, decode, task_id};
use crate::{Error, Stage, schema};

/// Numbers that are tried one by one where it is not known which there are: a minute's worth.
const PROBES: u64 = 1 << 20;

/// Numbers that are tried one after the other where it is not known whether any follow: more than some pages hold.
const BEYOND: u64 = 1 << 12;

/// A damaged journal.
pub(super) struct Salvage {
    path: PathBuf,
    conn: SqliteConnection,
    /// What the index of ids knows: a task may be named there whose row is lost.
    ids: BTreeMap<i64, TaskId>,
    /// The greatest number that is known, and whether there is no greater one.
    last: (i64, bool),
    probes: u64,
    /// Of the probes, those since the last number that was known.
    beyond: u64,
}

/// What is left of a task.
pub(super) enum Found {
    /// There is no such task.
    Nothing,
    /// It is not known whether there was one.
    Nameless,
    /// Its name alone.
    Lost(TaskId),
    /// All of its events.
    Whole(Vec<Event>),
    /// Its first events, and others are lost.
    Beginning(Vec<Event>),
}

/// The row of a task, if it has one that can be read.
enum Row {
    None,
    Unreadable,
    Read(TaskId, Option<Stage>),
}

impl Salvage {
    pub(super) async fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("journal.sqlite");
        // SQLite reads a file that is shorter than its first page says only if it is told so before anything else.
        let connect = SqliteConnectOptions::new().filename(&path).read_only(true).pragma("writable_schema", "ON");
        let mut conn = connect.connect().await.map_err(|e| Error::database(&path, e))?;
        if schema::check(&path, &mut conn).await? != schema::VERSION {
            return Err(corrupt(&path, "it is empty, or of an older format".to_owned()));
        }
        let ids = ids(&path, &mut conn).await;
        let newest: sqlx::Result<Option<i64>> =
            sqlx::query_scalar("SELECT max(number) FROM tasks").fetch_one(&mut conn).await;
        let named = ids.last_key_value().map(|(number, _)| *number);
        let sure = newest.is_ok();
        let last = newest.ok().flatten().max(named).unwrap_or(0);
        Ok(Self { path, conn, ids, last: (last, sure), probes: PROBES, beyond: 0 })
    }

    /// The number of the next task that may be there.
    pub(super) async fn after(&mut self, number: i64) -> Option<i64> {
        let next: sqlx::Result<Option<i64>> =
            sqlx::query_scalar("SELECT number FROM tasks WHERE number > ? ORDER BY number LIMIT 1")
                .bind(number)
                .fetch_optional(&mut self.conn)
                .await;
        let named = self.ids.range(number + 1..).next().map(|(number, _)| *number);
        let (last, sure) = self.last;
        match next {
            Ok(next) => {
                self.beyond = 0;
                next.into_iter().chain(named).min()
            }
            Err(_) if self.probes > 0 && (number < last || !sure && self.beyond < BEYOND) => {
                self.probes -= 1;
                self.beyond += u64::from(number >= last);
                Some(number + 1)
            }
            Err(_) => named,
        }
    }

    /// Whether there may be tasks behind the last one that was found; and how many numbers behind it were tried in vain.
    pub(super) fn beyond(&self) -> (bool, u64) {
        (!self.last.1 || self.probes == 0, self.beyond)
    }

    pub(super) async fn close(self) {
        // A connection that only read loses nothing.
        drop(self.conn.close().await);
    }

    /// The versions and sources of catalogs, the oldest first; and how many could not be read.
    pub(super) async fn catalogs(&mut self) -> (Vec<(String, String)>, u64) {
        let numbers: sqlx::Result<Vec<i64>> =
            sqlx::query_scalar("SELECT number FROM catalogs ORDER BY kept").fetch_all(&mut self.conn).await;
        // The index of versions knows the numbers, too.
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

    /// What is left of the task of this number.
    pub(super) async fn task(&mut self, number: i64) -> Found {
        let named = self.ids.get(&number).copied();
        let (task, stage) = match (self.row(number).await, named) {
            // An index that another one contradicts is as good as lost.
            (Row::Read(task, stage), _) => (task, stage),
            (Row::Unreadable | Row::None, Some(task)) => (task, None),
            (Row::Unreadable, None) => return Found::Nameless,
            (Row::None, None) => return Found::Nothing,
        };
        let (events, more) = self.events(number, task).await;
        if !events.first().is_some_and(|event| matches!(event.kind, EventKind::Accepted(_))) {
            return Found::Lost(task);
        }
        let over = events.last().is_some_and(|event| event.kind.is_last());
        // A row that knows of an end which is not there knows of more.
        let more = more || stage.is_some_and(|stage| stage != Stage::Running);
        if over || !more { Found::Whole(events) } else { Found::Beginning(events) }
    }

    async fn row(&mut self, number: i64) -> Row {
        let row: sqlx::Result<Option<(Vec<u8>, i64)>> = sqlx::query_as("SELECT id, stage FROM tasks WHERE number = ?")
            .bind(number)
            .fetch_optional(&mut self.conn)
            .await;
        match row {
            Ok(None) => Row::None,
            Ok(Some((id, stage))) => match task_id(&self.path, &id) {
                Ok(task) => Row::Read(task, Stage::from_code(stage)),
                Err(_) => Row::Unreadable,
            },
            Err(_) => Row::Unreadable,
        }
    }

    /// The events of a task up to the first that is damaged or missing; and whether there are, or were, more.
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
            let due = events.len() as u64 + 1;
            if read.first().is_none_or(|event| event.seq.0 != due) {
                return (events, true);
            }
            events.extend(read);
            after = last;
        }
    }
}

/// The tasks that the index of ids names, from both ends up to where it is damaged.
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
            let known = task_id(path, &id).ok().and_then(|task| ids.insert(number, task)).is_some();
            if known {
                // What comes now was read from the other end.
                break;
            }
            at = id;
        }
    }
    ids
}
