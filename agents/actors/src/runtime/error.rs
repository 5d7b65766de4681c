//! Why the runtime refuses.

use artel_model::ModelPurpose;
use artel_model::sampling::SamplingFault;
use artel_task::event::Failure;
use artel_task::{CatalogVersion, RoleName, Seq, TaskId};

use artel_admission::QuotaExcess;

/// Why the runtime cannot do what a caller asks.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such graph.
    #[error("there is no graph `{name}`")]
    NoGraph {
        /// The name that was asked for.
        name: String,
    },
    /// No such role.
    #[error("there is no role `{name}`")]
    NoRole {
        /// The name that was asked for.
        name: String,
    },
    /// No such model.
    #[error("there is no model `{name}`")]
    NoModel {
        /// The name that was asked for.
        name: String,
    },
    /// The model has another purpose.
    #[error("model `{name}` has `use: {}`, and this call needs one with `use: {}`", .found.as_str(), .needed.as_str())]
    WrongPurpose {
        /// The name that was asked for.
        name: String,
        /// Its purpose.
        found: ModelPurpose,
        /// What the call needs.
        needed: ModelPurpose,
    },
    /// A text exceeds what the model takes at once.
    #[error("has {tokens} tokens, the model takes {limit}")]
    TextTooLong {
        /// Which of the texts; `None` if the query alone leaves no room for a document.
        index: Option<usize>,
        /// Its tokens.
        tokens: u32,
        /// Tokens that fit.
        limit: u32,
    },
    /// As many requests wait for the model as may.
    #[error("{limit} requests wait for model `{name}`, as many as may")]
    EngineBusy {
        /// The model.
        name: String,
        /// The limit of its queue.
        limit: usize,
    },
    /// The model cannot be used as it is: its file, its setting or the text is at fault.
    #[error("{0}")]
    UnusableModel(String),
    /// No such node, or it is no router.
    #[error("graph `{graph}` has no router node `{node}`")]
    NoRouter {
        /// The graph.
        graph: String,
        /// The node that was asked for.
        node: String,
    },
    /// Neither graph nor role is named, and there is no default.
    #[error("neither a graph nor a role is named, and the catalog has no graph `mentor`")]
    NoTarget,
    /// Only a single role can be given tools.
    #[error("tools are for a single role: name one as `role`, not a graph")]
    ToolsOfGraph,
    /// The role takes none.
    #[error("role `{role}` takes no tools of its callers: its `caller_tools` is false")]
    ToolsOfRole {
        /// The role.
        role: RoleName,
    },
    /// There are no candidates to choose from.
    #[error("no role has examples, so there are no candidates to choose from")]
    NoCandidates,
    /// No such task, or it was pruned.
    #[error("there is no task {0}, or it is no longer kept")]
    NoTask(TaskId),
    /// No such step in this task.
    #[error("task {task} has no step `{step}`")]
    NoStep {
        /// The task.
        task: TaskId,
        /// The step that was asked for.
        step: String,
    },
    /// No role has answered.
    #[error("{}", no_answer(.task, .step.as_deref()))]
    NoAnswer {
        /// The task.
        task: TaskId,
        /// The step, if one was named.
        step: Option<String>,
    },
    /// The step does not wait for an answer, or no longer.
    #[error("{}", not_waiting(.task, .step.as_deref()))]
    NotWaiting {
        /// The task.
        task: TaskId,
        /// The step, if one was named.
        step: Option<String>,
    },
    /// Several steps wait, and none is named.
    #[error("several steps of task {task} wait for an answer; name one of {}", .steps.join(", "))]
    AmbiguousStep {
        /// The task.
        task: TaskId,
        /// The steps that wait.
        steps: Vec<String>,
    },
    /// The answer does not satisfy the step's schema, or is too large.
    #[error("{0}")]
    InvalidAnswer(String),
    /// The role does not allow what the client asks of its answer, or there is no single role.
    #[error("{}", faults(.0))]
    AnswerOptions(Vec<SamplingFault>),
    /// The text of the task is erased.
    #[error("the text of task {0} is erased: only its figures are left")]
    Erased(TaskId),
    /// The task belongs to another caller, which this one may see and not change.
    #[error("the task belongs to another caller, and this one may not change it")]
    NotPermitted,
    /// Text may be left in a file or in an engine.
    #[error(
        "the text may not be erased everywhere yet: {0}; erase it again, or restart the daemon, which completes it"
    )]
    EraseIncomplete(String),
    /// The catalog cannot continue from the events of the old task.
    #[error("task {task} cannot be forked: {reason}")]
    ForkIncompatible {
        /// The old task.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// The number is beyond the task's last event.
    #[error("task {task} has {last} events, not {after}", last = .last.0, after = .after.0)]
    SeqOutOfRange {
        /// The task.
        task: TaskId,
        /// Its last event.
        last: Seq,
        /// The number that was asked for.
        after: Seq,
    },
    /// The journal failed while the task ran.
    #[error("task {0} is suspended, because the daemon's journal failed; it continues after the next start")]
    Suspended(TaskId),
    /// The task is set aside: it does nothing until it is taken up again, which may be impossible as it is.
    #[error("task {task} is set aside: {reason}")]
    SetAside {
        /// The task.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// Too many tasks are open.
    #[error("{0} tasks are open, the daemon's limit")]
    TooManyTasks(usize),
    /// The caller asks for more than its quota.
    #[error(transparent)]
    Quota(#[from] QuotaExcess),
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// The router could not decide, or the model could not be loaded.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The model would not fit even if no other were loaded: the memory it needs on each device, and a remedy.
    #[error("{0}")]
    InsufficientMemory(String),
    /// The catalog is not at the version that the caller expects.
    #[error("the catalog is at version {}, not {expected}", .found.as_str())]
    CatalogChanged {
        /// The version in use.
        found: CatalogVersion,
        /// The version that the caller expects.
        expected: String,
    },
    /// The journal refused or failed.
    #[error(transparent)]
    Journal(#[from] artel_journal::Error),
    /// The supervisor has stopped.
    #[error("the runtime has stopped; restart the daemon")]
    Stopped,
}

fn no_answer(task: &TaskId, step: Option<&str>) -> String {
    match step {
        Some(step) => format!("step `{step}` of task {task} has no answer of a role, or not yet"),
        None => format!("task {task} has no answer of a role, or not yet"),
    }
}

fn not_waiting(task: &TaskId, step: Option<&str>) -> String {
    match step {
        Some(step) => format!("step `{step}` of task {task} does not wait for an answer, or no longer"),
        None => format!("no step of task {task} waits for an answer"),
    }
}

fn faults(faults: &[SamplingFault]) -> String {
    faults.iter().map(|fault| format!("{} {}", fault.field, fault.reason)).collect::<Vec<_>>().join("; ")
}
