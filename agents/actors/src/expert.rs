//! The expert: the actor of one role. It admits steps up to its role's limits and runs each in a task of its own.

mod idle_timeout;
mod prefetch;
mod step_deadline;
mod step_run;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_roles::template::TemplateContext;
use artel_roles::{Role, Template};
use artel_task::event::{FailureCode, TaskPriority};
use artel_task::{RoleName, StepId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::Loader;
use crate::commit_barrier::CommitBarrier;
use crate::completion::{Completion, failure};
use crate::engine_host;
use crate::events::{StepProgress, StreamItem, TaskChannel};
use crate::priority_semaphore::{Permit, PrioritySemaphore};
use crate::response_cache::ScopedResponseCache;

pub(crate) use prefetch::PrefetchTarget;
use step_deadline::{ModelWaitCounter, StepDeadline};
pub(crate) use step_run::{expected_adapter, prefix_request, role_value};

/// Runs the steps of one role.
///
/// It has no states of its own: a step's tokio task owns its permits and releases them however it ends.
pub(crate) struct Expert;

/// The requests to an expert.
pub(crate) enum Message {
    /// Runs this step on the engine of this host; the result goes to the job's completion.
    Run(Box<StepJob>, ActorRef<engine_host::Message>),
    /// Panics, as a bug would.
    #[cfg(test)]
    Panic,
}

/// One attempt at a step, with everything it needs.
pub(crate) struct StepJob {
    pub(crate) step: StepId,
    pub(crate) role: Arc<Role>,
    /// A message template that replaces the role's own.
    pub(crate) message: Option<Template>,
    /// The context of templates; without a template, the role reads its input.
    pub(crate) context: TemplateContext,
    /// From the step's start to its end, without the time in which its model is not loaded.
    pub(crate) timeout: Duration,
    /// The longest time without a token.
    pub(crate) idle_timeout: Duration,
    /// Set if the node accepts a cached response.
    pub(crate) cache: Option<ScopedResponseCache>,
    pub(crate) priority: TaskPriority,
    /// Steps of its task after this one.
    pub(crate) remaining_steps: u32,
    /// The roles that may run next: the engine keeps their prefixes.
    pub(crate) next_roles: Vec<RoleName>,
    /// The successors that read its answer as soon as it ends, on the same model.
    pub(crate) prefetch_targets: Vec<PrefetchTarget>,
    /// Fetches the role's adapter.
    pub(crate) loader: Arc<dyn Loader>,
    /// The folder in which adapters' paths are resolved.
    pub(crate) models_dir: Arc<Path>,
    pub(crate) channel: TaskChannel,
    /// Opens when the step's start is committed; nothing of the step is published before.
    pub(crate) barrier: CommitBarrier,
    pub(crate) cancel: CancellationToken,
    pub(crate) completion: Completion,
}

/// The admission queue of a role.
pub(crate) struct RoleQueue {
    /// Permits of steps that run at once.
    running: PrioritySemaphore,
    /// Permits of steps that run or wait.
    admitted: Arc<Semaphore>,
    /// Counts the running steps that wait for the model.
    model_waits: ModelWaitCounter,
    /// Steps that may wait.
    capacity: u32,
}

impl RoleQueue {
    fn new(role: &Role) -> Self {
        let (concurrency, capacity) = (role.limits.concurrency, role.limits.queue);
        let (running, model_waits) = (PrioritySemaphore::new(concurrency), ModelWaitCounter::default());
        let admitted = Arc::new(Semaphore::new(concurrency as usize + capacity as usize));
        Self { running, admitted, model_waits, capacity }
    }

    fn admit(&self, job: StepJob, host: ActorRef<engine_host::Message>) {
        match self.admitted.clone().try_acquire_owned() {
            Ok(admitted) => {
                let (running, model_waits) = (self.running.clone(), self.model_waits.clone());
                tokio::spawn(async move {
                    run(job, host, running, model_waits).await;
                    drop(admitted);
                });
            }
            Err(_) => {
                let message = format!("role `{}` has {} steps waiting, its limit", job.role.name, self.capacity);
                job.completion.send(Err(failure(FailureCode::QueueFull, message)));
            }
        }
    }
}

impl Actor for Expert {
    type Msg = Message;
    /// A queue for each pair of limits, concurrency and queue.
    type State = HashMap<(u32, u32), RoleQueue>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(HashMap::new())
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        queues: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Run(job, host) => {
                // Another version of the catalog may have other limits, and then a queue of its own.
                let limits = (job.role.limits.concurrency, job.role.limits.queue);
                queues.entry(limits).or_insert_with(|| RoleQueue::new(&job.role)).admit(*job, host);
            }
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

async fn run(
    job: StepJob,
    host: ActorRef<engine_host::Message>,
    running: PrioritySemaphore,
    model_waits: ModelWaitCounter,
) {
    let (cancel, timeout) = (job.cancel.clone(), job.timeout);
    let timed_out = || failure(FailureCode::Timeout, format!("the step took longer than {timeout:?}, its timeout"));
    let work = async {
        let prompt = job.render_prompt()?;
        if let Some(cached) = job.cached(&prompt) {
            return Ok(cached);
        }
        let mut deadline = StepDeadline::new(timeout, job.barrier.clone());
        let ready = async { (acquire(&job, &running).await, job.engine(&host, &model_waits).await) };
        let (_permit, engine) = deadline.run_pausing(&model_waits, ready).await.ok_or_else(timed_out)?;
        deadline.run(job.run(engine?, prompt)).await.ok_or_else(timed_out)?
    };
    let result = tokio::select! {
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
async fn acquire(job: &StepJob, running: &PrioritySemaphore) -> Permit {
    let (mut request, mut published) = (running.request(job.priority, job.remaining_steps), None::<u32>);
    loop {
        if let Ok(permit) = tokio::time::timeout(step_run::PROGRESS_INTERVAL, request.granted()).await {
            return permit;
        }
        let position = request.position();
        if published != Some(position) && job.publish_progress(StepProgress::Queued { position }) {
            published = Some(position);
        }
    }
}

impl StepJob {
    /// Publishes the progress of the step; false if its start is not committed yet.
    fn publish_progress(&self, progress: StepProgress) -> bool {
        let is_committed = self.barrier.since_commit().is_some();
        if is_committed {
            let (step, role): (StepId, RoleName) = (self.step.clone(), self.role.name.clone());
            self.channel.send(StreamItem::Progress { step, role, progress });
        }
        is_committed
    }
}
