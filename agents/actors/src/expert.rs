//! The expert: one per role. It admits steps up to its role's limits and runs each in a task of its own.

mod allowance;
mod along;
mod silence;
mod work;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_roles::template::TemplateContext;
use artel_roles::{Role, Template};
use artel_task::event::{TaskPriority, FailureCode};
use artel_task::{RoleName, StepId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::Loader;
use crate::begun::Begun;
use crate::cache::Earlier;
use crate::feed::{Feed, Live, Stage};
use crate::keeper;
use crate::line::{Line, Place};
use crate::report::{Report, failure};

use allowance::{Allowance, Loading};
pub(crate) use along::Reader;
pub(crate) use work::{described, lane, opening};

/// Runs the steps of one role.
///
/// It has no states of its own: places are permits, and a step's work owns its permit until it ends, however it ends.
pub(crate) struct Expert;

/// What an expert is asked.
pub(crate) enum Message {
    /// Do this step on the engine of this keeper; the job's report says how it went.
    Work(Box<Job>, ActorRef<keeper::Message>),
    /// Panic, as a fault of ours would.
    #[cfg(test)]
    Panic,
}

/// One step to do.
pub(crate) struct Job {
    pub(crate) step: StepId,
    pub(crate) role: Arc<Role>,
    /// A message template that replaces the role's own.
    pub(crate) message: Option<Template>,
    /// What templates see; without a template, the role reads its input.
    pub(crate) context: TemplateContext,
    /// From the step's start to its end, but for the time in which its model is not there.
    pub(crate) timeout: Duration,
    /// The longest time without a token.
    pub(crate) idle: Duration,
    /// Where earlier answers are, if one of them will do.
    pub(crate) cache: Option<Earlier>,
    pub(crate) class: TaskPriority,
    /// Steps that its task must do after this one.
    pub(crate) left: u32,
    /// The roles that may work next: what they begin with is worth keeping.
    pub(crate) next: Vec<RoleName>,
    /// Who will read its answer as soon as that is there, on the same model.
    pub(crate) readers: Vec<Reader>,
    /// Who fetches adapters.
    pub(crate) loader: Arc<dyn Loader>,
    /// Where adapters are looked for.
    pub(crate) models: Arc<Path>,
    pub(crate) feed: Feed,
    /// Whether others may hear of the step.
    pub(crate) begun: Begun,
    pub(crate) cancel: CancellationToken,
    pub(crate) report: Report,
}

/// The places of a role.
pub(crate) struct Places {
    /// Places of steps that run at once.
    line: Line,
    /// Steps that run or wait.
    admitted: Arc<Semaphore>,
    /// Those of the running ones that wait for the model.
    loading: Loading,
    limits: (u32, u32),
}

impl Places {
    fn of(role: &Role) -> Self {
        let (concurrency, queue) = (role.limits.concurrency, role.limits.queue);
        let admitted = Arc::new(Semaphore::new(concurrency as usize + queue as usize));
        Self { line: Line::new(concurrency), loading: Loading::default(), admitted, limits: (concurrency, queue) }
    }

    fn admit(&self, job: Job, keeper: ActorRef<keeper::Message>) {
        match self.admitted.clone().try_acquire_owned() {
            Ok(admitted) => {
                let (line, loading) = (self.line.clone(), self.loading.clone());
                tokio::spawn(async move {
                    perform(job, keeper, line, loading).await;
                    drop(admitted);
                });
            }
            Err(_) => {
                let message = format!("role `{}` has {} steps waiting, its limit", job.role.name, self.limits.1);
                job.report.send(Err(failure(FailureCode::QueueFull, message)));
            }
        }
    }
}

impl Actor for Expert {
    type Msg = Message;
    type State = HashMap<(u32, u32), Places>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(HashMap::new())
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        places: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Work(job, keeper) => {
                // Another version of the catalog may have other limits, and places of its own.
                let limits = (job.role.limits.concurrency, job.role.limits.queue);
                places.entry(limits).or_insert_with(|| Places::of(&job.role)).admit(*job, keeper);
            }
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

async fn perform(job: Job, keeper: ActorRef<keeper::Message>, line: Line, loading: Loading) {
    let (cancel, timeout) = (job.cancel.clone(), job.timeout);
    let late = || failure(FailureCode::Timeout, format!("the step took longer than {timeout:?}, its timeout"));
    let work = async {
        let words = job.words()?;
        if let Some(earlier) = job.earlier(&words) {
            return Ok(earlier);
        }
        let mut allowance = Allowance::new(timeout, job.begun.clone());
        let ready = async { (queue(&job, &line).await, job.engine(&keeper, &loading).await) };
        let (_place, engine) = allowance.before(&loading, ready).await.ok_or_else(late)?;
        allowance.during(job.work(engine?, words)).await.ok_or_else(late)?
    };
    let result = tokio::select! {
        () = cancel.cancelled() => None,
        result = work => Some(result),
    };
    match result {
        // Whoever cancelled has no use for a report.
        None => job.report.forget(),
        Some(result) => job.report.send(result),
    }
}

/// Waits for a place, and says where in the line it waits. Whoever waits looks at the line by itself: to wake all of a long
/// line whenever somebody leaves it would be more work than the steps are.
async fn queue(job: &Job, line: &Line) -> Place {
    let (mut waiting, mut shown) = (line.join(job.class, job.left), None::<u32>);
    loop {
        if let Ok(place) = tokio::time::timeout(work::PROGRESS_EVERY, waiting.place()).await {
            return place;
        }
        let position = waiting.position();
        if shown != Some(position) && job.progress(Stage::Queued { position }) {
            shown = Some(position);
        }
    }
}

impl Job {
    /// Says how far it is. False if nobody may hear of the step yet.
    fn progress(&self, stage: Stage) -> bool {
        let is_heard = self.begun.age().is_some();
        if is_heard {
            let (step, role): (StepId, RoleName) = (self.step.clone(), self.role.name.clone());
            self.feed.send(Live::Progress { step, role, stage });
        }
        is_heard
    }
}
