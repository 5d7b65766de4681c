//! What is wrong with stored data, and where.

use std::fmt::Display;
use std::sync::Arc;

use artel_task::TaskId;

/// Damage of a database.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// SQLite found it.
    #[error("{0}")]
    Database(Arc<sqlx::Error>),
    /// There is no format version, or one that cannot be salvaged.
    #[error("it is empty or of an older format")]
    Format,
    /// A task's id has a wrong length, in bytes.
    #[error("a task id has {0} bytes")]
    IdLength(usize),
    /// The status of the task of this number is not one.
    #[error("task number {0} has an invalid status")]
    Status(i64),
    /// A column of a task is invalid.
    #[error("task {task} has an invalid {column}")]
    Column {
        /// The task.
        task: TaskId,
        /// The column.
        column: &'static str,
    },
    /// An event is missing.
    #[error("task {task} has no event {seq}")]
    MissingEvent {
        /// The task.
        task: TaskId,
        /// The sequence number of the event.
        seq: u64,
    },
    /// The first event of a task is of another kind.
    #[error("task {0} does not start with `accepted`")]
    FirstEvent(TaskId),
    /// A row of events cannot be decoded.
    #[error("events of task {task} up to {last}: {damage}")]
    Events {
        /// The task.
        task: TaskId,
        /// The sequence number of the last event.
        last: i64,
        /// What is wrong with the row.
        damage: RowDamage,
    },
    /// An event of format 1 is not an event.
    #[error("event {seq} of task {task}: {source}")]
    OldEvent {
        /// The task.
        task: TaskId,
        /// The sequence number of the event.
        seq: i64,
        /// Why it cannot be read.
        source: Arc<serde_json::Error>,
    },
}

/// A task whose row in the table of tasks is damaged.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{damage}")]
pub struct DamagedTask {
    /// The task.
    pub task: TaskId,
    /// What is wrong.
    pub damage: Damage,
}

impl Damage {
    /// The task that it is limited to, if it is.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            Self::Column { task, .. }
            | Self::MissingEvent { task, .. }
            | Self::FirstEvent(task)
            | Self::Events { task, .. }
            | Self::OldEvent { task, .. } => Some(*task),
            Self::Database(_) | Self::Format | Self::IdLength(_) | Self::Status(_) => None,
        }
    }

    /// Why a task with this damage is not run, and what to do. Names no path.
    pub fn set_aside_reason(&self) -> String {
        set_aside_reason(self)
    }
}

pub(crate) fn set_aside_reason(damage: &impl Display) -> String {
    format!("its rows in the journal are damaged ({damage}): stop the daemon and run `artel journal repair`")
}

/// Damage of a row of events.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RowDamage {
    /// It ends too early.
    #[error("truncated")]
    Truncated,
    /// Its checksum is that of another row.
    #[error("wrong checksum")]
    Checksum,
    /// Its values cannot be decoded.
    #[error("invalid encoding")]
    Encoding,
    /// Its number is negative.
    #[error("a negative number")]
    Number,
    /// It has more events than its number allows.
    #[error("too many events")]
    Count,
    /// The time of an event is before 1970.
    #[error("a negative time")]
    Time,
    /// A value is not an event.
    #[error("{0}")]
    Event(Arc<serde_json::Error>),
}
