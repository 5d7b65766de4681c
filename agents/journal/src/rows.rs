//! The rows of a batch, written with as few statements as there are kinds of rows: each statement is a way to another thread
//! and back.

use std::sync::LazyLock;

use sqlx::sqlite::SqliteConnection;

use crate::Stage;

/// Rows of one statement at most, the fewest first. Few sizes, so that each statement is prepared once; what a batch leaves
/// empty is not bound, which SQLite takes for null, and skipped.
const SIZES: [usize; 4] = [4, 16, 64, 256];

const TASK: &str = "INSERT INTO tasks (number, id, graph, role, stage, created, head, catalog, request, labels)";
const EVENT: &str = "INSERT INTO events (task, last, body)";

static TASKS: LazyLock<[String; SIZES.len()]> = LazyLock::new(|| SIZES.map(|size| statement(TASK, 10, size)));
static EVENTS: LazyLock<[String; SIZES.len()]> = LazyLock::new(|| SIZES.map(|size| statement(EVENT, 3, size)));

fn statement(insert: &str, columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    let rows = vec![row; rows].join(", ");
    format!("{insert} SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL")
}

/// A task that begins.
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
}

/// A task that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) number: i64,
    pub(crate) stage: i64,
    pub(crate) at: i64,
}

/// What a batch leaves to write.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) tasks: Vec<TaskRow>,
    /// Task, number of the last event, body.
    pub(crate) events: Vec<(i64, i64, Vec<u8>)>,
    pub(crate) ended: Vec<Ended>,
}

impl Rows {
    /// Writes all; nothing is left afterwards.
    pub(crate) async fn write(&mut self, conn: &mut SqliteConnection) -> sqlx::Result<()> {
        let mut tasks = std::mem::take(&mut self.tasks).into_iter();
        while let Some(at) = fitting(tasks.len()) {
            let mut query = sqlx::query(&*TASKS[at]);
            for row in tasks.by_ref().take(SIZES[at]) {
                query = query
                    .bind(row.number)
                    .bind(row.id.to_vec())
                    .bind(row.graph)
                    .bind(row.role)
                    .bind(Stage::Running.code())
                    .bind(row.created)
                    .bind(row.head)
                    .bind(row.catalog)
                    .bind(row.request)
                    .bind(row.labels);
            }
            query.execute(&mut *conn).await?;
        }
        let mut events = std::mem::take(&mut self.events).into_iter();
        while let Some(at) = fitting(events.len()) {
            let mut query = sqlx::query(&*EVENTS[at]);
            for (task, last, body) in events.by_ref().take(SIZES[at]) {
                query = query.bind(task).bind(last).bind(body);
            }
            query.execute(&mut *conn).await?;
        }
        self.end(conn).await
    }

    async fn end(&mut self, conn: &mut SqliteConnection) -> sqlx::Result<()> {
        if self.ended.is_empty() {
            return Ok(());
        }
        let ended: Vec<[i64; 3]> = self.ended.drain(..).map(|ended| [ended.number, ended.stage, ended.at]).collect();
        sqlx::query(
            "UPDATE tasks SET stage = e.value ->> 1, ended = e.value ->> 2
             FROM json_each(?) e WHERE tasks.number = e.value ->> 0",
        )
        .bind(serde_json::to_string(&ended).expect("numbers are always JSON"))
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// The smallest statement that so many rows fit into, or the largest, which takes the first of them.
fn fitting(rows: usize) -> Option<usize> {
    let fits = SIZES.iter().position(|size| *size >= rows);
    (rows > 0).then(|| fits.unwrap_or(SIZES.len() - 1))
}
