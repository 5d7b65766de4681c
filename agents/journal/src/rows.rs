//! The rows of a batch, written with as few statements as possible: each statement is a round trip to the thread of the
//! connection.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteConnection;

use crate::TaskStatus;

/// The numbers of rows of the prepared statements, in ascending order. There are few of them, so that each is prepared once.
/// Unused rows of a statement are not bound, which SQLite treats as null, and are skipped.
const STATEMENT_ROWS: [usize; 4] = [4, 16, 64, 256];

const INSERT_TASK: &str = "INSERT INTO tasks
    (number, id, graph, role, stage, created, head, catalog, request, labels, owner, erased)";
const INSERT_EVENT: &str = "INSERT INTO events (task, last, body)";

static INSERT_TASKS: LazyLock<[String; STATEMENT_ROWS.len()]> =
    LazyLock::new(|| STATEMENT_ROWS.map(|size| statement(INSERT_TASK, 12, size)));
static INSERT_EVENTS: LazyLock<[String; STATEMENT_ROWS.len()]> =
    LazyLock::new(|| STATEMENT_ROWS.map(|size| statement(INSERT_EVENT, 3, size)));

fn statement(insert: &str, columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    let rows = vec![row; rows].join(", ");
    format!("{insert} SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL")
}

/// The row of a new task.
#[derive(Debug)]
pub(crate) struct TaskRow {
    pub(crate) number: i64,
    pub(crate) id: [u8; 16],
    pub(crate) graph: String,
    pub(crate) role: Option<String>,
    pub(crate) created: i64,
    pub(crate) head: Option<String>,
    pub(crate) catalog: i64,
    pub(crate) request: Option<String>,
    pub(crate) labels: String,
    pub(crate) owner: String,
    pub(crate) erased: Option<i64>,
}

/// The update of a task whose status has changed.
#[derive(Debug)]
pub(crate) struct StatusRow {
    pub(crate) number: i64,
    pub(crate) status: i64,
    /// When it ended, if it has.
    pub(crate) ended: Option<i64>,
}

/// The rows that a batch adds.
#[derive(Debug, Default)]
pub(crate) struct RowBatch {
    pub(crate) tasks: Vec<TaskRow>,
    /// The task number, the number of the last event, and the body.
    events: Vec<(i64, i64, Vec<u8>)>,
    pub(crate) statuses: Vec<StatusRow>,
    /// What was written of these since the last commit, and what is to be written.
    written: WrittenEvents,
}

/// Events, and the bytes of their bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WrittenEvents {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl RowBatch {
    /// Adds the body of so many events, the last of which has this number.
    pub(crate) fn add_events(&mut self, task: i64, last: i64, count: usize, body: Vec<u8>) {
        self.written.events += count as u64;
        self.written.bytes += body.len() as u64;
        self.events.push((task, last, body));
    }

    /// The events of a commit, after which they are counted anew.
    pub(crate) fn take_written(&mut self) -> WrittenEvents {
        std::mem::take(&mut self.written)
    }

    /// Writes all rows and removes them from the batch.
    pub(crate) async fn write(&mut self, conn: &mut SqliteConnection) -> sqlx::Result<()> {
        let mut tasks = std::mem::take(&mut self.tasks).into_iter();
        while let Some(index) = statement_for(tasks.len()) {
            let mut query = sqlx::query(&*INSERT_TASKS[index]);
            for row in tasks.by_ref().take(STATEMENT_ROWS[index]) {
                query = query
                    .bind(row.number)
                    .bind(row.id.to_vec())
                    .bind(row.graph)
                    .bind(row.role)
                    .bind(TaskStatus::Running.code())
                    .bind(row.created)
                    .bind(row.head)
                    .bind(row.catalog)
                    .bind(row.request)
                    .bind(row.labels)
                    .bind(row.owner)
                    .bind(row.erased);
            }
            query.execute(&mut *conn).await?;
        }
        let mut events = std::mem::take(&mut self.events).into_iter();
        while let Some(index) = statement_for(events.len()) {
            let mut query = sqlx::query(&*INSERT_EVENTS[index]);
            for (task, last, body) in events.by_ref().take(STATEMENT_ROWS[index]) {
                query = query.bind(task).bind(last).bind(body);
            }
            query.execute(&mut *conn).await?;
        }
        self.write_statuses(conn).await
    }

    async fn write_statuses(&mut self, conn: &mut SqliteConnection) -> sqlx::Result<()> {
        if self.statuses.is_empty() {
            return Ok(());
        }
        // A task may change twice in one batch: its last status counts.
        let statuses: BTreeMap<i64, StatusRow> = self.statuses.drain(..).map(|row| (row.number, row)).collect();
        let statuses: Vec<_> = statuses.into_values().map(|row| (row.number, row.status, row.ended)).collect();
        sqlx::query(
            "UPDATE tasks SET stage = e.value ->> 1, ended = e.value ->> 2
             FROM json_each(?) e WHERE tasks.number = e.value ->> 0",
        )
        .bind(serde_json::to_string(&statuses).expect("numbers are always valid JSON"))
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// The smallest statement for this number of rows, or the largest one, which takes the first of them.
fn statement_for(rows: usize) -> Option<usize> {
    let smallest = STATEMENT_ROWS.iter().position(|size| *size >= rows);
    (rows > 0).then(|| smallest.unwrap_or(STATEMENT_ROWS.len() - 1))
}
