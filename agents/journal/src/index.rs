//! What the writer knows of tasks without asking the database, since nobody else writes to it; and what a request means.
//!
//! [`Index::learn`] asks for what a batch of requests needs, in one question each. After that every request is decided in
//! memory, in order: it is refused, or it leaves rows to write.

use std::collections::HashMap;
use std::path::Path;

use artel_task::event::TaskSpec;
use artel_task::{CatalogVersion, Event, EventKind, RequestId, Seq, TaskId};
use sqlx::sqlite::SqliteConnection;

use crate::codec::{corrupt, encode, labels, task_id};
use crate::rows::{Ended, Rows, TaskRow};
use crate::writer::Request;
use crate::{Acceptance, Error, Stage, Summary, read};

/// Where a task stands.
#[derive(Debug, Clone, Copy)]
struct Head {
    number: i64,
    last: i64,
    stage: Stage,
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Tasks that run, and those that a batch asked for until it is done.
    heads: HashMap<TaskId, Head>,
    /// Tasks that need not be known once the batch is done.
    passing: Vec<TaskId>,
    /// Who has the request ids of the batch.
    requests: HashMap<RequestId, Result<(TaskId, TaskSpec), Error>>,
    /// The numbers of catalogs.
    catalogs: HashMap<CatalogVersion, i64>,
    /// The greatest number of a task.
    newest: i64,
}

impl Index {
    /// What must be known before the first batch.
    pub(crate) async fn open(conn: &mut SqliteConnection) -> sqlx::Result<Self> {
        let newest: Option<i64> = sqlx::query_scalar("SELECT max(number) FROM tasks").fetch_one(conn).await?;
        Ok(Self { newest: newest.unwrap_or(0), ..Self::default() })
    }

    /// Asks the database for whatever these requests need and is not known.
    pub(crate) async fn learn(
        &mut self,
        conn: &mut SqliteConnection,
        path: &Path,
        batch: &[Request],
    ) -> sqlx::Result<Result<(), Error>> {
        let mut unknown = Vec::new();
        let mut keys = Vec::new();
        for request in batch {
            match request {
                Request::Accept(event, ..) => {
                    unknown.push(event.task);
                    let EventKind::Accepted(accepted) = &event.kind else { continue };
                    keys.extend(accepted.request.as_ref().map(RequestId::as_str));
                    self.learn_catalog(conn, &accepted.catalog).await?;
                }
                Request::Append(events, _) => {
                    unknown.extend(events.first().map(|event| event.task).filter(|t| !self.heads.contains_key(t)));
                }
                _ => {}
            }
        }
        if !keys.is_empty() {
            self.learn_requests(conn, path, &keys).await?;
        }
        if unknown.is_empty() { Ok(Ok(())) } else { self.learn_tasks(conn, path, &unknown).await }
    }

    async fn learn_catalog(&mut self, conn: &mut SqliteConnection, version: &CatalogVersion) -> sqlx::Result<()> {
        if self.catalogs.contains_key(version) {
            return Ok(());
        }
        sqlx::query("INSERT INTO catalogs (version, kept) VALUES (?, 0) ON CONFLICT (version) DO NOTHING")
            .bind(version.as_str())
            .execute(&mut *conn)
            .await?;
        let number = sqlx::query_scalar("SELECT number FROM catalogs WHERE version = ?")
            .bind(version.as_str())
            .fetch_one(&mut *conn)
            .await?;
        self.catalogs.insert(version.clone(), number);
        Ok(())
    }

    async fn learn_requests(&mut self, conn: &mut SqliteConnection, path: &Path, keys: &[&str]) -> sqlx::Result<()> {
        for (key, row) in read::request_rows(conn, keys).await? {
            if let Some(request) = RequestId::parse(&key) {
                self.requests.insert(request, read::request_of(path, row));
            }
        }
        Ok(())
    }

    async fn learn_tasks(
        &mut self,
        conn: &mut SqliteConnection,
        path: &Path,
        tasks: &[TaskId],
    ) -> sqlx::Result<Result<(), Error>> {
        let hex = |task: &TaskId| task.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let rows: Vec<(Vec<u8>, i64, i64, Option<i64>)> = sqlx::query_as(
            "SELECT id, number, stage, (SELECT max(last) FROM events WHERE task = t.number)
             FROM tasks t WHERE id IN (SELECT unhex(value) FROM json_each(?))",
        )
        .bind(serde_json::to_string(&tasks.iter().map(hex).collect::<Vec<_>>()).expect("texts are always JSON"))
        .fetch_all(conn)
        .await?;
        for (id, number, stage, last) in rows {
            let bad = || corrupt(path, format!("task number {number} has a bad stage"));
            let (task, stage) = match (task_id(path, &id), Stage::from_code(stage).ok_or_else(bad)) {
                (Ok(task), Ok(stage)) => (task, stage),
                (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
            };
            if stage != Stage::Running {
                self.passing.push(task);
            }
            self.heads.insert(task, Head { number, last: last.unwrap_or(0), stage });
        }
        Ok(Ok(()))
    }

    /// The batch is written: forgets what need not be known.
    pub(crate) fn forget(&mut self) {
        self.requests.clear();
        for task in self.passing.drain(..) {
            self.heads.remove(&task);
        }
    }

    /// The numbers of catalogs are no longer to be relied on.
    pub(crate) fn forget_catalogs(&mut self) {
        self.catalogs.clear();
    }

    /// Begins a task, which may begin with more events than its first one, but not with its end.
    pub(crate) fn accept(&mut self, event: &Event, more: &[Event], rows: &mut Rows) -> Result<Acceptance, Error> {
        let EventKind::Accepted(accepted) = &event.kind else {
            return Err(misplaced(event, "a task begins with `accepted`"));
        };
        if let Some(known) = accepted.request.as_ref().and_then(|request| self.requests.get(request)) {
            return same(known.as_ref(), accepted).map(Acceptance::Known);
        }
        expect_next(event, self.heads.get(&event.task).map_or(0, |head| head.last))?;
        let catalog = *self.catalogs.get(&accepted.catalog).expect("the catalogs of the batch were looked up");
        if let Some(odd) = more.iter().find(|next| next.task != event.task || next.kind.is_last()) {
            return Err(misplaced(odd, "a task begins with events of its own, and not with its end"));
        }
        check_run(more, 1)?;
        let (body, rest) = (encode(std::slice::from_ref(event))?, encode(more)?);
        self.newest += 1;
        let number = self.newest;
        rows.tasks.push(task_row(event, accepted, number, catalog));
        rows.events.push((number, 1, body));
        let last = 1 + i64::try_from(more.len()).expect("a request has few events");
        if last > 1 {
            rows.events.push((number, last, rest));
        }
        self.heads.insert(event.task, Head { number, last, stage: Stage::Running });
        if let Some(request) = &accepted.request {
            self.requests.insert(request.clone(), Ok((event.task, accepted.clone())));
        }
        Ok(Acceptance::New)
    }

    /// Continues a task; says whether it has ended.
    pub(crate) fn append(&mut self, events: &[Event], rows: &mut Rows) -> Result<bool, Error> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(false) };
        let task = first.task;
        let head = self.heads.get_mut(&task).ok_or(Error::NoTask { task })?;
        if head.stage != Stage::Running {
            return Err(Error::Ended { task });
        }
        check_run(events, head.last)?;
        let body = encode(events)?;
        head.last += i64::try_from(events.len()).expect("a request has few events");
        rows.events.push((head.number, head.last, body));
        if !last.kind.is_last() {
            return Ok(false);
        }
        head.stage = Stage::after(&last.kind);
        let at = i64::try_from(last.at.0).unwrap_or(i64::MAX);
        rows.ended.push(Ended { number: head.number, stage: head.stage.code(), at });
        self.passing.push(task);
        Ok(true)
    }
}

fn task_row(event: &Event, accepted: &TaskSpec, number: i64, catalog: i64) -> TaskRow {
    let long = accepted.input.chars().nth(Summary::HEAD_CHARS).is_some();
    TaskRow {
        number,
        id: *event.task.as_bytes(),
        graph: accepted.graph.as_str().to_owned(),
        role: accepted.role.as_ref().map(|role| role.as_str().to_owned()),
        created: i64::try_from(event.at.0).unwrap_or(i64::MAX),
        head: long.then(|| head(&accepted.input)),
        catalog,
        request: accepted.request.as_ref().map(|request| request.as_str().to_owned()),
        labels: labels(&accepted.labels),
    }
}

/// What a list shows of an input.
pub(crate) fn head(input: &str) -> String {
    input.chars().take(Summary::HEAD_CHARS).collect()
}

/// The task with this request id, which must have asked for the same.
fn same(known: Result<&(TaskId, TaskSpec), &Error>, accepted: &TaskSpec) -> Result<TaskId, Error> {
    let (task, earlier) = known.map_err(Clone::clone)?;
    let reused = |request: &RequestId| Error::RequestReused { request: request.clone(), task: *task };
    match &accepted.request {
        Some(request) if !asks_the_same(earlier, accepted) => Err(reused(request)),
        _ => Ok(*task),
    }
}

/// Whatever the client chose counts; the catalog is whichever held at the time.
fn asks_the_same(one: &TaskSpec, other: &TaskSpec) -> bool {
    let TaskSpec { graph, role, input, priority: class, labels, forked_from: forked, catalog: _, request: _, decision: _ } = one;
    (graph, role, input, class, labels, forked)
        == (&other.graph, &other.role, &other.input, &other.priority, &other.labels, &other.forked_from)
}

/// Events of one task, without a gap after `last`, of which at most the last one ends it.
fn check_run(events: &[Event], last: i64) -> Result<(), Error> {
    let mut ended = false;
    for (event, last) in events.iter().zip(last..) {
        if event.task != events[0].task {
            return Err(misplaced(event, "events of several tasks in one append"));
        }
        if matches!(event.kind, EventKind::Accepted(_)) {
            return Err(misplaced(event, "a task is accepted once, as its first event"));
        }
        if ended {
            return Err(Error::Ended { task: event.task });
        }
        expect_next(event, last)?;
        ended = event.kind.is_last();
    }
    Ok(())
}

fn misplaced(event: &Event, why: &str) -> Error {
    Error::Unstorable { task: event.task, seq: event.seq, why: why.to_owned() }
}

fn expect_next(event: &Event, last: i64) -> Result<(), Error> {
    let expected = Seq(last.unsigned_abs()).next();
    if event.seq == expected { Ok(()) } else { Err(Error::Gap { task: event.task, expected, found: event.seq }) }
}
