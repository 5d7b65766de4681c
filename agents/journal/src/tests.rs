//! The journal on real files. Most tests run on one thread, where requests that are sent together share a transaction.

mod accept;
mod append;
mod close;
mod damage;
mod full;
mod list;
mod migrate;
mod open;
mod random;
mod repair;
mod retain;
mod survey;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_task::event::{TaskSpec, TaskPriority, Output, Timestamp};
use artel_task::{CatalogVersion, Event, GraphName, EventKind, RequestId, RoleName, Seq, StepId, TaskId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use crate::{Acceptance, Error, Filter, Journal, Options, Page, Retention, Stage, Summary};

/// Keeps everything.
const KEEP: Retention = Retention { tasks: u64::MAX, age: Duration::MAX, bytes: u64::MAX };

const ALL: Page = Page { before: None, size: 100_000 };

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A journal that deletes nothing by itself.
async fn open(dir: &Path) -> Journal {
    Journal::open(dir, endless()).await.unwrap()
}

fn endless() -> Options {
    let retention = KEEP;
    Options { retention, ..Options::default() }
}

/// Ids in the order of their numbers.
fn id(number: u64) -> TaskId {
    TaskId::new(1_700_000_000_000 + number, [7; 10])
}

fn request(input: &str) -> TaskSpec {
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
    }
}

fn keyed(key: &str, input: &str) -> TaskSpec {
    TaskSpec { request: RequestId::parse(key), ..request(input) }
}

fn event(task: TaskId, seq: u64, kind: EventKind) -> Event {
    Event { task, seq: Seq(seq), at: Timestamp(seq.saturating_add(1000)), kind }
}

fn first(task: TaskId, accepted: TaskSpec) -> Event {
    event(task, 1, EventKind::Accepted(accepted))
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

/// Accepts a task and ends it at this time.
async fn finish(journal: &Journal, task: TaskId, at: u64) {
    assert_eq!(journal.accept(first(task, request("?"))).await.unwrap(), Acceptance::New);
    journal.append(vec![ended_at(task, 2, at)]).await.unwrap();
}

async fn replay(journal: &Journal, task: TaskId) -> Vec<Event> {
    journal.events(task, Seq(0), u32::MAX).await.unwrap()
}

async fn tasks(journal: &Journal) -> Vec<TaskId> {
    let list = journal.list(Filter::default(), ALL).await.unwrap();
    list.iter().map(|summary| summary.task).rev().collect()
}

fn unix_millis() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A connection that knows nothing of journals.
async fn raw(dir: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(dir.join("journal.sqlite")).create_if_missing(true);
    options.connect().await.unwrap()
}

async fn tamper(dir: &Path, sql: &'static str) {
    let mut conn = raw(dir).await;
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}
