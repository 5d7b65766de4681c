//! The supervisor: starts everybody else, and starts them again.

mod cast;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use artel_journal::Journal;
use artel_roles::{Catalog, Model};
use artel_task::event::{FailureCode, Decision, Failure};
use artel_task::{Event, Graph, EventKind, RoleName, StepId, TaskId};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::ahead::Ahead;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::conductor::{self, Answer, Assignment, Conductor, Refusal};
use crate::feed::Feeds;
use crate::report::failure;
use crate::router::{Kept, Question};
use crate::{Loader, expert, router};
use crate::{fleet, keeper};
use cast::Cast;

/// How often a task's conductor is started again after a panic; then the task fails.
pub const MAX_REVIVALS: u32 = 3;

/// Starts conductors, experts, keepers and the router when they are first needed, and again when they panicked.
///
/// It has one state. It awaits nothing but the start of other actors, which do their work after that.
pub(crate) struct Supervisor;

/// What the supervisor is told.
pub(crate) enum Message {
    /// Starts the conductor of a task that is on disk.
    Begin(Box<Begin>),
    /// Hands a step to the expert of its role, with the keeper of this model.
    Work(Box<expert::Job>, Arc<Model>),
    /// Answers with the router's decision.
    Decide(Box<Question>, RpcReplyPort<Result<Decision, Failure>>),
    /// Has the router learn the candidates of these questions before anybody asks.
    Learn(Vec<Question>),
    /// Cancels a task and answers whether that is on disk; at once with false for a task that does not run.
    Cancel { task: TaskId, reason: String, reply: RpcReplyPort<bool> },
    /// Cancels one step of a task, as [`conductor::Message::CancelStep`] says; at once with nothing for a task that does not
    /// run.
    CancelStep { task: TaskId, step: StepId, reason: String, reply: RpcReplyPort<Option<bool>> },
    /// Hands a person's answer to a task; at once refused by one that does not run.
    Answer { task: TaskId, step: Option<StepId>, answer: Answer, reply: RpcReplyPort<Result<(), Refusal>> },
    /// Whether a task waits for nobody but people: then a daemon that stops need not wait for it.
    Rests(TaskId, bool),
    /// New tasks run under this catalog from now on: lets go of who is no longer needed.
    Serve(Arc<Catalog>),
    /// Answers with the keeper of a model.
    Keeper(Arc<Model>, RpcReplyPort<ActorRef<keeper::Message>>),
    /// Answers with the fleet.
    Fleet(RpcReplyPort<ActorRef<fleet::Message>>),
    /// Answers with every keeper there is.
    Keepers(RpcReplyPort<Vec<ActorRef<keeper::Message>>>),
    /// Has one of the others panic, or itself.
    #[cfg(test)]
    Panic(Who),
}

/// A task to run.
pub(crate) struct Begin {
    pub(crate) task: TaskId,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) graph: Arc<Graph>,
    /// The first event of a new task; a task that is resumed is read from the journal.
    pub(crate) first: Option<Arc<Event>>,
    /// Its share of the tasks that may be open.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// An actor under supervision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    Conductor(TaskId),
    Expert(RoleName),
    Router,
    Keeper(Arc<Model>),
    Fleet,
    #[cfg(test)]
    Supervisor,
}

/// What everybody shares.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) journal: Journal,
    pub(crate) feeds: Feeds,
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) models: Arc<Path>,
    pub(crate) clock: Clock,
    /// How many tasks run.
    pub(crate) running: watch::Sender<usize>,
    /// How many of them wait for something else than people.
    pub(crate) busy: watch::Sender<usize>,
    /// Which models tasks will need.
    pub(crate) ahead: Ahead,
    /// What nodes that ask for it were answered.
    pub(crate) cache: Cache,
    /// Where vectors of texts are kept.
    pub(crate) vectors: Option<Arc<Kept>>,
}

/// A task that runs.
struct Running {
    actor: ActorRef<conductor::Message>,
    assignment: Assignment,
    revivals: u32,
    _permit: Option<OwnedSemaphorePermit>,
}

pub(crate) struct State {
    links: Links,
    tasks: HashMap<TaskId, Running>,
    /// Those of them that wait for nobody but people.
    resting: HashSet<TaskId>,
    /// Those of them that are to be begun again if their conductor stops: it may be about to, over a journal that was full.
    again: HashMap<TaskId, Begin>,
    cast: Cast,
    catalog: Arc<Catalog>,
    /// Who sits where, to know who was lost.
    who: HashMap<ActorId, Who>,
}

impl Actor for Supervisor {
    type Msg = Message;
    type State = State;
    type Arguments = (Links, Arc<Catalog>);

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        (links, catalog): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (tasks, resting, again, who) = (HashMap::new(), HashSet::new(), HashMap::new(), HashMap::new());
        Ok(State { links, tasks, resting, again, cast: Cast::default(), catalog, who })
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Begin(begin) => state.begin(&me, *begin).await,
            Message::Work(job, model) => state.work(&me, job, model).await,
            Message::Decide(question, reply) => state.decide(&me, question, reply).await,
            Message::Learn(questions) => {
                if let Err(error) = state.learn(&me, questions).await {
                    tracing::warn!(%error, "the roles are learned when the first question comes");
                }
            }
            Message::Cancel { task, reason, reply } => state.cancel(task, reason, reply),
            Message::CancelStep { task, step, reason, reply } => match state.tasks.get(&task) {
                Some(running) => {
                    drop(running.actor.cast(conductor::Message::CancelStep { step, reason, reply }));
                }
                None => answer(reply, None),
            },
            Message::Answer { task, step, answer: given, reply } => match state.tasks.get(&task) {
                Some(running) => {
                    drop(running.actor.cast(conductor::Message::Answer { step, answer: given, reply }));
                }
                None => answer(reply, Err(Refusal::NotWaiting)),
            },
            Message::Rests(task, rests) => state.rests(task, rests),
            Message::Serve(catalog) => state.serve(catalog),
            Message::Keeper(model, reply) => answer(reply, state.keeper(&me, &model).await?),
            Message::Fleet(reply) => answer(reply, state.fleet(&me).await?),
            Message::Keepers(reply) => answer(reply, state.cast.keepers()),
            #[cfg(test)]
            Message::Panic(who) => state.panic(&who),
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
            SupervisionEvent::ActorTerminated(cell, ..) => state.left(&me, cell.get_id(), None).await,
            SupervisionEvent::ActorFailed(cell, error) => {
                state.left(&me, cell.get_id(), Some(error.to_string())).await;
            }
            _ => {}
        }
        Ok(())
    }
}

impl State {
    async fn begin(&mut self, me: &ActorRef<Message>, begin: Begin) {
        // Of the tasks that are taken up once more, some never rested.
        if self.tasks.contains_key(&begin.task) {
            self.again.insert(begin.task, Begin { permit: None, ..begin });
            return;
        }
        let Begin { task, catalog, graph, first, permit } = begin;
        let Links { journal, feeds, loader, models, clock, ahead, cache, .. } = self.links.clone();
        let (feed, supervisor) = (feeds.open(task, first.as_ref()), me.clone());
        let assignment =
            Assignment { task, catalog, graph, first, journal, feed, supervisor, loader, models, ahead, cache, clock };
        self.conduct(me, assignment, 0, permit).await;
    }

    async fn conduct(
        &mut self,
        me: &ActorRef<Message>,
        assignment: Assignment,
        revivals: u32,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let task = assignment.task;
        match Conductor::spawn_linked(None, Conductor, assignment.clone(), me.get_cell()).await {
            Ok((actor, _)) => {
                self.who.insert(actor.get_id(), Who::Conductor(task));
                // Whoever takes the task up again reads the journal.
                let assignment = Assignment { first: None, ..assignment };
                self.tasks.insert(task, Running { actor, assignment, revivals, _permit: permit });
            }
            Err(error) => tracing::error!(%task, %error, "the task rests: failed to start its conductor"),
        }
        self.count();
    }

    async fn work(&mut self, me: &ActorRef<Message>, job: Box<expert::Job>, model: Arc<Model>) {
        match (self.keeper(me, &model).await, self.expert(me, &job.role.name).await) {
            (Ok(keeper), Ok(expert)) => {
                // An expert that has just died drops the job, whose report says so.
                let _ = expert.cast(expert::Message::Work(job, keeper));
            }
            (Err(error), _) | (_, Err(error)) => job.report.send(Err(failure(FailureCode::Internal, error.to_string()))),
        }
    }

    async fn decide(
        &mut self,
        me: &ActorRef<Message>,
        question: Box<Question>,
        reply: RpcReplyPort<Result<Decision, Failure>>,
    ) {
        match (self.router_keepers(me, &question).await, self.router(me).await) {
            (Ok(keepers), Ok(router)) => {
                // A router that has just died drops the port, which whoever asked notices.
                let _ = router.cast(router::Message::Decide(question, keepers, reply));
            }
            (Err(error), _) | (_, Err(error)) => answer(reply, Err(failure(FailureCode::Internal, error.to_string()))),
        }
    }

    fn cancel(&self, task: TaskId, reason: String, reply: RpcReplyPort<bool>) {
        match self.tasks.get(&task) {
            // A conductor that has just ended drops the port, which whoever asked notices.
            Some(running) => drop(running.actor.cast(conductor::Message::Cancel { reason, reply })),
            None => answer(reply, false),
        }
    }

    fn serve(&mut self, catalog: Arc<Catalog>) {
        self.catalog = catalog;
        self.cast.release_experts(|role| self.catalog.role(role.as_str()).is_some());
        self.release_keepers();
        self.prime_all();
    }

    /// Lets go of the engines of models that neither the catalog nor a running task has.
    fn release_keepers(&mut self) {
        let (catalog, tasks) = (&self.catalog, &self.tasks);
        self.cast.release_keepers(|model| {
            catalog.uses_model(model) || tasks.values().any(|running| running.assignment.catalog.uses_model(model))
        });
    }

    /// Somebody has ended, by panic if there is an error.
    async fn left(&mut self, me: &ActorRef<Message>, id: ActorId, error: Option<String>) {
        let Some(who) = self.who.remove(&id) else { return };
        if let Some(error) = &error {
            tracing::error!(?who, error, "an actor failed");
        }
        match who {
            Who::Conductor(task) => match error {
                None => self.over(me, task).await,
                Some(error) => self.revive(me, task, error).await,
            },
            // They are started when next needed.
            Who::Expert(role) => self.cast.forget_expert(&role, id),
            Who::Router => self.cast.forget_router(),
            Who::Fleet => self.replace_fleet(me).await,
            Who::Keeper(model) => self.cast.forget_keeper(&model, id),
            #[cfg(test)]
            Who::Supervisor => {}
        }
    }

    /// The task has ended, or rests.
    async fn over(&mut self, me: &ActorRef<Message>, task: TaskId) {
        let Some(running) = self.tasks.remove(&task) else { return };
        self.resting.remove(&task);
        self.links.feeds.close(task);
        if let Some(begin) = self.again.remove(&task) {
            // One that has ended is seen to have done so.
            return self.begin(me, Begin { permit: running._permit, ..begin }).await;
        }
        if !Arc::ptr_eq(&running.assignment.catalog, &self.catalog) {
            self.release_keepers();
        }
        self.count();
    }

    /// Takes a task up again from the journal.
    async fn revive(&mut self, me: &ActorRef<Message>, task: TaskId, error: String) {
        let Some(running) = self.tasks.remove(&task) else { return };
        self.resting.remove(&task);
        self.again.remove(&task);
        let Running { assignment, revivals, _permit: permit, .. } = running;
        if revivals < MAX_REVIVALS {
            return self.conduct(me, assignment, revivals + 1, permit).await;
        }
        let links = self.links.clone();
        tokio::spawn(async move {
            let message = format!("the task's conductor stopped {} times, last: {error}", revivals + 1);
            give_up(&links, task, failure(FailureCode::Internal, message)).await;
            links.feeds.close(task);
            drop(permit);
        });
        self.count();
    }

    /// A task that has ended meanwhile needs no telling.
    fn rests(&mut self, task: TaskId, rests: bool) {
        let known = rests && self.tasks.contains_key(&task);
        let _ = if known { self.resting.insert(task) } else { self.resting.remove(&task) };
        self.count();
    }

    fn count(&self) {
        self.links.running.send_replace(self.tasks.len());
        self.links.busy.send_replace(self.tasks.len() - self.resting.len());
    }

    #[cfg(test)]
    fn panic(&self, who: &Who) {
        match who {
            Who::Conductor(task) => drop(self.tasks[task].actor.cast(conductor::Message::Panic)),
            Who::Supervisor => panic!("as the test asked"),
            other => self.cast.panic(other),
        }
    }
}

/// Ends a task that cannot be run on.
pub(crate) async fn give_up(links: &Links, task: TaskId, failure: Failure) {
    let ended = async {
        let last = conductor::history(&links.journal, task).await?.last().map(|event| event.seq).unwrap_or_default();
        let kind = EventKind::Failed { failure };
        let event = Event { task, seq: last.next(), at: links.clock.now(), kind };
        links.journal.append(vec![event.clone()]).await?;
        links.feeds.open(task, None).announce(Arc::new(event));
        Ok::<_, artel_journal::Error>(())
    };
    if let Err(error) = ended.await {
        tracing::error!(%task, %error, "the task rests: failed to journal its end");
    }
}

/// Whoever asked may have stopped waiting.
fn answer<T: ractor::State>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}
