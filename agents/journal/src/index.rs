//! The writer's index of tasks in memory, which decides each request. It is complete, since nothing else writes to the
//! database.
//!
//! [`TaskIndex::load`] reads what a batch of requests needs, with one query of each kind. Then each request is decided in
//! memory, in order: it is refused, or it adds rows to write.

use std::collections::HashMap;
use std::path::Path;

use artel_task::event::TaskSpec;
use artel_task::{CallerName, CatalogVersion, Event, EventKind, RequestId, Seq, TaskId};
use sqlx::sqlite::SqliteConnection;

use crate::codec::{corrupt, encode, labels, task_id};
use crate::request::WriteRequest;
use crate::rows::{RowBatch, StatusRow, TaskRow};
use crate::{Acceptance, Damage, Error, TaskStatus, TaskSummary, UnstorableReason, read};

/// The last known position of a task.
#[derive(Debug, Clone, Copy)]
struct TaskHead {
    number: i64,
    last: i64,
    status: TaskStatus,
}

/// The index of tasks, request ids and catalogs.
#[derive(Debug, Default)]
pub(crate) struct TaskIndex {
    /// The running tasks, and the tasks that the current batch refers to.
    heads: HashMap<TaskId, TaskHead>,
    /// The tasks of the batch whose rows are damaged, with the refusal of what is appended to them.
    damaged: HashMap<TaskId, Error>,
    /// Tasks that leave the index at the end of the batch.
    leaving: Vec<TaskId>,
    /// The tasks that have the request ids of the batch, by their owners.
    requests: HashMap<(CallerName, RequestId), Result<(TaskId, TaskSpec), Error>>,
    /// The numbers of catalogs.
    catalogs: HashMap<CatalogVersion, i64>,
    /// The greatest task number.
    max_number: i64,
}

impl TaskIndex {
    /// The index before the first batch.
    pub(crate) async fn open(conn: &mut SqliteConnection) -> sqlx::Result<Self> {
        let max_number: Option<i64> = sqlx::query_scalar("SELECT max(number) FROM tasks").fetch_one(conn).await?;
        Ok(Self { max_number: max_number.unwrap_or(0), ..Self::default() })
    }

    /// Reads from the database what these requests need and the index lacks.
    pub(crate) async fn load(
        &mut self,
        conn: &mut SqliteConnection,
        path: &Path,
        batch: &[WriteRequest],
    ) -> sqlx::Result<()> {
        let mut unknown = Vec::new();
        let mut keys = Vec::new();
        for request in batch {
            match request {
                WriteRequest::Accept(event, ..) => {
                    unknown.push(event.task);
                    let EventKind::Accepted(spec) = &event.kind else { continue };
                    keys.extend(spec.request.as_ref().map(|request| (spec.owner.as_str(), request.as_str())));
                    self.load_catalog(conn, &spec.catalog).await?;
                }
                WriteRequest::Append(events, _) => {
                    unknown.extend(events.first().map(|event| event.task).filter(|t| !self.heads.contains_key(t)));
                }
                _ => {}
            }
        }
        if !keys.is_empty() {
            self.load_requests(conn, path, &keys).await?;
        }
        if unknown.is_empty() { Ok(()) } else { self.load_tasks(conn, path, &unknown).await }
    }

    async fn load_catalog(&mut self, conn: &mut SqliteConnection, version: &CatalogVersion) -> sqlx::Result<()> {
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

    async fn load_requests(
        &mut self,
        conn: &mut SqliteConnection,
        path: &Path,
        keys: &[(&str, &str)],
    ) -> sqlx::Result<()> {
        for ((owner, request), row) in read::first_event_rows(conn, keys).await? {
            if let (Ok(owner), Some(request)) = (CallerName::parse(&owner), RequestId::parse(&request)) {
                self.requests.insert((owner, request), read::task_spec(path, row));
            }
        }
        Ok(())
    }

    async fn load_tasks(&mut self, conn: &mut SqliteConnection, path: &Path, tasks: &[TaskId]) -> sqlx::Result<()> {
        let hex = |task: &TaskId| task.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let rows: Vec<(Vec<u8>, i64, i64, Option<i64>)> = sqlx::query_as(
            "SELECT id, number, stage, (SELECT max(last) FROM events WHERE task = t.number)
             FROM tasks t WHERE id IN (SELECT unhex(value) FROM json_each(?))",
        )
        .bind(serde_json::to_string(&tasks.iter().map(hex).collect::<Vec<_>>()).expect("strings are always valid JSON"))
        .fetch_all(conn)
        .await?;
        for (id, number, status, last) in rows {
            let Ok(task) = task_id(path, &id) else { continue };
            let Some(status) = TaskStatus::from_code(status) else {
                self.damaged.insert(task, corrupt(path, Damage::Status(number)));
                continue;
            };
            if status != TaskStatus::Running {
                self.leaving.push(task);
            }
            self.heads.insert(task, TaskHead { number, last: last.unwrap_or(0), status });
        }
        Ok(())
    }

    /// Removes what only the batch needed, after its commit.
    pub(crate) fn end_batch(&mut self) {
        self.requests.clear();
        self.damaged.clear();
        for task in self.leaving.drain(..) {
            self.heads.remove(&task);
        }
    }

    /// Drops the request id of a task that is erased: the same again is a new task.
    pub(crate) fn forget_request_of(&mut self, task: TaskId) {
        self.requests.retain(|_, known| !matches!(known, Ok((found, _)) if *found == task));
    }

    /// Drops the position of a task that was deleted.
    pub(crate) fn remove(&mut self, task: TaskId) {
        self.heads.remove(&task);
    }

    /// Drops the numbers of catalogs, which retention may have deleted.
    pub(crate) fn clear_catalogs(&mut self) {
        self.catalogs.clear();
    }

    /// Starts a task with its first event and perhaps more, but not with its last one.
    pub(crate) fn accept(&mut self, event: &Event, more: &[Event], rows: &mut RowBatch) -> Result<Acceptance, Error> {
        let EventKind::Accepted(spec) = &event.kind else {
            return Err(misplaced(event, UnstorableReason::NotAccepted));
        };
        let key = spec.request.clone().map(|request| (spec.owner.clone(), request));
        if let Some(known) = key.as_ref().and_then(|key| self.requests.get(key)) {
            return existing_task(known.as_ref(), spec).map(Acceptance::Existing);
        }
        check_seq(event, self.heads.get(&event.task).map_or(0, |head| head.last))?;
        let catalog = *self.catalogs.get(&spec.catalog).expect("the catalogs of the batch are loaded");
        if let Some(invalid) = more.iter().find(|next| next.task != event.task || next.kind.is_last()) {
            return Err(misplaced(invalid, UnstorableReason::Start));
        }
        check_sequence(more, 1)?;
        let (body, rest) = (encode(std::slice::from_ref(event))?, encode(more)?);
        self.max_number += 1;
        let number = self.max_number;
        rows.tasks.push(task_row(event, spec, number, catalog));
        rows.add_events(number, 1, 1, body);
        let last = 1 + i64::try_from(more.len()).expect("a request has few events");
        if last > 1 {
            rows.add_events(number, last, more.len(), rest);
        }
        self.heads.insert(event.task, TaskHead { number, last, status: TaskStatus::Running });
        if let Some(key) = key {
            self.requests.insert(key, Ok((event.task, spec.clone())));
        }
        Ok(Acceptance::New)
    }

    /// Appends events to a task; true if it has ended now.
    pub(crate) fn append(&mut self, events: &[Event], rows: &mut RowBatch) -> Result<bool, Error> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(false) };
        let task = first.task;
        let unknown = || self.damaged.get(&task).cloned().unwrap_or(Error::NoTask { task });
        let head = self.heads.get_mut(&task).ok_or_else(unknown)?;
        if head.status.has_ended() {
            return Err(Error::Ended { task });
        }
        check_sequence(events, head.last)?;
        let body = encode(events)?;
        head.last += i64::try_from(events.len()).expect("a request has few events");
        rows.add_events(head.number, head.last, events.len(), body);
        let status = TaskStatus::after(&last.kind);
        if status == head.status {
            return Ok(false);
        }
        head.status = status;
        let ended = status.has_ended().then(|| i64::try_from(last.at.0).unwrap_or(i64::MAX));
        rows.statuses.push(StatusRow { number: head.number, status: status.code(), ended });
        if status != TaskStatus::Running {
            self.leaving.push(task);
        }
        Ok(status.has_ended())
    }
}

fn task_row(event: &Event, spec: &TaskSpec, number: i64, catalog: i64) -> TaskRow {
    let is_long = spec.input.chars().nth(TaskSummary::HEAD_CHARS).is_some();
    TaskRow {
        number,
        id: *event.task.as_bytes(),
        graph: spec.graph.as_str().to_owned(),
        role: spec.role.as_ref().map(|role| role.as_str().to_owned()),
        created: i64::try_from(event.at.0).unwrap_or(i64::MAX),
        head: is_long.then(|| TaskSummary::head(&spec.input)),
        catalog,
        request: spec.request.as_ref().map(|request| request.as_str().to_owned()),
        labels: labels(&spec.labels),
        owner: spec.owner.as_str().to_owned(),
        erased: spec.erased.map(|at| i64::try_from(at.0).unwrap_or(i64::MAX)),
    }
}

/// The task with this request id, which must have the same request.
fn existing_task(known: Result<&(TaskId, TaskSpec), &Error>, spec: &TaskSpec) -> Result<TaskId, Error> {
    let (task, earlier) = known.map_err(Clone::clone)?;
    let reused = |request: &RequestId| Error::RequestReused { request: request.clone(), task: *task };
    match &spec.request {
        Some(request) if !is_same_request(earlier, spec) => Err(reused(request)),
        _ => Ok(*task),
    }
}

/// Compares what the client chose. The catalog is not compared: it is the one that was current at the time. The owner is the same,
/// since request ids are its own, and an erased task has none.
fn is_same_request(one: &TaskSpec, other: &TaskSpec) -> bool {
    let TaskSpec { graph, role, input, priority, labels, forked_from, sampling, response, tools, .. } = one;
    (graph, role, input, priority, labels, forked_from)
        == (&other.graph, &other.role, &other.input, &other.priority, &other.labels, &other.forked_from)
        && (sampling, response, tools) == (&other.sampling, &other.response, &other.tools)
        && (one.reasoning, &one.conversation) == (other.reasoning, &other.conversation)
}

/// Checks that events belong to one task, follow `last` without a gap, and that at most the last one ends the task.
fn check_sequence(events: &[Event], last: i64) -> Result<(), Error> {
    let mut ended = false;
    for (event, last) in events.iter().zip(last..) {
        if event.task != events[0].task {
            return Err(misplaced(event, UnstorableReason::SeveralTasks));
        }
        if matches!(event.kind, EventKind::Accepted(_)) {
            return Err(misplaced(event, UnstorableReason::AcceptedAgain));
        }
        if ended {
            return Err(Error::Ended { task: event.task });
        }
        check_seq(event, last)?;
        ended = event.kind.is_last();
    }
    Ok(())
}

fn misplaced(event: &Event, reason: UnstorableReason) -> Error {
    Error::Unstorable { task: event.task, seq: event.seq, reason }
}

fn check_seq(event: &Event, last: i64) -> Result<(), Error> {
    let expected = Seq(last.unsigned_abs()).next();
    if event.seq == expected {
        Ok(())
    } else {
        Err(Error::UnexpectedSeq { task: event.task, expected, found: event.seq })
    }
}
