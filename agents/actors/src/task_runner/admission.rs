//! Resuming a task, and setting it aside instead when it makes no progress.

use artel_task::event::Failure;
use artel_task::state::MAX_STALLED_RESUMES;
use artel_task::{EventKind, Phase, StepId, Visit, failure_edges};
use tokio::sync::OwnedSemaphorePermit;

use super::message::Message;
use super::running_task::{ResumeAdmission, RunningTask};

impl RunningTask {
    /// Starts a new task, or resumes one that was read from the journal, unless it stalls: the last resume before it is set
    /// aside waits for its turn.
    pub(super) async fn begin(&mut self, is_new: bool) {
        match &self.task.phase {
            Phase::Running if is_new => {
                self.advance().await;
            }
            Phase::Running if self.task.stalled_resumes >= MAX_STALLED_RESUMES => {
                self.set_aside(self.stalled_reason());
                self.commit().await;
            }
            Phase::Running if self.task.stalled_resumes + 1 == MAX_STALLED_RESUMES => self.await_probation(),
            Phase::Running => self.resume().await,
            Phase::SetAside(_) if self.cx.takes_up => self.resume().await,
            _ => self.stop(),
        }
    }

    /// Its turn has come.
    pub(super) async fn admit(&mut self, permit: OwnedSemaphorePermit) {
        if matches!(self.admission, ResumeAdmission::Awaited) {
            self.admission = ResumeAdmission::OnProbation { _permit: permit };
            self.resume().await;
        }
    }

    /// The resume is on disk before anything else happens: it counts even if the next action ends the daemon.
    async fn resume(&mut self) {
        match self.task.phase {
            Phase::Running => self.record(EventKind::Resumed),
            Phase::SetAside(_) if self.cx.takes_up => self.record(EventKind::Resumed),
            _ => {}
        }
        if self.commit().await {
            self.advance().await;
        }
    }

    fn await_probation(&mut self) {
        self.admission = ResumeAdmission::Awaited;
        let (probation, me) = (self.cx.probation.clone(), self.me.clone());
        tokio::spawn(async move {
            // The semaphore is never closed. A runner that has stopped drops the permit.
            if let Ok(permit) = probation.acquire_owned().await {
                let _ = me.cast(Message::Admit(permit));
            }
        });
    }

    fn set_aside(&mut self, reason: String) {
        tracing::error!(task = %self.cx.task, reason, "the task is set aside");
        self.record(EventKind::SetAside { reason });
    }

    /// Sets the task aside because all attempts of a step were interrupted.
    pub(super) fn set_aside_interrupted(&mut self, step: &StepId, attempts: u32, failure: &Failure) {
        let message = failure.message.as_str();
        let message = &message[..message.floor_char_boundary(super::running_task::MAX_MESSAGE_BYTES)];
        self.set_aside(format!(
            "step `{}` was interrupted in {attempts} attempts in a row, last: {message}",
            step.visit
        ));
    }

    fn stalled_reason(&self) -> String {
        let steps: Vec<String> = self.task.running_steps().iter().map(|step| format!("`{}`", step.visit)).collect();
        let ran = match steps.as_slice() {
            [] => String::new(),
            steps => format!("; when it stopped, it ran {}", steps.join(", ")),
        };
        format!("it was resumed {MAX_STALLED_RESUMES} times in a row without progress{ran}")
    }

    /// Whether the graph says what happens when a visit fails: by a failure edge of it or of a visit around it, or by a
    /// fallback.
    pub(super) fn is_failure_handled(&self, visit: &Visit) -> bool {
        let mut visit = visit.without_item();
        loop {
            let has_fallback = self.cx.graph.subgraph(&visit.parents).is_some_and(|graph| graph.fallback().is_some());
            if has_fallback || !failure_edges(&self.cx.graph, &self.task, &visit).is_empty() {
                return true;
            }
            let Some((last, around)) = visit.parents.split_last() else { return false };
            visit = Visit::new(around, last.clone()).without_item();
        }
    }
}
