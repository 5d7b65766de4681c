//! A task that runs: decides, journals, applies and publishes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_hosting::{Loader, LookaheadGuard, ModelLookahead};
use artel_journal::Journal;
use artel_metrics::{Metrics, TaskObserver};
use artel_retrieval::Retrieval;
use artel_roles::Catalog;
use artel_stream::TaskChannel;
use artel_task::event::{Failure, FailureCode, MAX_OUTPUT_BYTES, Output, ResultSource, Timestamp, Timings, Usage};
use artel_task::graph::{NodeKind, ReplaySafety, RetryPolicy};
use artel_task::{
    Clock, Event, EventKind, Graph, NextAction, Phase, StepId, TaskId, Transition, decide, failure_edges, transition,
};
use artel_traces::{TaskTracer, TraceScope, Tracer};
use ractor::{ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::message::Message;
use super::routing::routing_result;
use super::run_clock::RunClock;
use super::storable::check_event;
use super::timer::WakeTimer;
use crate::commit_barrier::{CommitBarrier, CommitNotifier};
use crate::completion::StepOutcome;
use crate::response_cache::ResponseCache;
use crate::retry::EarlierFailures;
use crate::task_history::history;
use crate::{retry, supervisor};
use artel_admission::{CallerLedger, OpenTask, tokens_of};

/// The longest time until open questions are looked at again: a wall clock that is set forward, or a machine that was
/// suspended, is noticed after it.
const QUESTION_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// The limit of a failure's message: more than a person reads.
pub(super) const MAX_MESSAGE_BYTES: usize = 8192;
/// How long to wait while another program holds the journal.
const JOURNAL_BUSY_DELAY: Duration = Duration::from_secs(1);

/// The task to run, with its dependencies.
#[derive(Clone)]
pub(crate) struct TaskContext {
    pub(crate) task: TaskId,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) graph: Arc<Graph>,
    /// The first event of a new task; a task that is resumed is read from the journal.
    pub(crate) first: Option<Arc<Event>>,
    /// Resumes it even if it is set aside.
    pub(crate) takes_up: bool,
    pub(crate) probation: Arc<Semaphore>,
    pub(crate) journal: Journal,
    pub(crate) channel: TaskChannel,
    pub(crate) supervisor: ActorRef<supervisor::Message>,
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) retrieval: Option<Retrieval>,
    pub(crate) models_dir: Arc<Path>,
    pub(crate) lookahead: ModelLookahead,
    pub(crate) response_cache: ResponseCache,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) callers: CallerLedger,
    pub(crate) open: Option<OpenTask>,
}

/// An attempt that runs; dropping it cancels it.
pub(super) struct RunningAttempt {
    lookahead: LookaheadGuard,
    _cancel: DropGuard,
}

/// A task that runs.
pub(super) struct RunningTask {
    pub(super) cx: TaskContext,
    pub(super) me: ActorRef<Message>,
    pub(super) task: artel_task::State,
    clock: RunClock,
    /// The turns of the caller's conversation before the input, as templates read them.
    pub(super) history: Arc<Vec<serde_json::Value>>,
    pub(super) attempts: HashMap<StepId, RunningAttempt>,
    /// The lookahead of attempts that have ended, kept until the next ones have started.
    ended_lookahead: Vec<LookaheadGuard>,
    /// Events that are applied and not yet on disk.
    uncommitted: Vec<Event>,
    /// Counts what is committed from now on.
    observer: TaskObserver,
    /// Tells the spans of what is committed, if the task is traced.
    tracer: Option<TaskTracer>,
    timer: Option<WakeTimer>,
    pub(super) admission: ResumeAdmission,
    /// Whether the supervisor knows that only answers of people are awaited.
    is_idle: bool,
}

/// Whether a task may act.
pub(super) enum ResumeAdmission {
    /// It may.
    Granted,
    /// It waits for its probation, and starts nothing.
    Awaited,
    /// It may, on probation: no other such task does before it makes progress.
    OnProbation { _permit: OwnedSemaphorePermit },
}

impl RunningAttempt {
    /// An attempt that this token cancels.
    pub(super) fn new(lookahead: LookaheadGuard, cancel: &CancellationToken) -> Self {
        Self { lookahead, _cancel: cancel.clone().drop_guard() }
    }
}

impl RunningTask {
    /// The task at its start, or as its journal says.
    pub(super) async fn open(
        cx: TaskContext,
        first: Option<&Event>,
        me: ActorRef<Message>,
    ) -> Result<Self, ActorProcessingErr> {
        let (tracer, graph) = (cx.tracer.as_ref(), Some(&cx.graph));
        let (task, tracer) = match first {
            Some(first) => {
                let tracer = tracer.and_then(|tracer| TaskTracer::begin(tracer, first, graph));
                (artel_task::State::begin(first, cx.graph.start())?, tracer)
            }
            None => {
                let events = history(&cx.journal, cx.task).await?;
                let tracer = tracer.and_then(|tracer| TaskTracer::resume(tracer, &events, graph));
                (artel_task::State::replay(&events, cx.graph.start())?, tracer)
            }
        };
        Ok(Self {
            clock: RunClock::new(cx.clock.clone(), task.last_event_at),
            observer: TaskObserver::new(cx.metrics.clone(), task.spec.owner.as_str()),
            history: task.spec.conversation.as_ref().map(|known| known.history()).unwrap_or_default().into(),
            tracer,
            cx,
            me,
            task,
            attempts: HashMap::new(),
            ended_lookahead: Vec::new(),
            uncommitted: Vec::new(),
            timer: None,
            admission: ResumeAdmission::Granted,
            is_idle: false,
        })
    }

    /// A step's work has ended.
    pub(super) async fn step_ended(&mut self, step: &StepId, result: Result<StepOutcome, Failure>) {
        // The completion of an attempt that is no longer awaited changes nothing.
        if !self.attempts.contains_key(step) {
            return;
        }
        if matches!(&result, Err(failure) if failure.code == FailureCode::QueueFull) {
            return self.redispatch_later(step);
        }
        self.ended_lookahead.extend(self.attempts.remove(step).map(|attempt| attempt.lookahead));
        match result {
            Ok(outcome) => self.step_succeeded(step, outcome),
            Err(failure) => self.step_failed(step, failure),
        }
        self.advance().await;
    }

    fn step_succeeded(&mut self, step: &StepId, outcome: StepOutcome) {
        let (output, usage, timings, source) = match outcome {
            StepOutcome::Answer { output, usage, timings, source } => (output, usage, timings, source),
            StepOutcome::Routed { decision, text } => {
                let (output, usage, timings) = routing_result(&decision, text);
                self.record(EventKind::Routed { step: step.clone(), decision });
                (output, usage, timings, ResultSource::Run)
            }
        };
        self.finish(step, output, (usage, timings), source);
    }

    /// Records a step's end, unless no edge leads on from it, or the journal cannot store its output.
    pub(super) fn finish(
        &mut self,
        step: &StepId,
        output: Output,
        (usage, timings): (Usage, Timings),
        source: ResultSource,
    ) {
        let way = match transition(&self.cx.graph, &self.task, step, &output) {
            Ok(way) => way,
            Err(way) => return self.step_failed(step, Failure::new(way.code(), way.to_string())),
        };
        // The outputs of the items are on disk already.
        let is_mapped = self.task.active_visit(&step.visit).is_some_and(|live| live.items().is_some());
        let output = if is_mapped { Output::text("") } else { output };
        let Transition { edges: took, write: wrote } = way;
        let event = self.next_event(EventKind::StepFinished {
            step: step.clone(),
            output,
            usage,
            timings,
            taken: took,
            source,
            write: wrote,
        });
        match check_event(&event) {
            Ok(()) => self.record(event.kind),
            // Another attempt would hardly give anything else.
            Err(error) => self.fail_attempt(step, Failure::new(FailureCode::OutputInvalid, error.to_string()), None),
        }
    }

    /// The role's queue is full, which is no failure: the step waits outside of it, until the graph's time is over.
    fn redispatch_later(&self, step: &StepId) {
        let step = step.clone();
        // The handle is not needed: a step that is cancelled meanwhile is ignored when the message arrives.
        drop(self.me.send_after(retry::queue_full_delay(), move || Message::Redispatch(step)));
    }

    /// Sends a step that found its role's queue full to the expert again.
    pub(super) fn redispatch(&mut self, step: StepId) {
        if self.attempts.contains_key(&step) {
            self.dispatch(step, CommitBarrier::already_committed());
        }
    }

    /// A step has failed: it is retried, or takes its failure edge.
    ///
    /// A step that was interrupted in each of its attempts is not failed, unless the graph says what then happens: it may not
    /// be at fault, and its task can be taken up again.
    pub(super) fn step_failed(&mut self, step: &StepId, failure: Failure) {
        let live = self.task.active_visit(&step.visit);
        let earlier = live.map_or_else(EarlierFailures::default, |live| EarlierFailures {
            all: live.failures,
            interruptions: live.interruptions,
        });
        let retries = self.retries(step);
        let retry_after = retry::delay_after(failure.code, earlier, retries);
        let is_last_interruption =
            failure.code == FailureCode::Interrupted && retry_after.is_none() && retries.is_some();
        if is_last_interruption && !self.is_failure_handled(&step.visit) {
            return self.set_aside_interrupted(step, earlier.interruptions + 1, &failure);
        }
        self.fail_attempt(step, failure, retry_after);
    }

    fn fail_attempt(&mut self, step: &StepId, failure: Failure, retry_after: Option<Duration>) {
        let mut failure = Failure { step: failure.step.or_else(|| Some(step.clone())), ..failure };
        failure.message.truncate(failure.message.floor_char_boundary(MAX_MESSAGE_BYTES));
        let retry_seconds = retry_after.map(|delay| delay.as_secs_f64());
        tracing::warn!(task = %self.cx.task, %step, code = ?failure.code, message = failure.message, retry_seconds, "step failed");
        // A step that a client cancelled ends its branch.
        let takes_no_edge = retry_after.is_some() || failure.code == FailureCode::Cancelled;
        let took = if takes_no_edge { Vec::new() } else { failure_edges(&self.cx.graph, &self.task, &step.visit) };
        let is_cancelled = failure.code == FailureCode::Cancelled;
        let partial =
            is_cancelled.then(|| self.cx.channel.partial_outputs(|running| running == step, MAX_OUTPUT_BYTES));
        let partial = partial.and_then(|mut partial| Some(Box::new(partial.pop()?.output)));
        self.record(EventKind::StepFailed { step: step.clone(), failure, retry_after, taken: took, partial });
    }

    /// The retries of a step; none if it must never be retried.
    fn retries(&self, step: &StepId) -> Option<RetryPolicy> {
        let node = self.cx.graph.node_at(&step.visit)?;
        // Of a node with items, each item is retried by itself.
        let is_mapped = node.for_each.is_some() && step.visit.item.is_none();
        if is_mapped || node.replay_safety == ReplaySafety::AtMostOnce {
            return None;
        }
        Some(node.policy.retries.unwrap_or_else(|| {
            retry::with_default_delays(match &node.kind {
                NodeKind::Role { .. } => self.role_of(&step.visit).map_or(0, |role| role.limits.retries),
                NodeKind::Router(_) | NodeKind::Search(_) | NodeKind::Check(_) => retry::ROUTER_RETRIES,
                NodeKind::Ask(_) | NodeKind::Graph { .. } => 0,
            })
        }))
    }

    /// Whether the task's end is on disk.
    pub(super) async fn cancel(&mut self, reason: String) -> bool {
        if matches!(self.task.phase, Phase::Running | Phase::SetAside(_)) {
            let partial = self.cx.channel.partial_outputs(|_| true, MAX_OUTPUT_BYTES);
            self.record(EventKind::Cancelled { reason, partial });
        }
        self.commit().await
    }

    /// Whether the step's end is on disk; `None` if it does not run.
    pub(super) async fn cancel_step(&mut self, step: &StepId, reason: String) -> Option<bool> {
        let live = self.task.active_visit(&step.visit).filter(|live| live.attempt == step.attempt);
        live.filter(|_| self.task.phase == Phase::Running)?;
        self.fail_attempt(step, Failure::new(FailureCode::Cancelled, reason), None);
        Some(self.advance().await)
    }

    /// The timer has fired.
    pub(super) async fn wake(&mut self) {
        self.timer = None;
        self.advance().await;
    }

    /// Starts all steps that can start now: dispatches them, journals their start in one transaction, and publishes it.
    /// False if the journal did not take it.
    pub(super) async fn advance(&mut self) -> bool {
        if matches!(self.admission, ResumeAdmission::Awaited) {
            return self.commit().await;
        }
        let (started, wait) = self.decide();
        // An attempt inside of a step that has ended is over, too.
        let task = &self.task;
        let is_live = |step: &StepId| task.active_visit(&step.visit).is_some_and(|live| live.attempt == step.attempt);
        let dropped = self.attempts.extract_if(|step, _| !is_live(step));
        self.ended_lookahead.extend(dropped.map(|(_, attempt)| attempt.lookahead));
        let started = started.into_iter().filter(|step| self.task.phase == Phase::Running && is_live(step));
        let at_most_once = |step: &StepId| {
            self.cx.graph.node_at(&step.visit).is_none_or(|node| node.replay_safety == ReplaySafety::AtMostOnce)
        };
        let (at_most_once, repeatable): (Vec<StepId>, Vec<StepId>) = started.partition(at_most_once);
        // A step that may start again after a restart need not wait for the disk; nothing of it is published before.
        let (notifier, barrier) = CommitNotifier::new();
        repeatable.into_iter().for_each(|step| self.dispatch(step, barrier.clone()));
        let is_committed = self.commit().await;
        if is_committed && self.task.phase == Phase::Running {
            notifier.notify();
            at_most_once.into_iter().for_each(|step| self.dispatch(step, barrier.clone()));
            self.set_timer(wait);
            self.report_idle();
        }
        self.ended_lookahead.clear();
        is_committed
    }

    /// Tells the supervisor when only answers of people are awaited, and when that is over.
    fn report_idle(&mut self) {
        let is_idle = self.task.is_paused();
        if self.is_idle != is_idle {
            self.is_idle = is_idle;
            // When the supervisor stops, so does this actor.
            let _ = self.cx.supervisor.cast(supervisor::Message::SetIdle(self.cx.task, is_idle));
        }
    }

    /// Records the next events until there are no more: returns the attempts that start, and when to decide again.
    fn decide(&mut self) -> (Vec<StepId>, Option<Duration>) {
        let mut started = Vec::new();
        loop {
            let before = self.task.last_seq;
            let mut wait = None::<Duration>;
            for next in decide(&self.cx.graph, &self.task, self.now(), self.wall_time()) {
                if self.task.phase != Phase::Running {
                    break;
                }
                match next {
                    NextAction::StartStep { step, trigger } => started.extend(self.start(step, trigger)),
                    NextAction::FinishStep { step, output, source } => {
                        self.finish(&step, output, Default::default(), source);
                    }
                    NextAction::FailStep { step, failure } => self.step_failed(&step, failure),
                    NextAction::ExpireQuestion(step) => self.expire(&step),
                    NextAction::Wait(time) => wait = Some(wait.map_or(time, |wait| wait.min(time))),
                    NextAction::CompleteTask { output, instead_of } => self.complete(output, instead_of),
                    NextAction::FailTask(failure) => self.record(EventKind::Failed { failure }),
                }
            }
            // The wall clock, by which questions expire, may be set.
            if wait.is_some() && !self.task.open_questions().is_empty() {
                wait = wait.min(Some(QUESTION_POLL_INTERVAL));
            }
            if self.task.last_seq == before || self.task.phase != Phase::Running {
                return (started, wait);
            }
        }
    }

    /// A list of outputs nests deeper than each of them, so the journal may be unable to store it.
    fn complete(&mut self, output: Output, instead_of: Option<Failure>) {
        let event = self.next_event(EventKind::Completed { output, instead_of });
        match check_event(&event) {
            Ok(()) => self.record(event.kind),
            Err(error) => {
                let failure = Failure::new(FailureCode::OutputInvalid, error.to_string());
                self.record(EventKind::Failed { failure });
            }
        }
    }

    /// The time within this run, by which limits and pauses are measured.
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time that people read.
    pub(super) fn wall_time(&self) -> Timestamp {
        self.cx.clock.now()
    }

    fn next_event(&mut self, kind: EventKind) -> Event {
        if self.task.is_paused() {
            self.clock.catch_up();
        }
        let at = if kind.is_last() { self.clock.end() } else { self.now() };
        Event { task: self.cx.task, seq: self.task.last_seq.next(), at, kind }
    }

    /// Applies an event; it is on disk and published after the next commit.
    pub(super) fn record(&mut self, kind: EventKind) {
        let event = self.next_event(kind);
        self.task.apply(&event).expect("events follow from the state that they are applied to");
        self.uncommitted.push(event);
    }

    /// Journals the recorded events and publishes them. False if that failed: then the task is suspended.
    pub(super) async fn commit(&mut self) -> bool {
        let events = std::mem::take(&mut self.uncommitted);
        if events.is_empty() {
            return true;
        }
        while let Err(error) = self.cx.journal.append(events.clone()).await {
            if !matches!(error, artel_journal::Error::Busy { .. }) {
                tracing::error!(task = %self.cx.task, %error, "failed to journal: the task is suspended");
                self.stop();
                return false;
            }
            // Another program holds the database; nothing was written, and nothing is lost by waiting.
            tracing::warn!(task = %self.cx.task, %error, "the journal is busy; trying again");
            tokio::time::sleep(JOURNAL_BUSY_DELAY).await;
        }
        // Before any client hears of them, so that a client that has seen a task end finds it counted.
        events.iter().for_each(|event| self.observer.committed(event));
        if let Some(tracer) = &mut self.tracer {
            events.iter().for_each(|event| tracer.committed(event));
        }
        let tokens = events.iter().map(tokens_of).sum();
        self.cx.callers.used(&self.task.spec.owner, tokens, self.wall_time());
        if self.task.phase != Phase::Running
            && let Some(open) = &self.cx.open
        {
            open.close();
        }
        events.into_iter().for_each(|event| self.cx.channel.publish(Arc::new(event)));
        if self.task.stalled_resumes == 0 && matches!(self.admission, ResumeAdmission::OnProbation { .. }) {
            self.admission = ResumeAdmission::Granted;
        }
        if self.task.phase != Phase::Running {
            self.stop();
        }
        true
    }

    /// The span of a step, if the task is traced.
    pub(super) fn trace_of(&self, step: &StepId) -> Option<TraceScope> {
        self.tracer.as_ref().map(|tracer| tracer.step(step))
    }

    /// Cancels all attempts and stops the actor.
    pub(super) fn stop(&mut self) {
        self.attempts.clear();
        self.set_timer(None);
        self.me.stop(None);
    }

    /// Wakes the runner after this time, and when the graph's time limit is reached.
    fn set_timer(&mut self, wait: Option<Duration>) {
        let now = self.now();
        let remaining = self.cx.graph.limits().time.saturating_sub(self.task.age(now));
        // The task's clock stands still while only answers of people are awaited.
        let remaining = if self.task.is_paused() { None } else { Some(remaining) };
        let next = if self.task.phase == Phase::Running { wait.into_iter().chain(remaining).min() } else { None };
        let due = next.map(|next| Instant::now() + next);
        // Most steps leave the graph's limit as it is.
        if !self.timer.as_ref().zip(due).is_some_and(|(timer, due)| timer.covers(due)) {
            self.timer = next.zip(due).map(|(next, due)| WakeTimer::new(&self.me, next, due));
        }
    }
}
