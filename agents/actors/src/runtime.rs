//! The public handle of the runtime.

mod answer_options;
mod caller_usage;
mod control;
mod drain;
mod engines;
mod erase;
mod error;
mod fork;
mod pooling;
mod rate;
mod resume;
mod route;
mod submission;
mod subscribe;
mod text_models;
mod tokens;
mod viewer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use artel_feedback::{FeedbackStore, RatingStore};
use artel_hosting::Loader;
use artel_hosting::ModelLookahead;
use artel_journal::{Acceptance, DamagedTask, Journal, TaskFilter, TaskPage, TaskSummary};
use artel_metrics::{Metrics, TaskCounts};
use artel_retrieval::{ExtractorProgram, Retrieval};
use artel_roles::{Catalog, NetworkRules};
use artel_stream::TaskChannels;
use artel_task::{Clock, Event, EventKind, GraphName, TaskId};
use artel_traces::Tracer;
use ractor::{Actor, ActorRef};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::response_cache::ResponseCache;
use crate::supervisor::{Message, SharedDeps, Supervisor, TaskStart};
use artel_admission::{OpenTask, TaskPlace};
use artel_routing::EmbeddingCache;

pub use drain::DrainReport;
pub use erase::EraseReport;
pub use error::Error;
pub use fork::Fork;
pub use pooling::{EmbeddedAs, SearchError, TextsRequest};
pub use rate::AnswerToRate;
pub use submission::{Candidates, PreviewOptions, Submission, Target};
pub use tokens::TokenizeError;
pub use viewer::Viewer;

use text_models::EngineTextModels;

/// Settings of a runtime.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tasks that may be open at once; each holds some kilobytes and its outputs.
    pub max_tasks: usize,
    /// Directory of model and adapter files, searched beside the directories of the YAML files that name them.
    pub models_dir: PathBuf,
    /// The graph of tasks that name neither graph nor role; by default `mentor`. If it is `auto`, and there is no such
    /// graph, the router chooses among the graphs that have examples.
    pub default_graph: Option<GraphName>,
    /// Directory of the router's embeddings for the next start. With it, the router is warmed up at the start and after a
    /// change of the catalog, while no task is busy; without it, by the first question.
    pub embedding_cache_dir: Option<PathBuf>,
    /// The index of knowledge, and the program that reads documents for it; without them, nothing is found.
    pub knowledge: Option<KnowledgeOptions>,
    /// What the catalog of a client may name when a task that started with it is resumed; without it, anything.
    pub network: Option<NetworkRules>,
    /// Directory of the prefixes that engines keep on disk: an erase deletes those that may hold the text of a caller.
    pub prefix_cache_dir: Option<PathBuf>,
    /// The feedback on decisions, from which an erase removes what was said of the tasks.
    pub feedback: Option<FeedbackStore>,
    /// The ratings of answers, from which an erase removes those of the tasks.
    pub ratings: Option<RatingStore>,
    /// The time.
    pub clock: Clock,
    /// What counts and measures; those of another runtime would count both together.
    pub metrics: Arc<Metrics>,
    /// Takes the spans of the tasks whose submission has a trace; without it, none are told.
    pub tracer: Option<Tracer>,
}

impl Default for Options {
    /// A thousand tasks: far above what a machine of this kind computes at once.
    fn default() -> Self {
        Self {
            max_tasks: 1000,
            models_dir: PathBuf::from("models"),
            default_graph: None,
            embedding_cache_dir: None,
            knowledge: None,
            network: None,
            prefix_cache_dir: None,
            feedback: None,
            ratings: None,
            clock: Clock::default(),
            metrics: Metrics::new(),
            tracer: None,
        }
    }
}

/// Where the index of knowledge is, and what fills it.
#[derive(Debug, Clone)]
pub struct KnowledgeOptions {
    /// The file of the index.
    pub index: PathBuf,
    /// The program that reads documents.
    pub extractor: ExtractorProgram,
}

/// A handle to the running actors. Clones are handles to the same runtime.
#[derive(Clone)]
pub struct Runtime {
    supervisor: ActorRef<Message>,
    shared: SharedDeps,
    catalog: Arc<RwLock<Arc<Catalog>>>,
    task_permits: Arc<Semaphore>,
    is_draining: Arc<AtomicBool>,
    /// Submissions between the journal and the supervisor.
    submissions: TaskTracker,
    catalog_lock: Arc<tokio::sync::Mutex<()>>,
    erase_lock: Arc<tokio::sync::Mutex<()>>,
    has_stopped: watch::Receiver<bool>,
    options: Arc<Options>,
}

impl Runtime {
    /// Starts the actors, completes the erases that an earlier run did not, and resumes the tasks that have no last event in the
    /// journal.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub async fn start(
        options: Options,
        catalog: Catalog,
        journal: Journal,
        loader: Arc<dyn Loader>,
    ) -> Result<Self, Error> {
        options.metrics.started_at(options.clock.system_time());
        journal.store_catalog(catalog.version(), catalog.sources().to_json()).await?;
        let embedding_cache = options.embedding_cache_dir.clone();
        let embedding_cache = embedding_cache.map(|dir| Arc::new(EmbeddingCache::new(dir, options.models_dir.clone())));
        let text_models = Arc::new(EngineTextModels::new(options.models_dir.clone(), loader.clone()));
        let retrieval = open_retrieval(options.knowledge.as_ref(), &text_models).await;
        let shared = SharedDeps {
            journal,
            retrieval,
            channels: TaskChannels::default(),
            loader,
            models_dir: options.models_dir.clone().into(),
            clock: options.clock.clone(),
            metrics: options.metrics.clone(),
            tracer: options.tracer.clone(),
            callers: Default::default(),
            running_tasks: watch::Sender::new(0),
            busy_tasks: watch::Sender::new(0),
            lookahead: ModelLookahead::default(),
            response_cache: ResponseCache::default(),
            embedding_cache,
            probation: Arc::new(Semaphore::new(1)),
        };
        let catalog = Arc::new(catalog);
        let spawned = Supervisor::spawn(None, Supervisor, (shared.clone(), catalog.clone())).await;
        let (supervisor, join) = spawned.map_err(|_| Error::Stopped)?;
        text_models.start(supervisor.clone());
        let (stopped, has_stopped) = watch::channel(false);
        tokio::spawn(async move {
            // It has stopped, whether by a panic or in order.
            let _ = join.await;
            stopped.send_replace(true);
        });
        let runtime = Self {
            supervisor,
            shared,
            catalog: Arc::new(RwLock::new(catalog)),
            task_permits: Arc::new(Semaphore::new(options.max_tasks)),
            is_draining: Arc::default(),
            submissions: TaskTracker::new(),
            catalog_lock: Arc::default(),
            erase_lock: Arc::default(),
            has_stopped,
            options: Arc::new(options),
        };
        runtime.complete_erasures().await;
        runtime.count_used_today().await?;
        runtime.resume_tasks().await?;
        runtime.warm_up_router(&runtime.catalog())?;
        runtime.keep_knowledge(&runtime.catalog());
        Ok(runtime)
    }

    /// The knowledge of the catalog; `None` if there is no index, or if it cannot be opened, which the log says.
    pub fn retrieval(&self) -> Option<&Retrieval> {
        self.shared.retrieval.as_ref()
    }

    fn keep_knowledge(&self, catalog: &Catalog) {
        if let Some(retrieval) = &self.shared.retrieval {
            retrieval.apply(catalog);
        }
    }

    /// Accepts a task. When this returns, the task is on disk and starts. It is accepted even if the caller stops waiting.
    ///
    /// # Errors
    /// [`Error::NoGraph`], [`Error::NoRole`], [`Error::NoTarget`], [`Error::AnswerOptions`], [`Error::ToolsOfGraph`],
    /// [`Error::ToolsOfRole`], [`Error::TooManyTasks`], [`Error::Quota`], [`Error::ShuttingDown`], none
    /// of them for a request id that was accepted before,
    /// and the errors of [`Journal::accept`].
    pub async fn submit(&self, submission: Submission) -> Result<TaskId, Error> {
        let this = self.clone();
        // A task of its own, so that a caller that is dropped between the journal and the supervisor loses nothing; a drain
        // waits for it.
        let accepted = self.submissions.spawn(async move { this.accept(submission).await });
        accepted.await.map_err(|_| Error::Stopped)?
    }

    async fn accept(&self, submission: Submission) -> Result<TaskId, Error> {
        if let Some(task) = self.accepted_before(&submission).await? {
            return Ok(task);
        }
        self.check_open()?;
        let open = self.shared.callers.open(&submission.owner, submission.quota, self.shared.clock.now())?;
        let catalog = self.catalog();
        let (target, decision) = self.choose_graph(&submission, &catalog).await?;
        let target = target.as_ref().unwrap_or(&submission.target);
        let (graph, role) = submission::resolve_target(target, &catalog, self.options.default_graph.as_ref())?;
        let single = role.as_ref().and_then(|name| catalog.role(name.as_str()));
        submission::check_tools(submission.tools.as_deref(), role.as_ref(), &catalog)?;
        answer_options::check(answer_options::AnswerOptions::of(&submission), single.map(Arc::as_ref)).await?;
        let place = self.place(open)?;
        let now = self.shared.clock.now();
        let event = submission::accepted_event(submission, &graph, role, catalog.version(), decision, now);
        match self.shared.journal.accept(event.clone()).await? {
            Acceptance::Existing(task) => Ok(task),
            Acceptance::New => {
                self.count_accepted(&event);
                let task = event.task;
                let (first, place) = (Some(Arc::new(event)), Some(place));
                let start = TaskStart { task, catalog, graph, first, takes_up: false, place };
                if self.start_task(start).is_err() {
                    tracing::warn!(%task, "task was accepted while the runtime stopped; it starts with the next daemon");
                }
                Ok(task)
            }
        }
    }

    /// A place for a task that its caller may open.
    fn place(&self, open: OpenTask) -> Result<TaskPlace, Error> {
        let permit = self.task_permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Error::TooManyTasks(self.options.max_tasks))?;
        Ok(TaskPlace::new(open, Some(permit)))
    }

    fn count_accepted(&self, first: &Event) {
        if let EventKind::Accepted(spec) = &first.kind {
            self.shared.metrics.tasks.accepted(spec);
        }
    }

    /// The task of the same owner that was accepted under the same request id, regardless of today's catalog and limits.
    async fn accepted_before(&self, submission: &Submission) -> Result<Option<TaskId>, Error> {
        let Some(request) = &submission.request_id else { return Ok(None) };
        let Some((task, accepted)) = self.shared.journal.find_request(&submission.owner, request).await? else {
            return Ok(None);
        };
        let reused = || artel_journal::Error::RequestReused { request: request.clone(), task };
        if submission.is_same_as(&accepted) { Ok(Some(task)) } else { Err(reused().into()) }
    }

    /// An error unless new work may start.
    fn check_open(&self) -> Result<(), Error> {
        match (self.is_draining.load(Ordering::Acquire), *self.has_stopped.borrow()) {
            (true, _) => Err(Error::ShuttingDown),
            (_, true) => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Opens the channel first, so that a client can subscribe to the task as soon as it has its id.
    fn start_task(&self, start: TaskStart) -> Result<(), Error> {
        self.shared.channels.open(start.task, start.first.as_ref());
        self.supervisor.cast(Message::StartTask(Box::new(start))).map_err(|_| Error::Stopped)
    }

    /// One page of tasks, newest first; a task whose row is damaged is an entry of its own.
    ///
    /// # Errors
    /// The errors of the journal.
    pub async fn list(
        &self,
        filter: TaskFilter,
        page: TaskPage,
    ) -> Result<Vec<Result<TaskSummary, DamagedTask>>, Error> {
        Ok(self.shared.journal.list(filter, page).await?)
    }

    /// The source of the wall time of events and reports.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The catalog that new tasks run under.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().expect("nothing panics while it holds the catalog").clone()
    }

    /// Replaces the catalog for new tasks. Running tasks keep theirs.
    ///
    /// # Errors
    /// [`Error::CatalogChanged`] if the one in use is not the expected one; the errors of the journal.
    pub async fn replace_catalog(&self, catalog: Catalog, expected: Option<&str>) -> Result<Arc<Catalog>, Error> {
        self.check_open()?;
        // One replacement at a time, so that the supervisor receives catalogs in the order in which they come into use.
        let _guard = self.catalog_lock.lock().await;
        let found = self.catalog().version().clone();
        if let Some(expected) = expected.filter(|expected| found.as_str() != *expected) {
            return Err(Error::CatalogChanged { found, expected: expected.to_owned() });
        }
        let catalog = Arc::new(catalog);
        self.shared.journal.store_catalog(catalog.version(), catalog.sources().to_json()).await?;
        *self.catalog.write().expect("nothing panics while it holds the catalog") = catalog.clone();
        self.supervisor.cast(Message::ReplaceCatalog(catalog.clone())).map_err(|_| Error::Stopped)?;
        self.warm_up_router(&catalog)?;
        self.keep_knowledge(&catalog);
        Ok(catalog)
    }

    /// Resolves with the failure since which the journal takes no writes: tasks are suspended, and new ones are refused.
    pub async fn journal_failed(&self) -> Arc<artel_journal::Error> {
        self.shared.journal.failed().await
    }

    /// Resolves when the journal has recovered from a failure, which is a full disk: then [`resume_tasks`](Self::resume_tasks).
    pub async fn journal_recovered(&self) {
        self.shared.journal.failed().await;
        self.shared.journal.writable().await;
    }

    /// Resolves while the journal takes writes.
    pub async fn journal_writable(&self) {
        self.shared.journal.writable().await;
    }

    /// What this runtime counts and measures.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// What takes the spans of tasks, if they are traced.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.shared.tracer.as_ref()
    }

    /// The open tasks at this moment.
    pub fn task_counts(&self) -> TaskCounts {
        let (open, running) = (self.running_tasks(), *self.shared.busy_tasks.borrow());
        TaskCounts { running, paused: open.saturating_sub(running), limit: self.options.max_tasks }
    }

    /// How many tasks run.
    pub fn running_tasks(&self) -> usize {
        *self.shared.running_tasks.borrow()
    }

    /// Resolves when the supervisor has stopped, and with it all actors.
    pub async fn stopped(&self) {
        // The sender is dropped only after it sent `true`.
        let _ = self.has_stopped.clone().wait_for(|has_stopped| *has_stopped).await;
    }

    /// Makes an actor panic, as a bug of ours would.
    #[cfg(test)]
    pub(crate) fn panic(&self, child: crate::supervisor::ChildId) {
        self.supervisor.cast(Message::Panic(child)).expect("the supervisor runs");
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("running_tasks", &self.running_tasks()).finish_non_exhaustive()
    }
}

/// Without an index the daemon serves all but knowledge: what is in the index can be made again.
async fn open_retrieval(options: Option<&KnowledgeOptions>, models: &Arc<EngineTextModels>) -> Option<Retrieval> {
    let KnowledgeOptions { index, extractor } = options?;
    match Retrieval::open(index, extractor.clone(), models.clone()).await {
        Ok(retrieval) => Some(retrieval),
        Err(error) => {
            tracing::error!(%error, "failed to open the index of knowledge: nothing is found in it");
            None
        }
    }
}
