//! The events of a task as a stream of `artel.v1` messages.

use std::collections::HashMap;
use std::pin::Pin;

use artel_actors::{Clock, Runtime, StreamItem, TaskSubscription};
use artel_proto::v1;
use artel_proto::v1::event::Kind as K;
use artel_task::event::{PartialOutput, ResultSource};
use artel_task::{Event, EventKind, StepId, TaskId};
use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::convert::{self, step_id};
use crate::server_paths::ServerPaths;
use crate::size;
use crate::status;
use crate::value::{duration, timestamp};

/// A stream of `artel.v1` events.
pub(crate) type TaskEventStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

/// Cancels a task when its client disconnects, unless it has ended.
pub(crate) struct CancelOnDrop {
    runtime: Runtime,
    task: TaskId,
    armed: bool,
}

impl CancelOnDrop {
    pub(crate) fn new(runtime: Runtime, task: TaskId) -> Self {
        Self { runtime, task, armed: true }
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if self.armed {
            let (runtime, task) = (self.runtime.clone(), self.task);
            tokio::spawn(async move {
                if let Err(error) = runtime.cancel(task, "its client disconnected").await {
                    tracing::warn!(%task, %error, "failed to cancel a task whose client disconnected");
                }
            });
        }
    }
}

/// The state of the event stream of a watcher.
struct EventStreamState {
    watch: TaskSubscription,
    translator: EventTranslator,
    shutdown: StreamShutdown,
    guard: Option<CancelOnDrop>,
    has_ended: bool,
}

/// How the daemon shuts down streams.
#[derive(Clone)]
pub(crate) struct StreamShutdown {
    /// Cancelled when it accepts no new work: suspended tasks stay suspended until the next start.
    pub(crate) draining: CancellationToken,
    /// Cancelled when it closes.
    pub(crate) closing: CancellationToken,
}

/// The event stream of a watcher. The translator has observed the events before the first one that is sent.
pub(crate) fn stream(
    watch: TaskSubscription,
    translator: EventTranslator,
    shutdown: StreamShutdown,
    guard: Option<CancelOnDrop>,
) -> TaskEventStream {
    let state = EventStreamState { watch, translator, shutdown, guard, has_ended: false };
    Box::pin(futures::stream::unfold(state, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    }))
}

impl EventStreamState {
    async fn next(&mut self) -> Option<Result<v1::Event, Status>> {
        while !self.has_ended {
            let next = tokio::select! {
                () = self.shutdown.closing.cancelled() => return Some(Err(self.interrupted())),
                next = self.watch.next() => next,
            };
            match next {
                Ok(Some(item)) => return Some(size::event(self.message(item))),
                Ok(None) if self.watch.is_over() => self.end(),
                // The task is suspended: the daemon is stopping, or its journal failed.
                Ok(None) => return Some(Err(self.interrupted())),
                Err(error) => {
                    self.end();
                    return Some(Err(status::journal(&error)));
                }
            }
        }
        None
    }

    fn message(&mut self, item: StreamItem) -> v1::Event {
        if let StreamItem::Event(event) = &item {
            if let Some(guard) = &mut self.guard {
                // A client that leaves a task that is set aside does not cancel it: it waits to be taken up again.
                guard.armed = !matches!(event.kind, EventKind::SetAside { .. });
            }
            if event.kind.is_last() {
                self.end();
            }
        }
        self.translator.translate(item)
    }

    fn end(&mut self) {
        self.has_ended = true;
        if let Some(guard) = &mut self.guard {
            guard.armed = false;
        }
    }

    /// The task resumes at the next start, so that it must not be cancelled.
    fn interrupted(&mut self) -> Status {
        self.end();
        if self.shutdown.draining.is_cancelled() {
            let reason = v1::ErrorReason::ShuttingDown;
            return status::status(
                Code::Unavailable,
                reason,
                "the daemon is shutting down; watch the task again after its restart",
            );
        }
        let message =
            "the task is suspended because the daemon's journal failed; it resumes at the daemon's next start";
        status::status(Code::FailedPrecondition, v1::ErrorReason::Journal, message)
    }
}

/// Converts events to messages. The role of a step is only in its `StepStarted` event, so it is remembered.
pub(crate) struct EventTranslator {
    task: String,
    roles: HashMap<StepId, String>,
    clock: Clock,
    paths: ServerPaths,
}

impl EventTranslator {
    pub(crate) fn new(task: TaskId, clock: Clock, paths: ServerPaths) -> Self {
        Self { task: task.to_string(), roles: HashMap::new(), clock, paths }
    }

    /// Notes an event that is not sent.
    pub(crate) fn observe(&mut self, event: &Event) {
        if let EventKind::StepStarted { step, role: Some(role), .. } = &event.kind {
            self.roles.insert(step.clone(), role.to_string());
        }
    }

    fn role(&self, step: &StepId) -> String {
        self.roles.get(step).cloned().unwrap_or_default()
    }

    fn translate(&mut self, item: StreamItem) -> v1::Event {
        match item {
            StreamItem::Event(event) => self.event(&event),
            StreamItem::Token { step, role, text, offset, logprobs } => {
                let (node, role, text) = (step.visit.node_path(), role.to_string(), text.to_string());
                let logprobs = convert::token_logprobs(logprobs.as_deref().unwrap_or_default());
                self.not_journalled(K::Token(v1::Token { step_id: step_id(&step), node, role, text, offset, logprobs }))
            }
            StreamItem::ToolCall { step, role, index, part } => {
                self.not_journalled(K::ToolCallDelta(convert::tool_call_delta(&step, role.as_str(), index, part)))
            }
            StreamItem::Reasoning { step, role, text, offset } => {
                let (node, role, text) = (step.visit.node_path(), role.to_string(), text.to_string());
                self.not_journalled(K::Reasoning(v1::Reasoning { step_id: step_id(&step), node, role, text, offset }))
            }
            StreamItem::Progress { step, role, progress: stage } => {
                self.not_journalled(K::Progress(convert::progress(&step, role.as_str(), stage)))
            }
        }
    }

    /// A message that is not journalled.
    fn not_journalled(&self, kind: K) -> v1::Event {
        let time = Some(timestamp(self.clock.now()));
        v1::Event { task_id: self.task.clone(), seq: 0, time, kind: Some(kind) }
    }

    fn event(&mut self, event: &Event) -> v1::Event {
        self.observe(event);
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
                    priority: convert::priority(accepted.priority).into(),
                    decision: accepted.decision.as_deref().map(convert::decision),
                    forked_from_task_id: convert::forked_task(accepted),
                    forked_from_step_id: convert::forked_step(accepted),
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
            EventKind::StepFailed { step, failure, retry_after, taken: took, partial } => {
                K::StepFailed(v1::StepFailed {
                    step_id: step_id(step),
                    node: step.visit.node_path(),
                    role: self.role(step),
                    failure: Some(convert::failure(failure, &self.paths)),
                    will_retry: retry_after.is_some(),
                    retry_after: retry_after.map(duration),
                    next: convert::next(took),
                    partial: partial.as_deref().map(convert::output),
                })
            }
            EventKind::Waiting { .. } => K::Waiting(convert::waiting(kind).unwrap_or_default()),
            EventKind::Resumed => K::Resumed(v1::Resumed {}),
            EventKind::Completed { output, instead_of } => K::Completed(v1::Completed {
                output: Some(convert::output(output)),
                fallback_cause: instead_of.as_ref().map(|failure| convert::failure(failure, &self.paths)),
            }),
            EventKind::Failed { failure } => {
                K::Failed(v1::Failed { failure: Some(convert::failure(failure, &self.paths)) })
            }
            EventKind::Cancelled { reason, partial } => {
                let partial = partial.iter().map(|PartialOutput { step, output }| v1::PartialOutput {
                    step_id: step_id(step),
                    output: Some(convert::output(output)),
                });
                K::Cancelled(v1::Cancelled { reason: reason.clone(), partial: partial.collect() })
            }
            EventKind::SetAside { reason } => K::SetAside(v1::SetAside { reason: self.paths.hide(reason) }),
        }
    }
}
