//! Lists of tasks: filters, pages and entries.

use std::collections::BTreeMap;

use artel_task::event::Timestamp;
use artel_task::{CallerName, CatalogVersion, EventKind, GraphName, RequestId, RoleName, Seq, TaskId};

/// The status of a task, as its events define it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskStatus {
    /// It has no last event and is not set aside.
    Running,
    /// It is not run until a client takes it up again; it has no last event.
    SetAside,
    /// It has a result.
    Completed,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl TaskStatus {
    /// The status of a task after this event.
    pub fn after(kind: &EventKind) -> Self {
        match kind {
            EventKind::Completed { .. } => Self::Completed,
            EventKind::Failed { .. } => Self::Failed,
            EventKind::Cancelled { .. } => Self::Cancelled,
            EventKind::SetAside { .. } => Self::SetAside,
            _ => Self::Running,
        }
    }

    /// Whether the task has a last event.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The number in the database; part of the format.
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Running => 0,
            Self::Completed => 1,
            Self::Failed => 2,
            Self::Cancelled => 3,
            Self::SetAside => 4,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        let all = [Self::Running, Self::Completed, Self::Failed, Self::Cancelled, Self::SetAside];
        all.into_iter().find(|status| status.code() == code)
    }
}

/// The tasks to list; the default is all.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Only tasks with one of these statuses; empty means any.
    pub statuses: Vec<TaskStatus>,
    /// Only tasks of this graph.
    pub graph: Option<GraphName>,
    /// Only tasks that were submitted to this role instead of a graph.
    pub role: Option<RoleName>,
    /// Only tasks of this caller.
    pub owner: Option<CallerName>,
    /// Only tasks with all of these labels; they may have others too.
    pub labels: BTreeMap<String, String>,
    /// Only tasks that were accepted at this time or later.
    pub created_from: Option<Timestamp>,
    /// Only tasks that were accepted before this time.
    pub created_before: Option<Timestamp>,
}

impl TaskFilter {
    /// One bit for each status. "Any" sets all bits, so that an invalid status in the database is found and reported; so does
    /// "set aside", since no daemon runs a task with an invalid one.
    pub(crate) fn status_bits(&self) -> i64 {
        let bits = |status: &TaskStatus| match status {
            TaskStatus::SetAside => -1 << status.code(),
            _ => 1 << status.code(),
        };
        if self.statuses.is_empty() { -1 } else { self.statuses.iter().map(bits).fold(0, |all, bits| all | bits) }
    }
}

/// A page of a list.
#[derive(Debug, Clone, Copy)]
pub struct TaskPage {
    /// Only tasks older than this one: the last task of the previous page.
    pub before: Option<TaskId>,
    /// The maximum number of tasks.
    pub size: u32,
}

/// An entry of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSummary {
    /// The id of the task.
    pub task: TaskId,
    /// Its graph.
    pub graph: GraphName,
    /// Its role, if it was submitted to a role instead of a graph.
    pub role: Option<RoleName>,
    /// The caller that it belongs to.
    pub owner: CallerName,
    /// The catalog that it runs under, to its end.
    pub catalog: CatalogVersion,
    /// The request id, if the client gave one.
    pub request: Option<RequestId>,
    /// The labels that the client gave.
    pub labels: BTreeMap<String, String>,
    /// Its status.
    pub status: TaskStatus,
    /// When it was accepted.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The first [`HEAD_CHARS`](Self::HEAD_CHARS) characters of its input.
    pub input_head: String,
    /// The sequence number of its last event.
    pub last_seq: Seq,
}

impl TaskSummary {
    /// Enough to recognise a request in two lines of a terminal.
    pub const HEAD_CHARS: usize = 200;

    /// The start of an input.
    pub(crate) fn head(input: &str) -> String {
        input.chars().take(Self::HEAD_CHARS).collect()
    }
}
