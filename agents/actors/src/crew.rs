//! What everybody else holds of the crew.

mod engines;
mod fork;
mod resume;
mod route;
mod steer;
mod submission;
mod watching;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use artel_journal::{Acceptance, Filter, Journal, Page, Summary};
use artel_roles::Catalog;
use artel_task::event::Failure;
use artel_task::{CatalogVersion, GraphName, Seq, TaskId};
use ractor::{Actor, ActorRef, call};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::Loader;
use crate::ahead::Ahead;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::feed::Feeds;
use crate::keeper;
use crate::router::Kept;
use crate::supervisor::{Begin, Links, Message, Supervisor};

pub use fork::Fork;
pub use submission::{Candidates, Listening, Submission, Target};

/// How long engines may take to end when the daemon stops: a batch of a large model on a slow machine.
const ENGINES_END: Duration = Duration::from_secs(10);

/// How a crew behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tasks that may be open at once; each holds some kilobytes and its outputs.
    pub tasks: usize,
    /// Where model and adapter files are looked for, beside the directories of the YAML files that name them.
    pub models: PathBuf,
    /// The graph of tasks that name neither graph nor role; by default `mentor`. If it is `auto`, and there is no such
    /// graph, the router chooses among the graphs that have examples.
    pub graph: Option<GraphName>,
    /// Where the vectors of texts that routers compare are kept for the next start. Then they are learned at the start and
    /// after a change of the catalog, while no task is busy; without it, when the first question comes.
    pub vectors: Option<PathBuf>,
    /// What time it is.
    pub clock: Clock,
}

impl Default for Options {
    /// A thousand tasks: far above what a machine of this kind computes at once.
    fn default() -> Self {
        Self { tasks: 1000, models: PathBuf::from("models"), graph: None, vectors: None, clock: Clock::default() }
    }
}

/// Why the crew cannot do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such graph.
    #[error("there is no graph `{name}`")]
    NoGraph {
        /// What was asked for.
        name: String,
    },
    /// No such role.
    #[error("there is no role `{name}`")]
    NoRole {
        /// What was asked for.
        name: String,
    },
    /// No such model.
    #[error("there is no model `{name}`")]
    NoModel {
        /// What was asked for.
        name: String,
    },
    /// No such node, or it is no router.
    #[error("graph `{graph}` has no router node `{node}`")]
    NoRouter {
        /// The graph.
        graph: String,
        /// What was asked for.
        node: String,
    },
    /// Neither graph nor role were named, and there is no default.
    #[error("neither a graph nor a role is named, and the catalog has no graph `mentor`")]
    NoTarget,
    /// There is nobody to choose from.
    #[error("no role has examples, so there is nobody to choose from")]
    NoCandidates,
    /// No such task, or it is no longer kept.
    #[error("there is no task {0}, or it is no longer kept")]
    NoTask(TaskId),
    /// No such step in this task.
    #[error("task {task} has no step `{step}`")]
    NoStep {
        /// Which task.
        task: TaskId,
        /// What was asked for.
        step: String,
    },
    /// The step does not wait for an answer, or no longer.
    #[error("{}", not_waiting(.task, .step.as_deref()))]
    NotWaiting {
        /// Which task.
        task: TaskId,
        /// Which step, if one was named.
        step: Option<String>,
    },
    /// Several steps wait, and none is named.
    #[error("several steps of task {task} wait for an answer; name one of {}", .steps.join(", "))]
    SeveralWait {
        /// Which task.
        task: TaskId,
        /// The steps.
        steps: Vec<String>,
    },
    /// The answer is not what was asked for.
    #[error("{0}")]
    BadAnswer(String),
    /// The catalog cannot run on from where the old task stood.
    #[error("task {task} cannot be forked: {why}")]
    Unsuitable {
        /// The old task.
        task: TaskId,
        /// Why.
        why: String,
    },
    /// The number is beyond the task's last event.
    #[error("task {task} has {last} events, not {after}", last = .last.0, after = .after.0)]
    SeqOutOfRange {
        /// Which task.
        task: TaskId,
        /// Its last event.
        last: Seq,
        /// What was asked for.
        after: Seq,
    },
    /// The journal failed while the task ran.
    #[error("task {0} rests, because the daemon's journal failed; it goes on after the next start")]
    Rests(TaskId),
    /// Too many tasks are open.
    #[error("{0} tasks are open, the daemon's limit")]
    TooManyTasks(usize),
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// The router could not decide, or the model could not be loaded.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The model would not fit even if nothing else were loaded: what it needs where, and what would help.
    #[error("{0}")]
    NoRoom(String),
    /// The catalog is another than the caller believed.
    #[error("the catalog is at version {}, not {expected}", .found.as_str())]
    CatalogChanged {
        /// The version that serves.
        found: CatalogVersion,
        /// What the caller believed.
        expected: String,
    },
    /// The journal refused or failed.
    #[error("failed to {0}")]
    Journal(#[from] artel_journal::Error),
    /// The supervisor has ended.
    #[error("the crew has ended")]
    Ended,
}

fn not_waiting(task: &TaskId, step: Option<&str>) -> String {
    match step {
        Some(step) => format!("step `{step}` of task {task} does not wait for an answer, or no longer"),
        None => format!("no step of task {task} waits for an answer"),
    }
}

/// A running crew. Clones are the same crew.
#[derive(Clone)]
pub struct Crew {
    supervisor: ActorRef<Message>,
    links: Links,
    catalog: Arc<RwLock<Arc<Catalog>>>,
    slots: Arc<Semaphore>,
    closing: Arc<AtomicBool>,
    /// Submissions between the journal and the supervisor.
    accepting: TaskTracker,
    serving: Arc<tokio::sync::Mutex<()>>,
    ended: watch::Receiver<bool>,
    options: Arc<Options>,
}

impl Crew {
    /// Starts the crew and takes up the tasks that the journal has not seen end.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub async fn start(
        options: Options,
        catalog: Catalog,
        journal: Journal,
        loader: Arc<dyn Loader>,
    ) -> Result<Self, Error> {
        journal.keep_catalog(catalog.version(), catalog.sources().to_json()).await?;
        let kept = options.vectors.clone().map(|dir| Arc::new(Kept::new(dir, options.models.clone())));
        let links = Links {
            journal,
            feeds: Feeds::default(),
            loader,
            models: options.models.clone().into(),
            clock: options.clock.clone(),
            running: watch::Sender::new(0),
            busy: watch::Sender::new(0),
            ahead: Ahead::default(),
            cache: Cache::default(),
            vectors: kept,
        };
        let catalog = Arc::new(catalog);
        let spawned = Supervisor::spawn(None, Supervisor, (links.clone(), catalog.clone())).await;
        let (supervisor, life) = spawned.map_err(|_| Error::Ended)?;
        let (end, ended) = watch::channel(false);
        tokio::spawn(async move {
            // Whatever ended it, it is gone.
            let _ = life.await;
            end.send_replace(true);
        });
        let crew = Self {
            supervisor,
            links,
            catalog: Arc::new(RwLock::new(catalog)),
            slots: Arc::new(Semaphore::new(options.tasks)),
            closing: Arc::default(),
            accepting: TaskTracker::new(),
            serving: Arc::default(),
            ended,
            options: Arc::new(options),
        };
        crew.resume().await?;
        crew.learn_ahead(&crew.catalog())?;
        Ok(crew)
    }

    /// Takes a task in. When this returns, the task is on disk and begins. The work goes on if the caller goes away.
    ///
    /// # Errors
    /// [`Error::NoGraph`], [`Error::NoRole`], [`Error::NoTarget`], [`Error::TooManyTasks`], [`Error::ShuttingDown`], none
    /// of them for a request id that was accepted before,
    /// and what [`Journal::accept`] says.
    pub async fn submit(&self, submission: Submission) -> Result<TaskId, Error> {
        let this = self.clone();
        // Between the journal and the supervisor nothing may be lost, even if the caller is; a drain waits for it.
        let accepted = self.accepting.spawn(async move { this.accept(submission).await });
        accepted.await.map_err(|_| Error::Ended)?
    }

    async fn accept(&self, submission: Submission) -> Result<TaskId, Error> {
        if let Some(known) = self.known(&submission).await? {
            return Ok(known);
        }
        self.is_open()?;
        let catalog = self.catalog();
        let (target, decision) = self.choose_graph(&submission, &catalog).await?;
        let target = target.as_ref().unwrap_or(&submission.target);
        let (graph, role) = submission::target(target, &catalog, self.options.graph.as_ref())?;
        let permit = self.slots.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Error::TooManyTasks(self.options.tasks))?;
        let event = submission::accepted(submission, &graph, role, catalog.version(), decision, self.links.clock.now());
        match self.links.journal.accept(event.clone()).await? {
            Acceptance::Known(task) => Ok(task),
            Acceptance::New => {
                let task = event.task;
                let begin = Begin { task, catalog, graph, first: Some(Arc::new(event)), permit: Some(permit) };
                if self.begin(begin).is_err() {
                    tracing::warn!(%task, "accepted while the crew ended; the task begins at the next start");
                }
                Ok(task)
            }
        }
    }

    /// The task that was accepted under the same request id, whatever the catalog and the limits are by now.
    async fn known(&self, submission: &Submission) -> Result<Option<TaskId>, Error> {
        let Some(request) = &submission.request else { return Ok(None) };
        let Some((task, accepted)) = self.links.journal.request(request).await? else { return Ok(None) };
        let reused = || artel_journal::Error::RequestReused { request: request.clone(), task };
        if submission.asks_for(&accepted) { Ok(Some(task)) } else { Err(reused().into()) }
    }

    /// Whether anything new may begin.
    fn is_open(&self) -> Result<(), Error> {
        match (self.closing.load(Ordering::Acquire), *self.ended.borrow()) {
            (true, _) => Err(Error::ShuttingDown),
            (_, true) => Err(Error::Ended),
            _ => Ok(()),
        }
    }

    /// Opens the feed first, so that whoever hears of the task can watch it.
    fn begin(&self, begin: Begin) -> Result<(), Error> {
        self.links.feeds.open(begin.task, begin.first.as_ref());
        self.supervisor.cast(Message::Begin(Box::new(begin))).map_err(|_| Error::Ended)
    }

    /// One page of tasks, newest first.
    ///
    /// # Errors
    /// What the journal says.
    pub async fn list(&self, filter: Filter, page: Page) -> Result<Vec<Summary>, Error> {
        Ok(self.links.journal.list(filter, page).await?)
    }

    /// The catalog that new tasks run under.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().expect("nothing panics while it holds the catalog").clone()
    }

    /// Serves another catalog from now on. Tasks that run keep theirs.
    ///
    /// # Errors
    /// [`Error::CatalogChanged`] if the one that serves is not the expected one; what the journal says.
    pub async fn serve(&self, catalog: Catalog, expected: Option<&str>) -> Result<Arc<Catalog>, Error> {
        self.is_open()?;
        // One after the other, so that the supervisor hears of catalogs in the order in which they serve.
        let _turn = self.serving.lock().await;
        let found = self.catalog().version().clone();
        if let Some(expected) = expected.filter(|expected| found.as_str() != *expected) {
            return Err(Error::CatalogChanged { found, expected: expected.to_owned() });
        }
        let catalog = Arc::new(catalog);
        self.links.journal.keep_catalog(catalog.version(), catalog.sources().to_json()).await?;
        *self.catalog.write().expect("nothing panics while it holds the catalog") = catalog.clone();
        self.supervisor.cast(Message::Serve(catalog.clone())).map_err(|_| Error::Ended)?;
        self.learn_ahead(&catalog)?;
        Ok(catalog)
    }

    /// Resolves with the failure since which the journal takes no more: tasks rest, and new ones are refused.
    pub async fn broken(&self) -> Arc<artel_journal::Error> {
        self.links.journal.broken().await
    }

    /// Resolves when the journal has got over a failure, which is that its disk was full: then [`take_up`](Self::take_up).
    pub async fn recovered(&self) {
        self.links.journal.broken().await;
        self.links.journal.whole().await;
    }

    /// Takes up the tasks that rest since the journal failed.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub async fn take_up(&self) -> Result<(), Error> {
        self.resume().await
    }

    /// Resolves while the journal takes writes.
    pub async fn whole(&self) {
        self.links.journal.whole().await;
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        *self.links.running.borrow()
    }

    /// Resolves when the supervisor has ended, which is the end of the crew.
    pub async fn ended(&self) {
        // The other end is dropped only after it said so.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Takes no more tasks, gives those that run so much time, leaves the rest for the next start, ends the engines and
    /// closes the journal. Says how many tasks were left.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.closing.store(true, Ordering::Release);
        self.accepting.close();
        self.accepting.wait().await;
        // Whoever thinks about an answer may go on doing so while the daemon is away.
        let mut running = self.links.busy.subscribe();
        // A crew that ended by itself has nothing to wait for.
        let idle = async { running.wait_for(|running| *running == 0).await.map(|_| ()).unwrap_or_default() };
        tokio::select! {
            _ = tokio::time::timeout(grace, idle) => {}
            () = self.ended() => {}
        }
        let left = self.running();
        let engines = self.handles().await;
        // Conductors are children of the supervisor and stop with it; what they put on disk stays there.
        let _ = self.supervisor.stop_and_wait(None, None).await;
        self.links.feeds.close_all();
        let closed = futures::future::join_all(engines.iter().map(artel_engine::EngineHandle::close));
        if tokio::time::timeout(ENGINES_END, closed).await.is_err() {
            tracing::warn!("an engine did not end within {ENGINES_END:?}");
        }
        self.links.journal.clone().close().await;
        left
    }

    async fn handles(&self) -> Vec<artel_engine::EngineHandle> {
        let Ok(keepers) = call!(self.supervisor, Message::Keepers) else { return Vec::new() };
        let mut handles = Vec::new();
        for keeper in keepers {
            handles.extend(call!(keeper, keeper::Message::Unload).ok().flatten());
        }
        handles
    }

    /// Has an actor panic, as a fault of ours would.
    #[cfg(test)]
    pub(crate) fn panic(&self, who: crate::supervisor::Who) {
        self.supervisor.cast(Message::Panic(who)).expect("the supervisor lives");
    }
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew").field("running", &self.running()).finish_non_exhaustive()
    }
}
