//! The supervisor: starts all other actors, and restarts them.

mod registry;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use artel_journal::Journal;
use artel_roles::{Catalog, Model};
use artel_task::event::{Decision, Failure, FailureCode};
use artel_task::{Event, EventKind, Graph, RoleName, StepId, TaskId};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::clock::Clock;
use crate::completion::failure;
use crate::events::TaskChannels;
use crate::lookahead::ModelLookahead;
use crate::response_cache::ResponseCache;
use crate::router::{EmbeddingCache, RoutingRequest};
use crate::task_runner::{self, Answer, AnswerRejection, TaskContext, TaskRunner};
use crate::{Loader, expert, router};
use crate::{engine_host, model_scheduler};
use registry::ActorRegistry;

/// How often a task's runner is restarted after a panic; then the task fails.
pub const MAX_TASK_RESTARTS: u32 = 3;

/// Starts task runners, experts, engine hosts and the router when they are first needed, and again after a panic.
///
/// It has one state. It awaits only the start of other actors, which do their work after that.
pub(crate) struct Supervisor;

/// Messages of the supervisor.
pub(crate) enum Message {
    /// Starts the runner of a task that is on disk.
    StartTask(Box<TaskStart>),
    /// Sends a step to the expert of its role, with the engine host of this model.
    RunStep(Box<expert::StepJob>, Arc<Model>),
    /// Replies with the router's decision.
    Route(Box<RoutingRequest>, RpcReplyPort<Result<Decision, Failure>>),
    /// Has the router embed the candidates of these requests before the first question.
    WarmUpRouter(Vec<RoutingRequest>),
    /// Cancels a task and replies whether that is on disk; false at once for a task that does not run.
    CancelTask { task: TaskId, reason: String, reply: RpcReplyPort<bool> },
    /// Cancels one step of a task, as [`task_runner::Message::CancelStep`] does; replies `None` at once for a task that does
    /// not run.
    CancelStep { task: TaskId, step: StepId, reason: String, reply: RpcReplyPort<Option<bool>> },
    /// Passes a person's answer to a task; rejects it at once if the task does not run.
    AnswerStep { task: TaskId, step: Option<StepId>, answer: Answer, reply: RpcReplyPort<Result<(), AnswerRejection>> },
    /// Sets whether a task is idle, that is, waits for answers of people only: a daemon that stops need not wait for it.
    SetIdle(TaskId, bool),
    /// New tasks run under this catalog from now on: releases actors that are no longer needed.
    ReplaceCatalog(Arc<Catalog>),
    /// Replies with the engine host of a model.
    EngineHost(Arc<Model>, RpcReplyPort<ActorRef<engine_host::Message>>),
    /// Replies with the model scheduler.
    ModelScheduler(RpcReplyPort<ActorRef<model_scheduler::Message>>),
    /// Replies with all engine hosts.
    EngineHosts(RpcReplyPort<Vec<ActorRef<engine_host::Message>>>),
    /// Makes one of the children panic, or the supervisor itself.
    #[cfg(test)]
    Panic(ChildId),
}

/// A task to start.
pub(crate) struct TaskStart {
    pub(crate) task: TaskId,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) graph: Arc<Graph>,
    /// The first event of a new task; a task that is resumed is read from the journal.
    pub(crate) first: Option<Arc<Event>>,
    /// Its share of the limit of open tasks.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// A supervised actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChildId {
    TaskRunner(TaskId),
    Expert(RoleName),
    Router,
    EngineHost(Arc<Model>),
    ModelScheduler,
    #[cfg(test)]
    Supervisor,
}

/// Dependencies that all actors share.
#[derive(Clone)]
pub(crate) struct SharedDeps {
    pub(crate) journal: Journal,
    pub(crate) channels: TaskChannels,
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) models_dir: Arc<Path>,
    pub(crate) clock: Clock,
    pub(crate) running_tasks: watch::Sender<usize>,
    /// Running tasks that are not idle.
    pub(crate) busy_tasks: watch::Sender<usize>,
    pub(crate) lookahead: ModelLookahead,
    pub(crate) response_cache: ResponseCache,
    pub(crate) embedding_cache: Option<Arc<EmbeddingCache>>,
}

/// A task that runs.
struct SupervisedTask {
    runner: ActorRef<task_runner::Message>,
    cx: TaskContext,
    restarts: u32,
    permit: Option<OwnedSemaphorePermit>,
}

pub(crate) struct State {
    shared: SharedDeps,
    tasks: HashMap<TaskId, SupervisedTask>,
    /// Those of them that wait for answers of people only.
    idle: HashSet<TaskId>,
    /// Running tasks that are resumed once their runner stops: it may be about to, since the journal was full.
    resume_after_stop: HashMap<TaskId, TaskStart>,
    registry: ActorRegistry,
    catalog: Arc<Catalog>,
    /// The children by actor, to know which one stopped.
    children: HashMap<ActorId, ChildId>,
}

impl Actor for Supervisor {
    type Msg = Message;
    type State = State;
    type Arguments = (SharedDeps, Arc<Catalog>);

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        (shared, catalog): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State {
            shared,
            tasks: HashMap::new(),
            idle: HashSet::new(),
            resume_after_stop: HashMap::new(),
            registry: ActorRegistry::default(),
            catalog,
            children: HashMap::new(),
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::StartTask(start) => state.start_task(&me, *start).await,
            Message::RunStep(job, model) => state.run_step(&me, job, model).await,
            Message::Route(request, reply) => state.route(&me, request, reply).await,
            Message::WarmUpRouter(requests) => {
                if let Err(error) = state.warm_up_router(&me, requests).await {
                    tracing::warn!(%error, "failed to warm up the router: the first question embeds the roles");
                }
            }
            Message::CancelTask { task, reason, reply } => state.cancel_task(task, reason, reply),
            Message::CancelStep { task, step, reason, reply } => match state.tasks.get(&task) {
                Some(running) => {
                    drop(running.runner.cast(task_runner::Message::CancelStep { step, reason, reply }));
                }
                None => send_reply(reply, None),
            },
            Message::AnswerStep { task, step, answer, reply } => match state.tasks.get(&task) {
                Some(running) => {
                    drop(running.runner.cast(task_runner::Message::Answer { step, answer, reply }));
                }
                None => send_reply(reply, Err(AnswerRejection::NotWaiting)),
            },
            Message::SetIdle(task, is_idle) => state.set_idle(task, is_idle),
            Message::ReplaceCatalog(catalog) => state.replace_catalog(catalog),
            Message::EngineHost(model, reply) => send_reply(reply, state.engine_host(&me, &model).await?),
            Message::ModelScheduler(reply) => send_reply(reply, state.model_scheduler(&me).await?),
            Message::EngineHosts(reply) => send_reply(reply, state.registry.engine_hosts()),
            #[cfg(test)]
            Message::Panic(child) => state.panic(&child),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, ..) => state.child_stopped(&me, cell.get_id(), None).await,
            SupervisionEvent::ActorFailed(cell, error) => {
                state.child_stopped(&me, cell.get_id(), Some(error.to_string())).await;
            }
            _ => {}
        }
        Ok(())
    }
}

impl State {
    async fn start_task(&mut self, me: &ActorRef<Message>, start: TaskStart) {
        // Of the tasks that are resumed, some were never suspended.
        if self.tasks.contains_key(&start.task) {
            self.resume_after_stop.insert(start.task, TaskStart { permit: None, ..start });
            return;
        }
        let TaskStart { task, catalog, graph, first, permit } = start;
        let SharedDeps { journal, channels, loader, models_dir, clock, lookahead, response_cache, .. } =
            self.shared.clone();
        let (channel, supervisor) = (channels.open(task, first.as_ref()), me.clone());
        let cx = TaskContext {
            task,
            catalog,
            graph,
            first,
            journal,
            channel,
            supervisor,
            loader,
            models_dir,
            lookahead,
            response_cache,
            clock,
        };
        self.spawn_runner(me, cx, 0, permit).await;
    }

    async fn spawn_runner(
        &mut self,
        me: &ActorRef<Message>,
        cx: TaskContext,
        restarts: u32,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let task = cx.task;
        match TaskRunner::spawn_linked(None, TaskRunner, cx.clone(), me.get_cell()).await {
            Ok((runner, _)) => {
                self.children.insert(runner.get_id(), ChildId::TaskRunner(task));
                // A restarted runner reads the journal.
                let cx = TaskContext { first: None, ..cx };
                self.tasks.insert(task, SupervisedTask { runner, cx, restarts, permit });
            }
            Err(error) => tracing::error!(%task, %error, "failed to start the task's runner: the task is suspended"),
        }
        self.publish_counts();
    }

    async fn run_step(&mut self, me: &ActorRef<Message>, job: Box<expert::StepJob>, model: Arc<Model>) {
        match (self.engine_host(me, &model).await, self.expert(me, &job.role.name).await) {
            (Ok(host), Ok(expert)) => {
                // An expert that has just stopped drops the job, whose completion reports the interruption.
                let _ = expert.cast(expert::Message::Run(job, host));
            }
            (Err(error), _) | (_, Err(error)) => {
                job.completion.send(Err(failure(FailureCode::Internal, error.to_string())));
            }
        }
    }

    async fn route(
        &mut self,
        me: &ActorRef<Message>,
        request: Box<RoutingRequest>,
        reply: RpcReplyPort<Result<Decision, Failure>>,
    ) {
        match (self.router_engines(me, &request).await, self.router(me).await) {
            (Ok(engines), Ok(router)) => {
                // A router that has just stopped drops the port, which the caller notices.
                let _ = router.cast(router::Message::Decide(request, engines, reply));
            }
            (Err(error), _) | (_, Err(error)) => {
                send_reply(reply, Err(failure(FailureCode::Internal, error.to_string())));
            }
        }
    }

    fn cancel_task(&self, task: TaskId, reason: String, reply: RpcReplyPort<bool>) {
        match self.tasks.get(&task) {
            // A task runner that has just stopped drops the port, which the caller notices.
            Some(running) => drop(running.runner.cast(task_runner::Message::Cancel { reason, reply })),
            None => send_reply(reply, false),
        }
    }

    fn replace_catalog(&mut self, catalog: Arc<Catalog>) {
        self.catalog = catalog;
        self.registry.release_experts(|role| self.catalog.role(role.as_str()).is_some());
        self.release_engine_hosts();
        self.update_workloads();
    }

    /// Releases the engines of models that neither the catalog nor a running task has.
    fn release_engine_hosts(&mut self) {
        let (catalog, tasks) = (&self.catalog, &self.tasks);
        self.registry.release_engine_hosts(|model| {
            catalog.uses_model(model) || tasks.values().any(|running| running.cx.catalog.uses_model(model))
        });
    }

    /// A child has stopped, by panic if there is an error.
    async fn child_stopped(&mut self, me: &ActorRef<Message>, id: ActorId, error: Option<String>) {
        let Some(child) = self.children.remove(&id) else { return };
        if let Some(error) = &error {
            tracing::error!(?child, error, "an actor failed");
        }
        match child {
            ChildId::TaskRunner(task) => match error {
                None => self.task_stopped(me, task).await,
                Some(error) => self.restart_task(me, task, error).await,
            },
            // These are started when next needed.
            ChildId::Expert(role) => self.registry.remove_expert(&role, id),
            ChildId::Router => self.registry.remove_router(),
            ChildId::ModelScheduler => self.replace_model_scheduler(me).await,
            ChildId::EngineHost(model) => self.registry.remove_engine_host(&model, id),
            #[cfg(test)]
            ChildId::Supervisor => {}
        }
    }

    /// The task has ended, or is suspended.
    async fn task_stopped(&mut self, me: &ActorRef<Message>, task: TaskId) {
        let Some(running) = self.tasks.remove(&task) else { return };
        self.idle.remove(&task);
        self.shared.channels.close(task);
        if let Some(start) = self.resume_after_stop.remove(&task) {
            // If it has ended, its new runner finds that in the journal.
            return self.start_task(me, TaskStart { permit: running.permit, ..start }).await;
        }
        if !Arc::ptr_eq(&running.cx.catalog, &self.catalog) {
            self.release_engine_hosts();
        }
        self.publish_counts();
    }

    /// Restarts a task's runner from the journal.
    async fn restart_task(&mut self, me: &ActorRef<Message>, task: TaskId, error: String) {
        let Some(running) = self.tasks.remove(&task) else { return };
        self.idle.remove(&task);
        self.resume_after_stop.remove(&task);
        let SupervisedTask { cx, restarts, permit, .. } = running;
        if restarts < MAX_TASK_RESTARTS {
            return self.spawn_runner(me, cx, restarts + 1, permit).await;
        }
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let message = format!("the task's runner panicked {} times, last: {error}", restarts + 1);
            fail_task(&shared, task, failure(FailureCode::Internal, message)).await;
            shared.channels.close(task);
            drop(permit);
        });
        self.publish_counts();
    }

    /// A task that has ended meanwhile is ignored.
    fn set_idle(&mut self, task: TaskId, is_idle: bool) {
        let is_idle = is_idle && self.tasks.contains_key(&task);
        let _ = if is_idle { self.idle.insert(task) } else { self.idle.remove(&task) };
        self.publish_counts();
    }

    fn publish_counts(&self) {
        self.shared.running_tasks.send_replace(self.tasks.len());
        self.shared.busy_tasks.send_replace(self.tasks.len() - self.idle.len());
    }

    #[cfg(test)]
    fn panic(&self, child: &ChildId) {
        match child {
            ChildId::TaskRunner(task) => drop(self.tasks[task].runner.cast(task_runner::Message::Panic)),
            ChildId::Supervisor => panic!("as the test asked"),
            other => self.registry.panic(other),
        }
    }
}

/// Ends a task that cannot be continued.
pub(crate) async fn fail_task(shared: &SharedDeps, task: TaskId, failure: Failure) {
    let ended = async {
        let last = task_runner::history(&shared.journal, task).await?.last().map(|event| event.seq).unwrap_or_default();
        let kind = EventKind::Failed { failure };
        let event = Event { task, seq: last.next(), at: shared.clock.now(), kind };
        shared.journal.append(vec![event.clone()]).await?;
        shared.channels.open(task, None).publish(Arc::new(event));
        Ok::<_, artel_journal::Error>(())
    };
    if let Err(error) = ended.await {
        tracing::error!(%task, %error, "failed to journal the task's end: the task is suspended");
    }
}

/// The caller may have stopped waiting.
fn send_reply<T: ractor::State>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}
