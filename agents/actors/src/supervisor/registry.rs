//! The experts, the engine hosts, the model scheduler and the router: started when first needed, then found by name.

use std::collections::HashMap;
use std::sync::Arc;

use artel_hosting::ModelWorkload;
use artel_hosting::engine_host::{self, EngineHost, EngineHostArgs};
use artel_hosting::model_scheduler::{self, EngineId, ModelScheduler, ModelSchedulerArgs};
use artel_roles::{Catalog, Model, Role};
use artel_task::RoleName;
use ractor::{Actor, ActorId, ActorRef, SpawnErr};

use super::message::{ChildId, Message};
use super::shared_deps::SharedDeps;
use crate::expert::{self, Expert, QueueLimits, RoleQueue};
use artel_routing::{self as router, Router, RouterEngines, RoutingRequest};

/// The actors that run, other than task runners.
pub(super) struct ActorRegistry {
    supervisor: ActorRef<Message>,
    shared: SharedDeps,
    /// The newest one.
    catalog: Arc<Catalog>,
    /// All children by actor, task runners too, to know which one stopped.
    children: HashMap<ActorId, ChildId>,
    experts: HashMap<RoleName, ActorRef<expert::Message>>,
    /// A queue outlives its expert: steps that run on count against its limits.
    role_queues: HashMap<RoleName, RoleQueue>,
    /// By content, since another version of the catalog may have another model of the same name.
    engine_hosts: Vec<(Arc<Model>, ActorRef<engine_host::Message>)>,
    router: Option<ActorRef<router::Message>>,
    model_scheduler: Option<ActorRef<model_scheduler::Message>>,
    /// Engine hosts so far, for their ids.
    host_count: u64,
    /// The ids of engine hosts by which the model scheduler knows them.
    engine_ids: HashMap<ActorId, EngineId>,
}

impl ActorRegistry {
    /// A registry of actors that this supervisor starts.
    pub(super) fn new(supervisor: ActorRef<Message>, shared: SharedDeps, catalog: Arc<Catalog>) -> Self {
        Self {
            supervisor,
            shared,
            catalog,
            children: HashMap::new(),
            experts: HashMap::new(),
            role_queues: HashMap::new(),
            engine_hosts: Vec::new(),
            router: None,
            model_scheduler: None,
            host_count: 0,
            engine_ids: HashMap::new(),
        }
    }

    /// The newest catalog.
    pub(super) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub(super) fn add_child(&mut self, actor: ActorId, child: ChildId) {
        self.children.insert(actor, child);
    }

    /// The child that was this actor, which has stopped.
    pub(super) fn take_child(&mut self, actor: ActorId) -> Option<ChildId> {
        self.children.remove(&actor)
    }

    /// The expert of the role of a step.
    pub(super) async fn expert(&mut self, role: &Role) -> Result<ActorRef<expert::Message>, SpawnErr> {
        if let Some(expert) = self.experts.get(&role.name) {
            return Ok(expert.clone());
        }
        let queue = self.role_queue(role);
        let (expert, _) = Expert::spawn_linked(None, Expert, queue, self.supervisor.get_cell()).await?;
        self.add_child(expert.get_id(), ChildId::Expert(role.name.clone()));
        self.experts.insert(role.name.clone(), expert.clone());
        Ok(expert)
    }

    /// The queue of a role, with the limits of the newest catalog. A step of an older version does not change them; only for a
    /// role that is gone from the catalog, its own are all there are.
    fn role_queue(&mut self, role: &Role) -> RoleQueue {
        let newest = self.catalog.role(role.name.as_str()).map(Arc::as_ref);
        let limits = QueueLimits::of(newest.unwrap_or(role));
        self.role_queues.entry(role.name.clone()).or_insert_with(|| RoleQueue::new(limits)).clone()
    }

    pub(super) async fn engine_host(&mut self, model: &Arc<Model>) -> Result<ActorRef<engine_host::Message>, SpawnErr> {
        if let Some((_, host)) = self.engine_hosts.iter().find(|(known, _)| known == model) {
            return Ok(host.clone());
        }
        let scheduler = self.model_scheduler().await?;
        self.host_count += 1;
        let id = self.engine_id(model);
        let (loader, clock) = (self.shared.loader.clone(), self.shared.clock.clone());
        let metrics = self.shared.metrics.engines.model(&id);
        let args = EngineHostArgs { id: id.clone(), model: model.clone(), loader, scheduler, clock, metrics };
        let (host, _) = EngineHost::spawn_linked(None, EngineHost, args, self.supervisor.get_cell()).await?;
        self.engine_ids.insert(host.get_id(), id);
        self.add_child(host.get_id(), ChildId::EngineHost(model.clone()));
        self.engine_hosts.push((model.clone(), host.clone()));
        self.update_workload(model, &host);
        Ok(host)
    }

    /// A unique id: the model's own, with a number if another host has it.
    fn engine_id(&self, model: &Arc<Model>) -> EngineId {
        let id = self.catalog.engine_name(model);
        let alike = |(known, _): &&(Arc<Model>, _)| known.name == model.name && known.placement == model.placement;
        match self.engine_hosts.iter().filter(alike).count() {
            0 => id.into(),
            _ => format!("{id}#{}", self.host_count).into(),
        }
    }

    pub(super) fn engine_hosts(&self) -> Vec<ActorRef<engine_host::Message>> {
        self.engine_hosts.iter().map(|(_, host)| host.clone()).collect()
    }

    pub(super) async fn model_scheduler(&mut self) -> Result<ActorRef<model_scheduler::Message>, SpawnErr> {
        if let Some(scheduler) = &self.model_scheduler {
            return Ok(scheduler.clone());
        }
        let SharedDeps { loader, lookahead, clock, .. } = self.shared.clone();
        let args = ModelSchedulerArgs { loader, lookahead, clock };
        let (scheduler, _) =
            ModelScheduler::spawn_linked(None, ModelScheduler, args, self.supervisor.get_cell()).await?;
        self.add_child(scheduler.get_id(), ChildId::ModelScheduler);
        self.model_scheduler = Some(scheduler.clone());
        Ok(scheduler)
    }

    /// Starts a new model scheduler, to which every engine host reports its status.
    pub(super) async fn replace_model_scheduler(&mut self) {
        self.model_scheduler = None;
        match self.model_scheduler().await {
            Ok(scheduler) => {
                for (_, host) in &self.engine_hosts {
                    // A host that has just stopped is started again, with this scheduler.
                    let _ = host.cast(engine_host::Message::SetScheduler(scheduler.clone()));
                }
            }
            Err(error) => tracing::error!(%error, "failed to start the model scheduler: no more models are loaded"),
        }
    }

    pub(super) async fn router(&mut self) -> Result<ActorRef<router::Message>, SpawnErr> {
        if let Some(router) = &self.router {
            return Ok(router.clone());
        }
        let cache = self.shared.embedding_cache.clone();
        let (router, _) = Router::spawn_linked(None, Router, cache, self.supervisor.get_cell()).await?;
        self.add_child(router.get_id(), ChildId::Router);
        self.router = Some(router.clone());
        Ok(router)
    }

    /// The hosts of the engines that a decision needs.
    pub(super) async fn router_engines(&mut self, request: &RoutingRequest) -> Result<RouterEngines, SpawnErr> {
        let label = match &request.label_model {
            Some(model) => Some(self.engine_host(model).await?),
            None => None,
        };
        Ok(RouterEngines { embedding: self.engine_host(&request.embedding_model).await?, label })
    }

    /// Has the router embed the candidates of these requests, each by its own engines.
    pub(super) async fn warm_up_router(&mut self, requests: Vec<RoutingRequest>) -> Result<(), SpawnErr> {
        let mut all = Vec::new();
        for request in requests {
            let engines = self.router_engines(&request).await?;
            all.push((request, engines));
        }
        // A router that has just stopped embeds them with the first question.
        let _ = self.router().await?.cast(router::Message::WarmUp(all, self.shared.busy_tasks.subscribe()));
        Ok(())
    }

    /// Gives every role's queue the limits of the new catalog, and releases the experts of roles that it does not have.
    pub(super) fn replace_catalog(&mut self, catalog: Arc<Catalog>) {
        self.catalog = catalog;
        let catalog = &self.catalog;
        self.role_queues.retain(|name, queue| match catalog.role(name.as_str()) {
            Some(role) => {
                queue.resize(QueueLimits::of(role));
                true
            }
            // Running tasks may have the role still: its limits stay as they were.
            None => queue.is_in_use(),
        });
        self.experts.retain(|role, expert| {
            let is_needed = catalog.role(role.as_str()).is_some();
            if !is_needed {
                // It finishes the messages in its mailbox. It may have stopped already.
                let _ = expert.drain();
            }
            is_needed
        });
    }

    /// Releases the engines of models that neither the catalog nor a running task has.
    pub(super) fn release_engine_hosts(&mut self, is_used_by_task: impl Fn(&Arc<Model>) -> bool) {
        let catalog = &self.catalog;
        self.engine_hosts.retain(|(model, host)| {
            let is_needed = catalog.uses_model(model) || is_used_by_task(model);
            if !is_needed {
                // It may have stopped already.
                let _ = host.drain();
            }
            is_needed
        });
    }

    /// Updates all engine hosts after a change of the catalog.
    pub(super) fn update_workloads(&self) {
        for (model, host) in &self.engine_hosts {
            self.update_workload(model, host);
        }
    }

    /// Sends an engine host the prompt prefixes and the adapters of the catalog's roles; or that the catalog does not have its
    /// model, whose roles need what they needed.
    fn update_workload(&self, model: &Arc<Model>, host: &ActorRef<engine_host::Message>) {
        let workload = || Box::new(ModelWorkload::of(&self.catalog, model, &self.shared.models_dir));
        let message = match self.catalog.uses_model(model) {
            true => engine_host::Message::SetWorkload(workload()),
            false => engine_host::Message::LeftCatalog,
        };
        // A host that has just stopped is started again, and gets the message then.
        let _ = host.cast(message);
    }

    /// Keeps a newer expert of the same role, if there is one.
    pub(super) fn remove_expert(&mut self, role: &RoleName, id: ActorId) {
        if self.experts.get(role).is_some_and(|expert| expert.get_id() == id) {
            self.experts.remove(role);
        }
    }

    pub(super) fn remove_engine_host(&mut self, model: &Arc<Model>, id: ActorId) {
        self.engine_hosts.retain(|(known, host)| known != model || host.get_id() != id);
        // A host that panicked did not report that its engine is gone.
        if let (Some(engine), Some(scheduler)) = (self.engine_ids.remove(&id), &self.model_scheduler) {
            let _ = scheduler.cast(model_scheduler::Message::HostStopped(engine, id));
        }
    }

    pub(super) fn remove_router(&mut self) {
        self.router = None;
    }

    #[cfg(test)]
    pub(super) fn panic(&self, child: &ChildId) {
        match child {
            ChildId::Expert(role) => drop(self.experts[role].cast(expert::Message::Panic)),
            ChildId::ModelScheduler => {
                drop(self.model_scheduler.as_ref().map(|scheduler| scheduler.cast(model_scheduler::Message::Panic)));
            }
            ChildId::Router => drop(self.router.as_ref().map(|router| router.cast(router::Message::Panic))),
            ChildId::EngineHost(model) => {
                let host = self.engine_hosts.iter().find(|(known, _)| known == model);
                drop(host.map(|(_, host)| host.cast(engine_host::Message::Panic)));
            }
            ChildId::TaskRunner(_) | ChildId::Supervisor => unreachable!("the supervisor makes these panic itself"),
        }
    }
}
