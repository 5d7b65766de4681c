//! The conductor: one per running task. It decides, journals, applies and announces.

mod begin;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_journal::Journal;
use artel_roles::Catalog;
use artel_task::event::{Code, Failure};
use artel_task::{Event, Graph, Kind, Next, Phase, Seq, State as Task, StepId, TaskId, decide, leave};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use crate::clock::Clock;
use crate::feed::Live;
use crate::report::{Outcome, failure};
use crate::{retry, supervisor};

pub(crate) use begin::ask;

/// Events read from the journal at once.
const PAGE: u32 = 1024;
/// How long to leave a busy journal alone before the next try.
const BUSY: Duration = Duration::from_secs(1);

/// Runs one task.
///
/// States: reading the journal -> running -> over (then it stops). If the journal takes no more, it stops in the middle;
/// the task is then resumed at the next start of the daemon.
///
/// Inside of one handler its state runs ahead of the journal; nobody sees that, and if the commit fails the state goes
/// with its conductor.
pub(crate) struct Conductor;

/// What a conductor is told.
pub(crate) enum Message {
    /// A step ended: journals that and begins what follows.
    Ended { step: StepId, result: Box<Result<Outcome, Failure>> },
    /// Ends the task; answers whether that is on disk.
    Cancel { reason: String, reply: RpcReplyPort<bool> },
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
    pub(crate) feed: broadcast::Sender<Live>,
    pub(crate) supervisor: ActorRef<supervisor::Message>,
    pub(crate) models: Arc<Path>,
    pub(crate) clock: Clock,
}

pub(crate) struct State {
    assignment: Assignment,
    run: Option<Run>,
}

/// A task that runs.
struct Run {
    on: Assignment,
    me: ActorRef<Message>,
    task: Task,
    /// Attempts that run; dropping one cancels it.
    steps: HashMap<StepId, DropGuard>,
    /// Events that are applied and not yet on disk.
    fresh: Vec<Event>,
    timer: Option<JoinHandle<Result<(), ractor::MessagingErr<Message>>>>,
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
            Message::Again(step) => run.again(step),
            Message::Due => run.advance().await,
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
        let (steps, fresh, timer) = (HashMap::new(), Vec::new(), None);
        let mut run = Self { on, me, task, steps, fresh, timer };
        match run.task.phase {
            Phase::Running if resumed => run.note(Kind::Resumed),
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
        if matches!(&result, Err(failure) if failure.code == Code::QueueFull) {
            return self.wait_for_room(step);
        }
        self.steps.remove(step);
        match result {
            Ok(outcome) => self.finished(step, outcome),
            Err(failure) => self.failed(step, failure),
        }
        self.advance().await;
    }

    fn finished(&mut self, step: &StepId, outcome: Outcome) {
        let (output, usage, timings) = match outcome {
            Outcome::Answer { output, usage, timings } => (output, usage, timings),
            Outcome::Routed { decision, text } => {
                let parts = begin::routed(&decision, text);
                self.note(Kind::Routed { step: step.clone(), decision });
                parts
            }
        };
        match leave(&self.on.graph, &self.task, &step.visit.node, &output) {
            Ok(took) => self.finish(Kind::StepFinished { step: step.clone(), output, usage, timings, took }, step),
            Err(way) => {
                let failure = Failure { code: way.code(), message: way.to_string(), step: Some(step.clone()) };
                self.note(Kind::StepFailed { step: step.clone(), failure, retry_after: None });
            }
        }
    }

    /// Notes a step's end, unless it holds something that the journal could not give back.
    fn finish(&mut self, kind: Kind, step: &StepId) {
        let event = self.event(kind);
        match Journal::check(&event) {
            Ok(()) => self.note(event.kind),
            Err(error) => {
                let failure = failure(Code::OutputInvalid, format!("failed to {error}"));
                let failure = Failure { step: Some(step.clone()), ..failure };
                self.note(Kind::StepFailed { step: step.clone(), failure, retry_after: None });
            }
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
            self.begin(step);
        }
    }

    fn failed(&mut self, step: &StepId, failure: Failure) {
        let failures = self.task.live.get(&step.visit).map_or(0, |live| live.failures);
        let retry_after = retry::after(failure.code, failures, self.retries(step));
        let failure = Failure { step: Some(step.clone()), ..failure };
        tracing::warn!(task = %self.on.task, %step, code = ?failure.code, message = failure.message, ?retry_after, "step failed");
        self.note(Kind::StepFailed { step: step.clone(), failure, retry_after });
    }

    /// Whether the task's end is on disk.
    async fn cancel(&mut self, reason: String) -> bool {
        if self.task.phase == Phase::Running {
            self.note(Kind::Cancelled { reason });
        }
        self.commit().await
    }

    /// Does all that can be done now: journals it in one transaction, announces it, and sets the steps to work.
    async fn advance(&mut self) {
        let (begun, wait) = self.decide();
        if self.commit().await && self.task.phase == Phase::Running {
            begun.into_iter().for_each(|step| self.begin(step));
            self.set_timer(wait);
        }
    }

    /// Notes what comes next until nothing more does: the attempts that begin, and when to look again.
    fn decide(&mut self) -> (Vec<StepId>, Option<Duration>) {
        let mut begun = Vec::new();
        loop {
            let (before, mut wait) = (self.task.last, None::<Duration>);
            for next in decide(&self.on.graph, &self.task, self.on.clock.now()) {
                match next {
                    Next::Start { step, trigger } => {
                        let role = self.role_of(&step.visit.node).map(|role| role.name.clone());
                        self.note(Kind::StepStarted { step: step.clone(), trigger, role });
                        begun.push(step);
                    }
                    Next::Wait(time) => wait = Some(wait.map_or(time, |wait| wait.min(time))),
                    Next::Complete(output) => self.note(Kind::Completed { output }),
                    Next::Fail(failure) => self.note(Kind::Failed { failure }),
                }
            }
            if self.task.last == before || self.task.phase != Phase::Running {
                return (begun, wait);
            }
        }
    }

    /// The next event of the task.
    fn event(&self, kind: Kind) -> Event {
        Event { task: self.on.task, seq: self.task.last.next(), at: self.on.clock.now(), kind }
    }

    /// Applies a fact; it is on disk and announced after the next commit.
    fn note(&mut self, kind: Kind) {
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
        for event in events {
            // Nobody need be watching.
            let _ = self.on.feed.send(Live::Event(Arc::new(event)));
        }
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
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        if self.task.phase == Phase::Running {
            let left = self.on.graph.limits().time.saturating_sub(self.task.age(self.on.clock.now()));
            self.timer = Some(self.me.send_after(wait.map_or(left, |wait| wait.min(left)), || Message::Due));
        }
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
