//! The task runner: one per running task. It decides, journals, applies and publishes.

mod admission;
mod checking;
mod dispatch;
mod message;
mod questions;
mod routing;
mod run_clock;
mod running_task;
mod searching;
mod start;
mod storable;
mod timer;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::{Instrument as _, Span};

use running_task::RunningTask;

pub(crate) use message::Message;
pub(crate) use routing::route_question;
pub(crate) use running_task::TaskContext;

/// Runs one task.
///
/// States: reading the journal -> perhaps waiting for its probation -> running <-> idle (waits for answers of people only) ->
/// ended or set aside (then it stops). If the journal takes no writes, it stops at once; the task is then resumed at the next
/// start of the daemon.
///
/// Within one handler its state is ahead of the journal, and steps that may start again after a restart are dispatched before
/// the commit. Neither is published, and if the commit fails both are dropped with the runner.
pub(crate) struct TaskRunner;

pub(crate) struct State {
    cx: TaskContext,
    /// The span of the log lines about the task.
    span: Span,
    running: Option<RunningTask>,
}

impl Actor for TaskRunner {
    type Msg = Message;
    type State = State;
    type Arguments = TaskContext;

    async fn pre_start(&self, _: ActorRef<Message>, cx: TaskContext) -> Result<State, ActorProcessingErr> {
        // A root: the supervisor may have been told in the span of another task.
        let span = tracing::info_span!(parent: None, "task", task = %cx.task);
        Ok(State { cx, span, running: None })
    }

    /// Not in `pre_start`, which the supervisor awaits, since this may read a long journal.
    async fn post_start(&self, me: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        let span = state.span.clone();
        state.open(me).instrument(span).await
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(running) = &mut state.running {
            handle(running, message).instrument(state.span.clone()).await;
        }
        Ok(())
    }
}

impl State {
    async fn open(&mut self, me: ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        let first = self.cx.first.take();
        let mut running = RunningTask::open(self.cx.clone(), first.as_deref(), me).await?;
        running.begin(first.is_some()).await;
        self.running = Some(running);
        Ok(())
    }
}

async fn handle(running: &mut RunningTask, message: Message) {
    match message {
        Message::StepEnded { step, result } => running.step_ended(&step, *result).await,
        Message::Cancel { reason, reply } => {
            let cancelled = running.cancel(reason).await;
            // The caller may have stopped waiting.
            let _ = reply.send(cancelled);
        }
        Message::CancelStep { step, reason, reply } => {
            let cancelled = running.cancel_step(&step, reason).await;
            let _ = reply.send(cancelled);
        }
        Message::Answer { step, answer, reply } => {
            let answered = running.answer(step, answer).await;
            let _ = reply.send(answered);
        }
        Message::Admit(permit) => running.admit(permit).await,
        Message::Redispatch(step) => running.redispatch(step),
        Message::Wake => running.wake().await,
        #[cfg(test)]
        Message::Panic => panic!("as the test asked"),
    }
}
