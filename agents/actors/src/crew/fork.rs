//! Forking: a new task that takes over what an old one did before one of its steps.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use artel_journal::Acceptance;
use artel_roles::Catalog;
use artel_task::event::{TaskSpec, ForkOrigin, Nested, TakenEdge};
use artel_task::graph::NodeKind;
use artel_task::{Event, Graph, EventKind, RequestId, Seq, State, StepId, TaskId};

use super::resume::graph_of;
use super::{Begin, Crew, Error};

/// What to fork, and from where.
#[derive(Debug, Clone)]
pub struct Fork {
    /// The old task.
    pub task: TaskId,
    /// The first step to run anew; without it, all are.
    pub from: Option<String>,
    /// Under the catalog that serves now rather than the old task's.
    pub current: bool,
    /// The client's own key: the same again gives the same task.
    pub request: Option<RequestId>,
    /// The client's own notes.
    pub labels: BTreeMap<String, String>,
}

impl Crew {
    /// Starts a new task that takes over what an old one did before a step; what ran beside that step is begun anew. The old
    /// task is left alone. When this returns, the new one is on disk and begins.
    ///
    /// # Errors
    /// [`Error::NoTask`], [`Error::NoStep`], [`Error::Unsuitable`] and those of [`Crew::submit`].
    pub async fn fork(&self, fork: Fork) -> Result<TaskId, Error> {
        let this = self.clone();
        // As in `submit`: nothing may be lost between the journal and the supervisor.
        let forked = self.accepting.spawn(async move { this.forked(fork).await });
        forked.await.map_err(|_| Error::Ended)?
    }

    async fn forked(&self, fork: Fork) -> Result<TaskId, Error> {
        let task = fork.task;
        let no_step = |step: &str| Error::NoStep { task, step: step.to_owned() };
        let step = match &fork.from {
            Some(text) => Some(StepId::parse(text).ok_or_else(|| no_step(text))?),
            None => None,
        };
        let forked = ForkOrigin { task, step };
        if let Some(request) = &fork.request
            && let Some((known, accepted)) = self.links.journal.request(request).await?
        {
            let same = accepted.forked_from.as_ref() == Some(&forked) && accepted.labels == fork.labels;
            let reused = || artel_journal::Error::RequestReused { request: request.clone(), task: known };
            return if same { Ok(known) } else { Err(reused().into()) };
        }
        self.is_open()?;
        let mut events = self.history(task).await?;
        let begins = |event: &Event| match (&event.kind, &forked.step) {
            (EventKind::StepStarted { step, .. }, Some(from)) => step == from,
            _ => false,
        };
        let kept = match &forked.step {
            Some(from) => events.iter().position(begins).ok_or_else(|| no_step(&from.to_string()))?,
            None => 1,
        };
        events.truncate(kept);
        let (catalog, graph) =
            self.ground(&events, fork.current).await?.map_err(|why| Error::Unsuitable { task, why })?;
        let permit = self.slots.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Error::TooManyTasks(self.options.tasks))?;
        let mut events = self.renew(events, &catalog, fork, &forked);
        suits(&events, &graph).map_err(|why| Error::Unsuitable { task, why })?;
        let more = events.split_off(1);
        let event = events.pop().ok_or(Error::NoTask(task))?;
        // What was taken over is read from the journal.
        let (task, first) = (event.task, more.is_empty().then(|| Arc::new(event.clone())));
        match self.links.journal.accept_with(event, more).await? {
            Acceptance::Known(task) => Ok(task),
            Acceptance::New => {
                if self.begin(Begin { task, catalog, graph, first, permit: Some(permit) }).is_err() {
                    tracing::warn!(%task, "forked while the crew ended; the task begins at the next start");
                }
                Ok(task)
            }
        }
    }

    /// The catalog and the graph that the new task runs on.
    async fn ground(
        &self,
        events: &[Event],
        current: bool,
    ) -> Result<Result<(Arc<Catalog>, Arc<Graph>), String>, Error> {
        let serves = self.catalog();
        match events.first().map(|event| &event.kind) {
            Some(EventKind::Accepted(accepted)) if current => {
                Ok(graph_of(accepted, &serves).map(|graph| (serves.clone(), graph)))
            }
            Some(EventKind::Accepted(accepted)) => {
                let mut kept = HashMap::from([(serves.version().clone(), Ok(serves))]);
                self.ground_of(accepted, &mut kept).await
            }
            _ => Ok(Err("its journal does not begin with `accepted`".to_owned())),
        }
    }

    /// The old events as those of a new task.
    fn renew(&self, events: Vec<Event>, catalog: &Catalog, fork: Fork, forked: &ForkOrigin) -> Vec<Event> {
        let at = self.links.clock.now();
        let task = TaskId::new(at.0, rand::random());
        let Fork { request, labels, .. } = fork;
        let accepted = |accepted: TaskSpec| {
            let (catalog, forked) = (catalog.version().clone(), Some(forked.clone()));
            EventKind::Accepted(TaskSpec { catalog, request: request.clone(), labels: labels.clone(), forked_from: forked, ..accepted })
        };
        let renewed = |(seq, event): (u64, Event)| {
            let kind = match event.kind {
                EventKind::Accepted(old) => accepted(old),
                other => other,
            };
            Event { task, seq: Seq(seq), at, kind }
        };
        (1..).zip(events).map(renewed).collect()
    }
}

/// Whether a graph can run on after these events.
fn suits(events: &[Event], graph: &Graph) -> Result<(), String> {
    let mut first = None;
    for event in events {
        let (step, took): (_, &[TakenEdge]) = match &event.kind {
            EventKind::StepStarted { step, nested: inner, .. } => {
                first.get_or_insert(&step.visit);
                begins(step, inner.as_ref(), graph)?;
                continue;
            }
            EventKind::StepFinished { step, taken: took, .. } | EventKind::StepFailed { step, taken: took, .. } => (step, took),
            _ => continue,
        };
        let inner = graph.subgraph(&step.visit.parents);
        let gone =
            took.iter().filter_map(|taken| taken.to.as_ref()).find(|to| inner.is_none_or(|g| g.node(to).is_none()));
        if let Some(to) = gone {
            return Err(format!("step `{step}` went to node `{to}`, which is no longer there"));
        }
    }
    if let Some(first) = first.filter(|first| first.node != *graph.start()) {
        return Err(format!(
            "it began with node `{}`, and graph `{}` begins with `{}`",
            first.node,
            graph.name(),
            graph.start()
        ));
    }
    State::replay(events, graph.start()).map(drop).map_err(|broken| format!("its events do not fit: {broken}"))
}

/// Whether a step of the old task could have begun in this graph.
fn begins(step: &StepId, inner: Option<&Nested>, graph: &Graph) -> Result<(), String> {
    let node = graph.node_at(&step.visit).ok_or_else(|| format!("node `{}` is no longer there", step.visit.node_path()))?;
    let fits = match (inner, &node.kind) {
        (Some(Nested::Items(_)), _) => node.for_each.is_some(),
        (Some(Nested::Graph { graph: old, start, .. }), NodeKind::Graph { graph: new, .. }) => {
            old == new.name() && start == new.start()
        }
        (Some(Nested::Graph { .. }), _) => false,
        (None, _) => true,
    };
    if fits { Ok(()) } else { Err(format!("node `{}` runs something else now", step.visit.node_path())) }
}
