//! The messages to the supervisor.

use std::fmt;
use std::sync::Arc;

use artel_hosting::{engine_host, model_scheduler};
use artel_roles::{Catalog, Model};
use artel_task::event::{Decision, Failure};
use artel_task::{Event, Graph, RoleName, StepId, TaskId};
use ractor::{ActorRef, RpcReplyPort};

use crate::answer::{Answer, AnswerRejection};
use crate::expert::StepJob;
use artel_admission::TaskPlace;
use artel_routing::RoutingRequest;

/// Messages of the supervisor.
pub(crate) enum Message {
    /// Starts the runner of a task that is on disk.
    StartTask(Box<TaskStart>),
    /// Sends a step to the expert of its role, with the engine host of this model.
    RunStep(Box<StepJob>, Arc<Model>),
    /// Replies with the router's decision.
    Route(Box<RoutingRequest>, RpcReplyPort<Result<Decision, Failure>>),
    /// Has the router embed the candidates of these requests before the first question.
    WarmUpRouter(Vec<RoutingRequest>),
    /// Cancels a task and replies whether that is on disk; false at once for a task that does not run.
    CancelTask { task: TaskId, reason: String, reply: RpcReplyPort<bool> },
    /// Cancels one step of a task and replies whether that is on disk; `None` at once for a task or a step that does not run.
    CancelStep { task: TaskId, step: StepId, reason: String, reply: RpcReplyPort<Option<bool>> },
    /// Passes a person's answer to a task; rejects it at once if the task does not run.
    AnswerStep { task: TaskId, step: Option<StepId>, answer: Answer, reply: RpcReplyPort<Result<(), AnswerRejection>> },
    /// Sets whether a task is idle, that is, waits for answers of people only: a daemon that stops need not wait for it.
    SetIdle(TaskId, bool),
    /// New tasks run under this catalog from now on, whose limits hold for all steps: releases actors that are no longer
    /// needed.
    ReplaceCatalog(Arc<Catalog>),
    /// Replies with the engine host of a model.
    EngineHost(Arc<Model>, RpcReplyPort<ActorRef<engine_host::Message>>),
    /// Replies with the model scheduler.
    ModelScheduler(RpcReplyPort<ActorRef<model_scheduler::Message>>),
    /// Replies with all engine hosts.
    EngineHosts(RpcReplyPort<Vec<ActorRef<engine_host::Message>>>),
    /// Makes one of the children panic, or the supervisor itself.
    #[cfg(test)]
    Panic(ChildId),
}

/// A task to start.
pub(crate) struct TaskStart {
    pub(crate) task: TaskId,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) graph: Arc<Graph>,
    /// The first event of a new task; a task that is resumed is read from the journal.
    pub(crate) first: Option<Arc<Event>>,
    /// Resumes it even if it is set aside.
    pub(crate) takes_up: bool,
    /// Its share of the limits of open tasks.
    pub(crate) place: Option<TaskPlace>,
}

/// A supervised actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChildId {
    TaskRunner(TaskId),
    Expert(RoleName),
    Router,
    EngineHost(Arc<Model>),
    ModelScheduler,
    #[cfg(test)]
    Supervisor,
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TaskRunner(task) => write!(f, "task runner {task}"),
            Self::Expert(role) => write!(f, "expert {role}"),
            Self::Router => f.write_str("router"),
            Self::EngineHost(model) => write!(f, "engine host {}", model.name),
            Self::ModelScheduler => f.write_str("model scheduler"),
            #[cfg(test)]
            Self::Supervisor => f.write_str("supervisor"),
        }
    }
}
