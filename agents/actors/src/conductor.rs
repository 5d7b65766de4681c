//! The conductor: one per running task. It decides, journals, applies and announces.

mod answer;
mod begin;
mod start;
mod timer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_journal::Journal;
use artel_roles::Catalog;
use artel_task::event::{FailureCode, Failure, MAX_OUTPUT_BYTES, Output, ResultSource, Timings, Usage};
use artel_task::graph::ReplaySafety;
use artel_task::graph::{RetryPolicy, NodeKind};
use artel_task::{Event, Graph, EventKind, NextAction, Phase, Seq, State as Task, StepId, TaskId, Transition, decide, transition, failure_edges};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use crate::ahead::{Ahead, Needs};
use crate::begun::{Beginning, Begun};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::feed::Feed;
use crate::report::{Outcome, failure};
use crate::{Loader, retry, supervisor};

use timer::Timer;

pub use answer::Answer;
pub(crate) use answer::Refusal;
pub(crate) use begin::ask;

/// Events read from the journal at once.
const PAGE: u32 = 1024;
/// Bytes of a failure's message: more than anybody reads.
const MAX_MESSAGE: usize = 8192;
/// How long to leave a busy journal alone before the next try.
const BUSY: Duration = Duration::from_secs(1);

/// Runs one task.
///
/// States: reading the journal -> running <-> resting (nobody but people is waited for) -> over (then it stops). If the journal takes no more, it stops in the middle;
/// the task is then resumed at the next start of the daemon.
///
/// Inside of one handler its state runs ahead of the journal, and steps that may begin again after a restart are set to work.
/// Nobody hears of either, and if the commit fails both go with their conductor.
pub(crate) struct Conductor;

/// What a conductor is told.
pub(crate) enum Message {
    /// A step ended: journals that and begins what follows.
    Ended { step: StepId, result: Box<Result<Outcome, Failure>> },
    /// Ends the task; answers whether that is on disk.
    Cancel { reason: String, reply: RpcReplyPort<bool> },
    /// Ends one step and what runs inside of it; answers whether that is on disk, and at once with nothing if it does not run.
    CancelStep { step: StepId, reason: String, reply: RpcReplyPort<Option<bool>> },
    /// Ends a step that waits for a person with this answer; answers once that is on disk.
    Answer { step: Option<StepId>, answer: Answer, reply: RpcReplyPort<Result<(), Refusal>> },
    /// Hands a step that found its role's queue full to the expert once more.
    Again(StepId),
    /// A retry or the graph's limit of time may be due.
    Due,
    /// Panic, as a fault of ours would.
    #[cfg(test)]
    Panic,
}

/// The task to run, and what it takes.
#[derive(Clone)]
pub(crate) struct Assignment {
    pub(crate) task: TaskId,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) graph: Arc<Graph>,
    /// The first event of a new task; a task that is resumed is read from the journal.
    pub(crate) first: Option<Arc<Event>>,
    pub(crate) journal: Journal,
    pub(crate) feed: Feed,
    pub(crate) supervisor: ActorRef<supervisor::Message>,
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) models: Arc<Path>,
    pub(crate) ahead: Ahead,
    pub(crate) cache: Cache,
    pub(crate) clock: Clock,
}

pub(crate) struct State {
    assignment: Assignment,
    run: Option<Run>,
}

/// An attempt that runs; dropping it cancels it.
struct Attempt {
    needs: Needs,
    _cancel: DropGuard,
}

/// A task that runs.
struct Run {
    on: Assignment,
    me: ActorRef<Message>,
    task: Task,
    /// Attempts that run.
    steps: HashMap<StepId, Attempt>,
    /// What the task needs after attempts that are over, until the next ones have begun.
    over: Vec<Needs>,
    /// Events that are applied and not yet on disk.
    fresh: Vec<Event>,
    timer: Option<Timer>,
    /// Whether the supervisor knows that nobody but people is waited for.
    rests: bool,
}

impl Actor for Conductor {
    type Msg = Message;
    type State = State;
    type Arguments = Assignment;

    async fn pre_start(&self, _: ActorRef<Message>, assignment: Assignment) -> Result<State, ActorProcessingErr> {
        Ok(State { assignment, run: None })
    }

    /// Outside of the supervisor's mailbox, since it may read a long journal.
    async fn post_start(&self, me: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        let first = state.assignment.first.take();
        let mut run = Run::take_up(state.assignment.clone(), first, me).await?;
        run.advance().await;
        state.run = Some(run);
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(run) = &mut state.run else { return Ok(()) };
        match message {
            Message::Ended { step, result } => run.ended(&step, *result).await,
            Message::Cancel { reason, reply } => {
                let cancelled = run.cancel(reason).await;
                // Whoever asked may have stopped waiting.
                let _ = reply.send(cancelled);
            }
            Message::CancelStep { step, reason, reply } => {
                let cancelled = run.cancel_step(&step, reason).await;
                let _ = reply.send(cancelled);
            }
            Message::Answer { step, answer, reply } => {
                let answered = run.answer(step, answer).await;
                let _ = reply.send(answered);
            }
            Message::Again(step) => run.again(step),
            Message::Due => {
                run.timer = None;
                run.advance().await;
            }
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

impl Run {
    async fn take_up(
        on: Assignment,
        first: Option<Arc<Event>>,
        me: ActorRef<Message>,
    ) -> Result<Self, ActorProcessingErr> {
        let (task, resumed) = match &first {
            Some(first) => (Task::begin(first, on.graph.start())?, false),
            None => (Task::replay(&history(&on.journal, on.task).await?, on.graph.start())?, true),
        };
        let (steps, over, fresh, timer) = (HashMap::new(), Vec::new(), Vec::new(), None);
        let mut run = Self { on, me, task, steps, over, fresh, timer, rests: false };
        match run.task.phase {
            Phase::Running if resumed => run.note(EventKind::Resumed),
            Phase::Running => {}
            _ => run.rest(),
        }
        Ok(run)
    }

    async fn ended(&mut self, step: &StepId, result: Result<Outcome, Failure>) {
        // A report of an attempt that is no longer awaited changes nothing.
        if !self.steps.contains_key(step) {
            return;
        }
        if matches!(&result, Err(failure) if failure.code == FailureCode::QueueFull) {
            return self.wait_for_room(step);
        }
        self.over.extend(self.steps.remove(step).map(|attempt| attempt.needs));
        match result {
            Ok(outcome) => self.finished(step, outcome),
            Err(failure) => self.failed(step, failure),
        }
        self.advance().await;
    }

    fn finished(&mut self, step: &StepId, outcome: Outcome) {
        let (output, usage, timings, source) = match outcome {
            Outcome::Answer { output, usage, timings, source } => (output, usage, timings, source),
            Outcome::Routed { decision, text } => {
                let (output, usage, timings) = begin::routed(&decision, text);
                self.note(EventKind::Routed { step: step.clone(), decision });
                (output, usage, timings, ResultSource::Run)
            }
        };
        self.finish(step, output, (usage, timings), source);
    }

    /// Notes a step's end, unless there is no way on from it, or it holds something that the journal could not give back.
    fn finish(&mut self, step: &StepId, output: Output, (usage, timings): (Usage, Timings), source: ResultSource) {
        let way = match transition(&self.on.graph, &self.task, step, &output) {
            Ok(way) => way,
            Err(way) => return self.failed(step, failure(way.code(), way.to_string())),
        };
        // What items gave is on disk already.
        let mapped = self.task.active_visit(&step.visit).is_some_and(|live| live.items().is_some());
        let output = if mapped { Output::text("") } else { output };
        let Transition { edges: took, write: wrote } = way;
        let event = self.event(EventKind::StepFinished { step: step.clone(), output, usage, timings, taken: took, source, write: wrote });
        match holds(&event) {
            Ok(()) => self.note(event.kind),
            // Another attempt would hardly give anything else.
            Err(reason) => self.fail(step, failure(FailureCode::OutputInvalid, reason), None),
        }
    }

    /// The role's queue is full, which is no failure: the step waits outside of it, until the graph's time is over.
    fn wait_for_room(&self, step: &StepId) {
        let step = step.clone();
        // The handle is of no use: a step that is cancelled meanwhile is not known when its time comes.
        drop(self.me.send_after(retry::room(), move || Message::Again(step)));
    }

    fn again(&mut self, step: StepId) {
        if self.steps.contains_key(&step) {
            self.begin(step, Begun::before());
        }
    }

    fn failed(&mut self, step: &StepId, failure: Failure) {
        let failures = self.task.active_visit(&step.visit).map_or(0, |live| live.failures);
        let retry_after = retry::after(failure.code, failures, self.retries(step));
        self.fail(step, failure, retry_after);
    }

    fn fail(&mut self, step: &StepId, failure: Failure, retry_after: Option<Duration>) {
        let mut failure = Failure { step: failure.step.or_else(|| Some(step.clone())), ..failure };
        failure.message.truncate(failure.message.floor_char_boundary(MAX_MESSAGE));
        tracing::warn!(task = %self.on.task, %step, code = ?failure.code, message = failure.message, ?retry_after, "step failed");
        // A step that somebody cancelled ends its branch.
        let ends = retry_after.is_some() || failure.code == FailureCode::Cancelled;
        let took = if ends { Vec::new() } else { failure_edges(&self.on.graph, &self.task, &step.visit) };
        self.note(EventKind::StepFailed { step: step.clone(), failure, retry_after, taken: took });
    }

    /// How often a step may be tried again; none if it never may.
    fn retries(&self, step: &StepId) -> Option<RetryPolicy> {
        let node = self.on.graph.node_at(&step.visit)?;
        // Of a node with items, each item is tried again by itself.
        let whole = node.for_each.is_some() && step.visit.item.is_none();
        if whole || node.replay_safety == ReplaySafety::AtMostOnce {
            return None;
        }
        Some(node.policy.retries.unwrap_or_else(|| match &node.kind {
            NodeKind::Role { .. } => retry::times(self.role_of(&step.visit).map_or(0, |role| role.limits.retries)),
            NodeKind::Router(_) => retry::times(retry::ROUTER),
            NodeKind::Ask(_) | NodeKind::Graph { .. } => retry::times(0),
        }))
    }

    /// Whether the task's end is on disk.
    async fn cancel(&mut self, reason: String) -> bool {
        if self.task.phase == Phase::Running {
            self.note(EventKind::Cancelled { reason });
        }
        self.commit().await
    }

    /// Whether the step's end is on disk; nothing if it does not run.
    async fn cancel_step(&mut self, step: &StepId, reason: String) -> Option<bool> {
        let live = self.task.active_visit(&step.visit).filter(|live| live.attempt == step.attempt);
        live.filter(|_| self.task.phase == Phase::Running)?;
        self.fail(step, failure(FailureCode::Cancelled, reason), None);
        Some(self.advance().await)
    }

    /// Does all that can be done now: sets the steps to work, journals it in one transaction, and announces it.
    /// False if the journal took it not.
    async fn advance(&mut self) -> bool {
        let (begun, wait) = self.decide();
        // What lay inside of a step that is over is over, too.
        let task = &self.task;
        let runs = |step: &StepId| task.active_visit(&step.visit).is_some_and(|live| live.attempt == step.attempt);
        self.over.extend(self.steps.extract_if(|step, _| !runs(step)).map(|(_, attempt)| attempt.needs));
        let begun = begun.into_iter().filter(|step| self.task.phase == Phase::Running && runs(step));
        let once =
            |step: &StepId| self.on.graph.node_at(&step.visit).is_none_or(|node| node.replay_safety == ReplaySafety::AtMostOnce);
        let (once, again): (Vec<StepId>, Vec<StepId>) = begun.partition(once);
        // What a restart may begin once more need not wait for the disk; nobody hears of it before.
        let (beginning, heard) = Beginning::new();
        again.into_iter().for_each(|step| self.begin(step, heard.clone()));
        let committed = self.commit().await;
        if committed && self.task.phase == Phase::Running {
            beginning.is_heard_of();
            once.into_iter().for_each(|step| self.begin(step, heard.clone()));
            self.set_timer(wait);
            self.tell();
        }
        self.over.clear();
        committed
    }

    /// Tells the supervisor when nobody but people is waited for, and when that is over.
    fn tell(&mut self) {
        let rests = self.task.is_paused();
        if self.rests != rests {
            self.rests = rests;
            // A supervisor that is gone takes us with it.
            let _ = self.on.supervisor.cast(supervisor::Message::Rests(self.on.task, rests));
        }
    }

    /// Notes what comes next until nothing more does: the attempts that begin, and when to look again.
    fn decide(&mut self) -> (Vec<StepId>, Option<Duration>) {
        let mut begun = Vec::new();
        loop {
            let (before, mut wait) = (self.task.last_seq, None::<Duration>);
            for next in decide(&self.on.graph, &self.task, self.on.clock.now()) {
                match next {
                    NextAction::StartStep { step, trigger } => begun.extend(self.start(step, trigger)),
                    NextAction::FinishStep { step, output, source } => self.finish(&step, output, Default::default(), source),
                    NextAction::FailStep { step, failure } => self.failed(&step, failure),
                    NextAction::ExpireQuestion(step) => self.lapse(&step),
                    NextAction::Wait(time) => wait = Some(wait.map_or(time, |wait| wait.min(time))),
                    NextAction::CompleteTask { output, instead_of } => self.complete(output, instead_of),
                    NextAction::FailTask(failure) => self.note(EventKind::Failed { failure }),
                }
            }
            if self.task.last_seq == before || self.task.phase != Phase::Running {
                return (begun, wait);
            }
        }
    }

    /// A list of outputs nests deeper than each of them, and may be what the journal could not give back.
    fn complete(&mut self, output: Output, instead_of: Option<Failure>) {
        let event = self.event(EventKind::Completed { output, instead_of });
        match holds(&event) {
            Ok(()) => self.note(event.kind),
            Err(reason) => self.note(EventKind::Failed { failure: failure(FailureCode::OutputInvalid, reason) }),
        }
    }

    /// The next event of the task.
    fn event(&self, kind: EventKind) -> Event {
        Event { task: self.on.task, seq: self.task.last_seq.next(), at: self.on.clock.now(), kind }
    }

    /// Applies a fact; it is on disk and announced after the next commit.
    fn note(&mut self, kind: EventKind) {
        let event = self.event(kind);
        self.task.apply(&event).expect("events follow from the state that they are applied to");
        self.fresh.push(event);
    }

    /// Puts on disk what was noted and tells those who watch. False if that failed: then the task rests.
    async fn commit(&mut self) -> bool {
        let events = std::mem::take(&mut self.fresh);
        if events.is_empty() {
            return true;
        }
        while let Err(error) = self.on.journal.append(events.clone()).await {
            if !matches!(error, artel_journal::Error::Busy { .. }) {
                tracing::error!(task = %self.on.task, %error, "the task rests: failed to journal");
                self.rest();
                return false;
            }
            // Another program holds the database; nothing was written, and nothing is lost by waiting.
            tracing::warn!(task = %self.on.task, %error, "the journal is busy; trying again");
            tokio::time::sleep(BUSY).await;
        }
        events.into_iter().for_each(|event| self.on.feed.announce(Arc::new(event)));
        if self.task.phase != Phase::Running {
            self.rest();
        }
        true
    }

    /// Cancels what runs and stops.
    fn rest(&mut self) {
        self.steps.clear();
        self.set_timer(None);
        self.me.stop(None);
    }

    /// Looks again after this time, and when the graph's limit of time is over.
    fn set_timer(&mut self, wait: Option<Duration>) {
        let left = self.on.graph.limits().time.saturating_sub(self.task.age(self.on.clock.now()));
        // The task's clock stands still while nobody but people is waited for.
        let left = if self.task.is_paused() { None } else { Some(left) };
        let next = if self.task.phase == Phase::Running { wait.into_iter().chain(left).min() } else { None };
        let due = next.map(|next| Instant::now() + next);
        // Most steps leave the graph's limit as it is.
        if !self.timer.as_ref().zip(due).is_some_and(|(timer, due)| timer.serves(due)) {
            self.timer = next.zip(due).map(|(next, due)| Timer::new(&self.me, next, due));
        }
    }
}

/// Whether an event of a step's or the task's output can be kept and heard, or why not.
fn holds(event: &Event) -> Result<(), String> {
    if let EventKind::StepFinished { output, .. } | EventKind::Completed { output, .. } = &event.kind {
        small_enough(output)?;
    }
    Journal::check(event).map_err(|error| format!("failed to {error}"))
}

/// Whether an output is not too large to be told, or why it is.
fn small_enough(output: &Output) -> Result<(), String> {
    match output.max_encoded_len() {
        bytes if bytes > MAX_OUTPUT_BYTES => Err(format!(
            "the output takes {bytes} bytes, the limit is {MAX_OUTPUT_BYTES}: have less written, or, where a node has many \
             items, let a node after it sum them up and be the graph's `result`"
        )),
        _ => Ok(()),
    }
}

/// All events of a task.
pub(crate) async fn history(journal: &Journal, task: TaskId) -> Result<Vec<Event>, artel_journal::Error> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let page = journal.events(task, events.last().map_or(Seq(0), |event| event.seq), PAGE).await?;
        let full = page.len() == PAGE as usize;
        events.extend(page);
        if !full {
            return Ok(events);
        }
    }
}
