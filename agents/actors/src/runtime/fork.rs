//! Forking: a new task that copies the events of an old one up to one of its steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use artel_journal::Acceptance;
use artel_roles::Catalog;
use artel_task::event::{ForkOrigin, Nested, TakenEdge, TaskSpec};
use artel_task::graph::NodeKind;
use artel_task::state::ReplayError;
use artel_task::{
    CallerName, Event, EventKind, Graph, GraphName, NodeName, RequestId, Seq, State, StepId, TaskId, TraceContext,
};

use super::resume::{RestoreError, RestoredCatalogs, graph_of};
use super::{Error, Runtime, TaskStart, answer_options};
use artel_admission::CallerQuota;

/// A request to fork a task.
#[derive(Debug, Clone)]
pub struct Fork {
    /// The old task.
    pub task: TaskId,
    /// The first step to run again; without it, all are.
    pub from_step: Option<String>,
    /// Runs under the current catalog rather than the old task's.
    pub use_current_catalog: bool,
    /// The client's idempotency key: the same again gives the same task.
    pub request_id: Option<RequestId>,
    /// The client's own labels.
    pub labels: BTreeMap<String, String>,
    /// The caller that the new task belongs to, which may read the old one; request ids are its own.
    pub owner: CallerName,
    /// The span that the new task's own is a child of, if its trace is recorded.
    pub trace: Option<TraceContext>,
    /// How much the tasks of that caller may take.
    pub quota: CallerQuota,
}

/// Why a graph cannot continue after the events of an old task.
#[derive(Debug, thiserror::Error)]
enum ForkMismatch {
    /// There is no catalog or no graph to continue with.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The graph starts elsewhere.
    #[error("it started at node `{first}`, and graph `{graph}` starts at `{start}`")]
    OtherStart { first: NodeName, graph: GraphName, start: NodeName },
    /// A step led to a node that was removed.
    #[error("step `{step}` led to node `{node}`, which the graph no longer has")]
    NoTarget { step: StepId, node: NodeName },
    /// The node of a step was removed.
    #[error("the graph no longer has node `{0}`")]
    NoNode(String),
    /// The node of a step has other nested work.
    #[error("node `{0}` runs something else now")]
    OtherWork(String),
    /// The events do not follow from each other in this graph.
    #[error("its events do not fit the graph: {0}")]
    Replay(ReplayError),
}

impl Runtime {
    /// Starts a new task with the events of an old one before a step; steps that ran in parallel to it are started again. The
    /// old task is not changed. When this returns, the new one is on disk and starts.
    ///
    /// # Errors
    /// [`Error::NoTask`], [`Error::NoStep`], [`Error::Erased`], [`Error::ForkIncompatible`] and those of [`Runtime::submit`].
    pub async fn fork(&self, fork: Fork) -> Result<TaskId, Error> {
        let this = self.clone();
        // As in `submit`: nothing may be lost between the journal and the supervisor.
        let accepted = self.submissions.spawn(async move { this.accept_fork(fork).await });
        accepted.await.map_err(|_| Error::Stopped)?
    }

    async fn accept_fork(&self, fork: Fork) -> Result<TaskId, Error> {
        let task = fork.task;
        let no_step = |step: &str| Error::NoStep { task, step: step.to_owned() };
        let step = match &fork.from_step {
            Some(text) => Some(StepId::parse(text).ok_or_else(|| no_step(text))?),
            None => None,
        };
        let mut forked = ForkOrigin { task, step, copied: 0 };
        if let Some(request) = &fork.request_id
            && let Some((known, accepted)) = self.shared.journal.find_request(&fork.owner, request).await?
        {
            let is_same = accepted.forked_from.as_ref().is_some_and(|old| old.is_same_place(&forked))
                && accepted.labels == fork.labels;
            let reused = || artel_journal::Error::RequestReused { request: request.clone(), task: known };
            return if is_same { Ok(known) } else { Err(reused().into()) };
        }
        self.check_open()?;
        let open = self.shared.callers.open(&fork.owner, fork.quota, self.shared.clock.now())?;
        let mut events = self.history(task).await?;
        if matches!(&events[0].kind, EventKind::Accepted(TaskSpec { erased: Some(_), .. })) {
            return Err(Error::Erased(task));
        }
        let is_start = |event: &Event| match (&event.kind, &forked.step) {
            (EventKind::StepStarted { step, .. }, Some(from)) => step == from,
            _ => false,
        };
        let copied = match &forked.step {
            Some(from) => events.iter().position(is_start).ok_or_else(|| no_step(&from.to_string()))?,
            None => 1,
        };
        events.truncate(copied);
        forked.copied = u32::try_from(copied).unwrap_or(u32::MAX) - 1;
        let incompatible = |reason: ForkMismatch| Error::ForkIncompatible { task, reason: reason.to_string() };
        let base = self.fork_base(&events, fork.use_current_catalog).await?;
        let (catalog, graph) = base.map_err(|reason| incompatible(reason.into()))?;
        if let EventKind::Accepted(accepted) = &events[0].kind {
            // The role of today's catalog may allow less.
            let role = accepted.role.as_ref().and_then(|name| catalog.role(name.as_str()));
            answer_options::check(answer_options::AnswerOptions::accepted(accepted), role.map(Arc::as_ref)).await?;
        }
        let place = self.place(open)?;
        let mut events = self.copy_events(events, &catalog, fork, &forked);
        check_compatible(&events, &graph).map_err(incompatible)?;
        let more = events.split_off(1);
        let event = events.pop().ok_or(Error::NoTask(task))?;
        let counted = event.clone();
        // The copied events are read from the journal.
        let (task, first) = (event.task, more.is_empty().then(|| Arc::new(event.clone())));
        match self.shared.journal.accept_with(event, more).await? {
            Acceptance::Existing(task) => Ok(task),
            Acceptance::New => {
                // The events that follow are copies of what another task did.
                self.count_accepted(&counted);
                let start = TaskStart { task, catalog, graph, first, takes_up: false, place: Some(place) };
                if self.start_task(start).is_err() {
                    tracing::warn!(%task, "task was forked while the runtime stopped; it starts with the next daemon");
                }
                Ok(task)
            }
        }
    }

    /// The catalog and the graph that the new task runs on.
    async fn fork_base(
        &self,
        events: &[Event],
        use_current_catalog: bool,
    ) -> Result<Result<(Arc<Catalog>, Arc<Graph>), RestoreError>, Error> {
        let current = self.catalog();
        match events.first().map(|event| &event.kind) {
            Some(EventKind::Accepted(accepted)) if use_current_catalog => {
                Ok(graph_of(accepted, &current).map(|graph| (current.clone(), graph)))
            }
            Some(EventKind::Accepted(accepted)) => {
                let mut catalogs = RestoredCatalogs::from([(current.version().clone(), Ok(current))]);
                self.restore_accepted(accepted, &mut catalogs).await
            }
            _ => Ok(Err(RestoreError::NotAccepted)),
        }
    }

    /// The old events as those of a new task.
    fn copy_events(&self, events: Vec<Event>, catalog: &Catalog, fork: Fork, forked: &ForkOrigin) -> Vec<Event> {
        let at = self.shared.clock.now();
        let task = TaskId::new(at.0, rand::random());
        let Fork { request_id, labels, owner, trace, .. } = fork;
        let accepted = |accepted: TaskSpec| {
            let (catalog, forked) = (catalog.version().clone(), Some(forked.clone()));
            EventKind::Accepted(TaskSpec {
                catalog,
                request: request_id.clone(),
                labels: labels.clone(),
                forked_from: forked,
                owner: owner.clone(),
                erased: None,
                trace: trace.clone(),
                ..accepted
            })
        };
        let copy = |(seq, event): (u64, Event)| {
            let kind = match event.kind {
                EventKind::Accepted(old) => accepted(old),
                other => other,
            };
            Event { task, seq: Seq(seq), at, kind }
        };
        (1..).zip(events).map(copy).collect()
    }
}

/// An error unless a graph can continue after these events.
fn check_compatible(events: &[Event], graph: &Graph) -> Result<(), ForkMismatch> {
    let mut first = None;
    for event in events {
        let (step, took): (_, &[TakenEdge]) = match &event.kind {
            EventKind::StepStarted { step, nested: inner, .. } => {
                first.get_or_insert(&step.visit);
                check_start(step, inner.as_ref(), graph)?;
                continue;
            }
            EventKind::StepFinished { step, taken: took, .. } | EventKind::StepFailed { step, taken: took, .. } => {
                (step, took)
            }
            _ => continue,
        };
        let inner = graph.subgraph(&step.visit.parents);
        let removed =
            took.iter().filter_map(|taken| taken.to.as_ref()).find(|to| inner.is_none_or(|g| g.node(to).is_none()));
        if let Some(node) = removed {
            return Err(ForkMismatch::NoTarget { step: step.clone(), node: node.clone() });
        }
    }
    if let Some(first) = first.filter(|first| first.node != *graph.start()) {
        let (first, graph, start) = (first.node.clone(), graph.name().clone(), graph.start().clone());
        return Err(ForkMismatch::OtherStart { first, graph, start });
    }
    State::replay(events, graph.start()).map(drop).map_err(ForkMismatch::Replay)
}

/// An error unless a step of the old task could have started in this graph.
fn check_start(step: &StepId, inner: Option<&Nested>, graph: &Graph) -> Result<(), ForkMismatch> {
    let path = || step.visit.node_path();
    let node = graph.node_at(&step.visit).ok_or_else(|| ForkMismatch::NoNode(path()))?;
    let fits = match (inner, &node.kind) {
        (Some(Nested::Items(_)), _) => node.for_each.is_some(),
        (Some(Nested::Graph { graph: old, start, .. }), NodeKind::Graph { graph: new, .. }) => {
            old == new.name() && start == new.start()
        }
        (Some(Nested::Graph { .. }), _) => false,
        (None, _) => true,
    };
    if fits { Ok(()) } else { Err(ForkMismatch::OtherWork(path())) }
}
