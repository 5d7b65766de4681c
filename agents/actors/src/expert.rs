//! The expert: the actor of one role. It admits steps up to its role's limits and runs each in a task of its own.

mod answers;
mod grounding;
mod idle_timeout;
mod prefetch;
mod prefetch_target;
mod rendered_prompt;
mod request_span;
mod role_queue;
mod step_deadline;
mod step_job;
mod step_run;
mod streamed_calls;
mod streamed_output;

use artel_hosting::engine_host;
use artel_stream::StepProgress;
use artel_task::event::{Failure, FailureCode};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::Instrument as _;

use artel_admission::Permit;

use role_queue::AdmittedStep;
use step_deadline::StepDeadline;
use step_job::PROGRESS_INTERVAL;

pub(crate) use grounding::{NOTHING_FOUND, cited_in};
pub(crate) use prefetch_target::PrefetchTarget;
pub(crate) use rendered_prompt::StepPrompt;
pub(crate) use role_queue::{QueueLimits, RoleQueue};
pub(crate) use step_job::StepJob;

/// Runs the steps of one role, those of every version of the catalog in the same queue.
///
/// It has no states of its own: a step's tokio task owns its place in the queue and its permit, and releases them however it
/// ends. The queue is the supervisor's, which gives it the limits of the newest catalog.
pub(crate) struct Expert;

/// The requests to an expert.
pub(crate) enum Message {
    /// Runs this step on the engine of this host; the result goes to the job's completion.
    Run(Box<StepJob>, ActorRef<engine_host::Message>),
    /// Panics, as a bug would.
    #[cfg(test)]
    Panic,
}

impl Actor for Expert {
    type Msg = Message;
    type State = RoleQueue;
    type Arguments = RoleQueue;

    async fn pre_start(&self, _: ActorRef<Message>, queue: RoleQueue) -> Result<RoleQueue, ActorProcessingErr> {
        Ok(queue)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        queue: &mut RoleQueue,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Run(job, host) => match queue.admit() {
                Ok(admitted) => {
                    let span = job.span();
                    tokio::spawn(run(*job, host, admitted).instrument(span));
                }
                Err(full) => {
                    job.metrics.found_queue_full();
                    let message = format!("role `{}` {full}", job.role.name);
                    job.completion.send(Err(Failure::new(FailureCode::QueueFull, message)));
                }
            },
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

async fn run(job: StepJob, host: ActorRef<engine_host::Message>, admitted: AdmittedStep) {
    let (cancel, timeout) = (job.cancel.clone(), job.timeout);
    let timed_out =
        || Failure::new(FailureCode::Timeout, format!("the step took longer than {timeout:?}, its timeout"));
    let model_waits = admitted.model_waits();
    let work = async {
        let mut deadline = StepDeadline::new(timeout, job.barrier.clone());
        let found = deadline.run_pausing(model_waits, job.find_passages()).await.ok_or_else(timed_out)??;
        let prompt = job.prompt().render_prompt(&found)?;
        if let Some(known) = job.refused_answer(&found).or_else(|| job.cached(&prompt)) {
            return Ok(known);
        }
        let ready = async {
            let permit = acquire(&job, &admitted).await;
            let running = job.metrics.running_step();
            ((permit, running), job.engine(&host, model_waits).await)
        };
        let (_permit, engine) = deadline.run_pausing(model_waits, ready).await.ok_or_else(timed_out)?;
        deadline.run(job.run(engine?, prompt, &found)).await.ok_or_else(timed_out)?
    };
    let result = tokio::select! {
        // A step that is cancelled publishes nothing more.
        biased;
        () = cancel.cancelled() => None,
        result = work => Some(result),
    };
    match result {
        // The task runner that cancelled the step expects no completion.
        None => job.completion.discard(),
        Some(result) => job.completion.send(result),
    }
}

/// Waits for a permit and publishes the position in the queue. Each step polls its own position: waking all of a long queue
/// whenever one leaves it would cost more than the steps themselves.
async fn acquire(job: &StepJob, admitted: &AdmittedStep) -> Permit {
    let _waiting = job.metrics.waiting_step();
    let (mut request, mut published) = (admitted.request_permit(job.priority, job.remaining_steps), None::<u32>);
    loop {
        if let Ok(permit) = tokio::time::timeout(PROGRESS_INTERVAL, request.granted()).await {
            return permit;
        }
        let position = request.position();
        if published != Some(position) && job.publish_progress(StepProgress::Queued { position }) {
            published = Some(position);
        }
    }
}
