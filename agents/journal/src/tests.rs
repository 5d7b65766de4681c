//! Tests of the journal on real files. Most run on one thread, where requests that are sent together share a transaction.

mod accept;
mod append;
mod close;
mod damage;
mod erase;
mod faults;
mod full;
mod inspect;
mod list;
mod migrate;
mod open;
mod owners;
mod random;
mod repair;
mod retention;
mod set_aside;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_task::event::{Output, TaskPriority, TaskSpec, Timestamp};
use artel_task::{
    CallerName, CatalogVersion, Clock, Event, EventKind, GraphName, RequestId, RoleName, Seq, StepId, TaskId,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use crate::{Acceptance, Error, Journal, Options, Retention, TaskFilter, TaskPage, TaskStatus, TaskSummary};

/// Deletes nothing.
const KEEP_ALL: Retention = Retention { tasks: u64::MAX, age: Duration::MAX, bytes: u64::MAX };

const ALL_TASKS: TaskPage = TaskPage { before: None, size: 100_000 };

fn temp_dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Opens a journal without retention.
async fn open(dir: &Path) -> Journal {
    Journal::open(dir, without_retention()).await.unwrap()
}

fn without_retention() -> Options {
    let retention = KEEP_ALL;
    Options { retention, ..Options::default() }
}

/// Ids are ordered like their numbers.
fn id(number: u64) -> TaskId {
    TaskId::new(1_700_000_000_000 + number, [7; 10])
}

fn spec(input: &str) -> TaskSpec {
    TaskSpec {
        graph: GraphName::parse("mentor").unwrap(),
        role: None,
        input: input.to_owned(),
        catalog: CatalogVersion::new("c1"),
        request: None,
        priority: TaskPriority::Interactive,
        labels: BTreeMap::new(),
        forked_from: None,
        decision: None,
        owner: CallerName::owner(),
        erased: None,
        trace: None,
        sampling: None,
        response: None,
        tools: None,
        reasoning: None,
        conversation: None,
    }
}

fn spec_with_id(request_id: &str, input: &str) -> TaskSpec {
    TaskSpec { request: RequestId::parse(request_id), ..spec(input) }
}

fn event(task: TaskId, seq: u64, kind: EventKind) -> Event {
    Event { task, seq: Seq(seq), at: Timestamp(seq.saturating_add(1000)), kind }
}

fn first(task: TaskId, spec: TaskSpec) -> Event {
    event(task, 1, EventKind::Accepted(spec))
}

fn started(task: TaskId, seq: u64) -> Event {
    let (step, role) = (StepId::parse("answer").unwrap(), RoleName::parse("gguf").ok());
    event(task, seq, EventKind::StepStarted { step, trigger: None, role, nested: None })
}

fn completed(task: TaskId, seq: u64) -> Event {
    event(task, seq, EventKind::Completed { output: Output::text("So."), instead_of: None })
}

fn ended_at(task: TaskId, seq: u64, at: u64) -> Event {
    Event { at: Timestamp(at), ..completed(task, seq) }
}

/// Accepts a task and completes it at this time.
async fn finish(journal: &Journal, task: TaskId, at: u64) {
    assert_eq!(journal.accept(first(task, spec("?"))).await.unwrap(), Acceptance::New);
    journal.append(vec![ended_at(task, 2, at)]).await.unwrap();
}

async fn replay(journal: &Journal, task: TaskId) -> Vec<Event> {
    journal.events(task, Seq(0), u32::MAX).await.unwrap()
}

/// The entries of a page, none of which is damaged.
async fn entries(journal: &Journal, filter: TaskFilter, page: TaskPage) -> Vec<TaskSummary> {
    journal.list(filter, page).await.unwrap().into_iter().map(Result::unwrap).collect()
}

async fn tasks(journal: &Journal) -> Vec<TaskId> {
    let list = entries(journal, TaskFilter::default(), ALL_TASKS).await;
    list.iter().map(|summary| summary.task).rev().collect()
}

fn unix_millis() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A plain SQLite connection.
async fn raw_connection(dir: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(dir.join("journal.sqlite")).create_if_missing(true);
    options.connect().await.unwrap()
}

async fn tamper(dir: &Path, sql: &'static str) {
    let mut conn = raw_connection(dir).await;
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}
