//! What a list of tasks shows.

use std::collections::BTreeMap;

use artel_task::event::Timestamp;
use artel_task::{CatalogVersion, GraphName, EventKind, RequestId, RoleName, Seq, TaskId};

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It has no last event yet.
    Running,
    /// It gave a result.
    Completed,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl Stage {
    /// The stage of a task whose newest event is this one.
    pub fn after(kind: &EventKind) -> Self {
        match kind {
            EventKind::Completed { .. } => Self::Completed,
            EventKind::Failed { .. } => Self::Failed,
            EventKind::Cancelled { .. } => Self::Cancelled,
            _ => Self::Running,
        }
    }

    /// As the database has it; the numbers are part of the format.
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Running => 0,
            Self::Completed => 1,
            Self::Failed => 2,
            Self::Cancelled => 3,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        [Self::Running, Self::Completed, Self::Failed, Self::Cancelled].into_iter().find(|stage| stage.code() == code)
    }
}

/// Which tasks to list; the default is all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only tasks in one of these stages; empty means any.
    pub states: Vec<Stage>,
    /// Only tasks of this graph.
    pub graph: Option<GraphName>,
    /// Only tasks whose client asked for this role alone.
    pub role: Option<RoleName>,
    /// Only tasks that carry all of these labels; others may be there too.
    pub labels: BTreeMap<String, String>,
    /// Only tasks that were accepted at this time or later.
    pub created_from: Option<Timestamp>,
    /// Only tasks that were accepted before this time.
    pub created_before: Option<Timestamp>,
}

impl Filter {
    /// One bit for each wanted stage; any means any, so that a stage that is none is found and reported.
    pub(crate) fn stage_bits(&self) -> i64 {
        if self.states.is_empty() { -1 } else { self.states.iter().fold(0, |bits, stage| bits | 1 << stage.code()) }
    }
}

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Only tasks older than this one: the last of the page before.
    pub before: Option<TaskId>,
    /// At most this many.
    pub size: u32,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Which task.
    pub task: TaskId,
    /// Its graph.
    pub graph: GraphName,
    /// Its role, if the client asked for one role alone.
    pub role: Option<RoleName>,
    /// The catalog that it keeps to its end.
    pub catalog: CatalogVersion,
    /// The client's own key, if it gave one.
    pub request: Option<RequestId>,
    /// The client's own notes.
    pub labels: BTreeMap<String, String>,
    /// How far it is.
    pub stage: Stage,
    /// When it was accepted.
    pub created: Timestamp,
    /// When its last event was written down.
    pub ended: Option<Timestamp>,
    /// The first [`HEAD_CHARS`](Self::HEAD_CHARS) characters of its input.
    pub head: String,
    /// The number of its newest event.
    pub last: Seq,
}

impl Summary {
    /// Enough to recognise a request by, in two lines of a terminal.
    pub const HEAD_CHARS: usize = 200;
}
