//! What happens to a task, as a stream of `artel.v1` events.

use std::collections::HashMap;
use std::pin::Pin;

use artel_actors::{Clock, Runtime, StreamItem, TaskSubscription};
use artel_proto::v1;
use artel_proto::v1::event::Kind as K;
use artel_task::event::ResultSource;
use artel_task::{Event, EventKind, StepId, TaskId};
use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::convert::{self, step_id};
use super::size;
use super::status;
use super::value::{duration, timestamp};

pub(super) type Events = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

/// Cancels a task whose client went away, unless it has ended.
pub(super) struct CancelOnDrop {
    crew: Runtime,
    task: TaskId,
    armed: bool,
}

impl CancelOnDrop {
    pub(super) fn new(crew: Runtime, task: TaskId) -> Self {
        Self { crew, task, armed: true }
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if self.armed {
            let (crew, task) = (self.crew.clone(), self.task);
            tokio::spawn(async move {
                if let Err(error) = crew.cancel(task, "its client went away").await {
                    tracing::warn!(%task, %error, "failed to cancel a task whose client went away");
                }
            });
        }
    }
}

/// A watcher's stream and what it needs.
struct Watching {
    watch: TaskSubscription,
    translate: Translate,
    end: Ends,
    guard: Option<CancelOnDrop>,
    over: bool,
}

/// How the daemon ends streams.
#[derive(Clone)]
pub(super) struct Ends {
    /// It takes nothing new: what rests, rests until the next start.
    pub(super) draining: CancellationToken,
    /// It closes.
    pub(super) closing: CancellationToken,
}

/// The stream of a watcher. `seen` are the events before the first one that it will give.
pub(super) fn stream(task: TaskId, watch: TaskSubscription, seen: &[Event], end: Ends, guard: Option<CancelOnDrop>) -> Events {
    let mut translate = Translate::new(task);
    seen.iter().for_each(|event| translate.see(event));
    let watching = Watching { watch, translate, end, guard, over: false };
    Box::pin(futures::stream::unfold(watching, |mut watching| async move {
        let item = watching.next().await?;
        Some((item, watching))
    }))
}

impl Watching {
    async fn next(&mut self) -> Option<Result<v1::Event, Status>> {
        while !self.over {
            let next = tokio::select! {
                () = self.end.closing.cancelled() => return Some(Err(self.cut())),
                next = self.watch.next() => next,
            };
            match next {
                Ok(Some(live)) => return Some(size::event(self.give(live))),
                Ok(None) if self.watch.is_over() => self.end(),
                // The task rests: the daemon stops, or its journal failed.
                Ok(None) => return Some(Err(self.cut())),
                Err(error) => {
                    self.end();
                    return Some(Err(status::journal(&error)));
                }
            }
        }
        None
    }

    fn give(&mut self, live: StreamItem) -> v1::Event {
        if let StreamItem::Event(event) = &live
            && event.kind.is_last()
        {
            self.end();
        }
        self.translate.live(live)
    }

    fn end(&mut self) {
        self.over = true;
        if let Some(guard) = &mut self.guard {
            guard.armed = false;
        }
    }

    /// The task goes on after the daemon's next start, so that it must not be cancelled.
    fn cut(&mut self) -> Status {
        self.end();
        if self.end.draining.is_cancelled() {
            let reason = v1::ErrorReason::ShuttingDown;
            return status::status(
                Code::Unavailable,
                reason,
                "the daemon is shutting down; watch again after its start",
            );
        }
        let message = "the task rests, because the daemon's journal failed; it goes on after the daemon's next start";
        status::status(Code::FailedPrecondition, v1::ErrorReason::Journal, message)
    }
}

/// Events into messages. A step's end does not say who worked, its beginning does.
pub(super) struct Translate {
    task: String,
    roles: HashMap<StepId, String>,
    clock: Clock,
}

impl Translate {
    pub(super) fn new(task: TaskId) -> Self {
        Self { task: task.to_string(), roles: HashMap::new(), clock: Clock::default() }
    }

    /// Learns from an event that is not given.
    pub(super) fn see(&mut self, event: &Event) {
        if let EventKind::StepStarted { step, role: Some(role), .. } = &event.kind {
            self.roles.insert(step.clone(), role.to_string());
        }
    }

    fn role(&self, step: &StepId) -> String {
        self.roles.get(step).cloned().unwrap_or_default()
    }

    fn live(&mut self, live: StreamItem) -> v1::Event {
        match live {
            StreamItem::Event(event) => self.event(&event),
            StreamItem::Token { step, role, text, offset } => {
                let (node, role, text) = (step.visit.node_path(), role.to_string(), text.to_string());
                self.passing(K::Token(v1::Token { step_id: step_id(&step), node, role, text, offset }))
            }
            StreamItem::Progress { step, role, progress: stage } => {
                self.passing(K::Progress(convert::progress(&step, role.as_str(), stage)))
            }
        }
    }

    /// What is not journalled.
    fn passing(&self, kind: K) -> v1::Event {
        let time = Some(timestamp(self.clock.now()));
        v1::Event { task_id: self.task.clone(), seq: 0, time, kind: Some(kind) }
    }

    pub(super) fn event(&mut self, event: &Event) -> v1::Event {
        self.see(event);
        v1::Event {
            task_id: self.task.clone(),
            seq: event.seq.0,
            time: Some(timestamp(event.at)),
            kind: Some(self.kind(&event.kind)),
        }
    }

    fn kind(&self, kind: &EventKind) -> K {
        match kind {
            EventKind::Accepted(accepted) => {
                let role = accepted.role.as_ref().map(ToString::to_string).unwrap_or_default();
                let graph = if role.is_empty() { accepted.graph.to_string() } else { String::new() };
                let catalog_version = accepted.catalog.as_str().to_owned();
                K::Accepted(v1::Accepted {
                    graph,
                    role,
                    catalog_version,
                    task_class: convert::class(accepted.priority).into(),
                    decision: accepted.decision.as_deref().map(convert::decision),
                })
            }
            EventKind::Routed { step, decision } => K::Routed(v1::Routed {
                step_id: step_id(step),
                node: step.visit.node_path(),
                decision: Some(convert::decision(decision)),
            }),
            EventKind::StepStarted { step, .. } => K::StepStarted(v1::StepStarted {
                step_id: step_id(step),
                node: step.visit.node_path(),
                role: self.role(step),
                visit: step.visit.number,
                attempt: step.attempt,
                item: step.visit.innermost_item(),
            }),
            EventKind::StepFinished { step, output, usage, timings, taken: took, source, write: _ } => {
                K::StepFinished(v1::StepFinished {
                    step_id: step_id(step),
                    node: step.visit.node_path(),
                    role: self.role(step),
                    output: Some(convert::output(output)),
                    usage: Some(convert::usage(*usage)),
                    timings: Some(convert::timings(*timings, *usage)),
                    next: convert::next(took),
                    cached: *source == ResultSource::Cache,
                    source: convert::source(*source).into(),
                    item: step.visit.innermost_item(),
                })
            }
            EventKind::StepFailed { step, failure, retry_after, taken: took } => K::StepFailed(v1::StepFailed {
                step_id: step_id(step),
                node: step.visit.node_path(),
                role: self.role(step),
                failure: Some(convert::failure(failure)),
                will_retry: retry_after.is_some(),
                retry_after: retry_after.map(duration),
                next: convert::next(took),
            }),
            EventKind::Waiting { .. } => K::Waiting(convert::waiting(kind).unwrap_or_default()),
            EventKind::Resumed => K::Resumed(v1::Resumed {}),
            EventKind::Completed { output, instead_of } => K::Completed(v1::Completed {
                output: Some(convert::output(output)),
                instead_of: instead_of.as_ref().map(convert::failure),
            }),
            EventKind::Failed { failure } => K::Failed(v1::Failed { failure: Some(convert::failure(failure)) }),
            EventKind::Cancelled { reason } => K::Cancelled(v1::Cancelled { reason: reason.clone() }),
        }
    }
}
