//! The supervisor: starts all other actors, and restarts them.

mod message;
mod registry;
mod shared_deps;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use artel_roles::{Catalog, Model};
use artel_task::TaskId;
use artel_task::event::{Decision, Failure, FailureCode};
use artel_task::state::MAX_STALLED_RESUMES;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use crate::answer::AnswerRejection;
use crate::expert::{self, StepJob};
use crate::task_history::set_aside_task;
use crate::task_runner::{self, TaskContext, TaskRunner};
use artel_admission::TaskPlace;
use artel_routing::{self as router, RoutingRequest};

use registry::ActorRegistry;

pub(crate) use message::{ChildId, Message, TaskStart};
pub(crate) use shared_deps::SharedDeps;

/// How often a task's runner is restarted after a panic; then the task is set aside. A restart is a resume.
pub const MAX_TASK_RESTARTS: u32 = MAX_STALLED_RESUMES;

/// Starts task runners, experts, engine hosts and the router when they are first needed, and again after a panic.
///
/// It has one state. It awaits only the start of other actors, which do their work after that.
pub(crate) struct Supervisor;

/// A task that runs.
struct SupervisedTask {
    runner: ActorRef<task_runner::Message>,
    cx: TaskContext,
    restarts: u32,
    place: Option<TaskPlace>,
}

pub(crate) struct State {
    shared: SharedDeps,
    tasks: HashMap<TaskId, SupervisedTask>,
    /// Those of them that wait for answers of people only.
    idle: HashSet<TaskId>,
    /// Running tasks that are resumed once their runner stops: it may be about to, since the journal was full.
    resume_after_stop: HashMap<TaskId, TaskStart>,
    registry: ActorRegistry,
}

impl Actor for Supervisor {
    type Msg = Message;
    type State = State;
    type Arguments = (SharedDeps, Arc<Catalog>);

    async fn pre_start(
        &self,
        me: ActorRef<Message>,
        (shared, catalog): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let registry = ActorRegistry::new(me, shared.clone(), catalog);
        let (tasks, idle, resume_after_stop) = (HashMap::new(), HashSet::new(), HashMap::new());
        Ok(State { shared, tasks, idle, resume_after_stop, registry })
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::StartTask(start) => state.start_task(&me, *start).await,
            Message::RunStep(job, model) => state.run_step(job, &model).await,
            Message::Route(request, reply) => state.route(request, reply).await,
            Message::WarmUpRouter(requests) => {
                if let Err(error) = state.registry.warm_up_router(requests).await {
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
            Message::EngineHost(model, reply) => send_reply(reply, state.registry.engine_host(&model).await?),
            Message::ModelScheduler(reply) => send_reply(reply, state.registry.model_scheduler().await?),
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
            let waiting = self.resume_after_stop.remove(&start.task);
            let takes_up = start.takes_up || waiting.is_some_and(|waiting| waiting.takes_up);
            self.resume_after_stop.insert(start.task, TaskStart { takes_up, ..start });
            return;
        }
        let TaskStart { task, catalog, graph, first, takes_up, place } = start;
        let SharedDeps {
            journal,
            channels,
            loader,
            retrieval,
            models_dir,
            clock,
            lookahead,
            response_cache,
            probation,
            metrics,
            tracer,
            callers,
            ..
        } = self.shared.clone();
        let (channel, supervisor) = (channels.open(task, first.as_ref()), me.clone());
        let open = place.as_ref().map(|place| place.open_task().clone());
        let cx = TaskContext {
            task,
            catalog,
            graph,
            first,
            takes_up,
            probation,
            journal,
            channel,
            supervisor,
            loader,
            retrieval,
            models_dir,
            lookahead,
            response_cache,
            clock,
            metrics,
            tracer,
            callers,
            open,
        };
        self.spawn_runner(me, cx, 0, place).await;
    }

    async fn spawn_runner(&mut self, me: &ActorRef<Message>, cx: TaskContext, restarts: u32, place: Option<TaskPlace>) {
        let task = cx.task;
        match TaskRunner::spawn_linked(None, TaskRunner, cx.clone(), me.get_cell()).await {
            Ok((runner, _)) => {
                self.registry.add_child(runner.get_id(), ChildId::TaskRunner(task));
                // A restarted runner reads the journal.
                let cx = TaskContext { first: None, takes_up: false, ..cx };
                self.tasks.insert(task, SupervisedTask { runner, cx, restarts, place });
            }
            Err(error) => tracing::error!(%task, %error, "failed to start the task's runner: the task is suspended"),
        }
        self.publish_counts();
    }

    async fn run_step(&mut self, job: Box<StepJob>, model: &Arc<Model>) {
        match (self.registry.engine_host(model).await, self.registry.expert(&job.role).await) {
            (Ok(host), Ok(expert)) => {
                // An expert that has just stopped drops the job, whose completion reports the interruption.
                let _ = expert.cast(expert::Message::Run(job, host));
            }
            (Err(error), _) | (_, Err(error)) => {
                job.completion.send(Err(Failure::new(FailureCode::Internal, error.to_string())));
            }
        }
    }

    async fn route(&mut self, request: Box<RoutingRequest>, reply: RpcReplyPort<Result<Decision, Failure>>) {
        match (self.registry.router_engines(&request).await, self.registry.router().await) {
            (Ok(engines), Ok(router)) => {
                // A router that has just stopped drops the port, which the caller notices.
                let _ = router.cast(router::Message::Decide(request, engines, reply));
            }
            (Err(error), _) | (_, Err(error)) => {
                send_reply(reply, Err(Failure::new(FailureCode::Internal, error.to_string())));
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
        self.registry.replace_catalog(catalog);
        self.release_engine_hosts();
        self.registry.update_workloads();
    }

    fn release_engine_hosts(&mut self) {
        let tasks = &self.tasks;
        self.registry.release_engine_hosts(|model| tasks.values().any(|running| running.cx.catalog.uses_model(model)));
    }

    /// A child has stopped, by panic if there is an error.
    async fn child_stopped(&mut self, me: &ActorRef<Message>, id: ActorId, error: Option<String>) {
        let Some(child) = self.registry.take_child(id) else { return };
        if let Some(error) = &error {
            tracing::error!(%child, error, "an actor failed");
        }
        match child {
            ChildId::TaskRunner(task) => match error {
                None => self.task_stopped(me, task).await,
                Some(error) => self.restart_task(me, task, error).await,
            },
            // These are started when next needed.
            ChildId::Expert(role) => self.registry.remove_expert(&role, id),
            ChildId::Router => self.registry.remove_router(),
            ChildId::ModelScheduler => self.registry.replace_model_scheduler().await,
            ChildId::EngineHost(model) => self.registry.remove_engine_host(&model, id),
            #[cfg(test)]
            ChildId::Supervisor => {}
        }
    }

    /// The task has ended, is set aside, or is suspended.
    async fn task_stopped(&mut self, me: &ActorRef<Message>, task: TaskId) {
        let Some(running) = self.tasks.remove(&task) else { return };
        self.idle.remove(&task);
        self.shared.channels.close(task);
        if let Some(start) = self.resume_after_stop.remove(&task) {
            // If it has ended, its new runner finds that in the journal.
            let place = running.place.filter(|place| !place.open_task().is_closed()).or(start.place);
            return self.start_task(me, TaskStart { place, ..start }).await;
        }
        if !Arc::ptr_eq(&running.cx.catalog, self.registry.catalog()) {
            self.release_engine_hosts();
        }
        self.publish_counts();
    }

    /// Restarts a task's runner from the journal.
    async fn restart_task(&mut self, me: &ActorRef<Message>, task: TaskId, error: String) {
        let Some(running) = self.tasks.remove(&task) else { return };
        self.idle.remove(&task);
        self.resume_after_stop.remove(&task);
        let SupervisedTask { cx, restarts, place, .. } = running;
        if restarts < MAX_TASK_RESTARTS {
            return self.spawn_runner(me, cx, restarts + 1, place).await;
        }
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let reason = format!("its runner panicked {} times, last: {error}", restarts + 1);
            set_aside_task(&shared, task, reason).await;
            drop(place);
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

/// The caller may have stopped waiting.
fn send_reply<T: ractor::State>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}
