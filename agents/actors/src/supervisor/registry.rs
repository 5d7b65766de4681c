//! The experts, the engine hosts, the model scheduler and the router: started when first needed, then found by name.

use std::collections::HashMap;
use std::sync::Arc;

use artel_roles::Model;
use artel_task::RoleName;
use ractor::{Actor, ActorId, ActorRef, SpawnErr};

use super::{ChildId, Message, State};
use crate::engine_host::{self, EngineHost, EngineHostArgs};
use crate::expert::Expert;
use crate::model_scheduler::{self, ModelScheduler};
use crate::model_workload::ModelWorkload;
use crate::router::{Router, RouterEngines, RoutingRequest};
use crate::{expert, router};

/// The actors that run.
#[derive(Default)]
pub(super) struct ActorRegistry {
    experts: HashMap<RoleName, ActorRef<expert::Message>>,
    /// By content, since another version of the catalog may have another model of the same name.
    engine_hosts: Vec<(Arc<Model>, ActorRef<engine_host::Message>)>,
    router: Option<ActorRef<router::Message>>,
    model_scheduler: Option<ActorRef<model_scheduler::Message>>,
    /// Engine hosts so far, for their ids.
    host_count: u64,
    /// The ids of engine hosts by which the model scheduler knows them.
    engine_ids: HashMap<ActorId, model_scheduler::EngineId>,
}

impl State {
    pub(super) async fn expert(
        &mut self,
        me: &ActorRef<Message>,
        role: &RoleName,
    ) -> Result<ActorRef<expert::Message>, SpawnErr> {
        if let Some(expert) = self.registry.experts.get(role) {
            return Ok(expert.clone());
        }
        let (expert, _) = Expert::spawn_linked(None, Expert, (), me.get_cell()).await?;
        self.children.insert(expert.get_id(), ChildId::Expert(role.clone()));
        self.registry.experts.insert(role.clone(), expert.clone());
        Ok(expert)
    }

    pub(super) async fn engine_host(
        &mut self,
        me: &ActorRef<Message>,
        model: &Arc<Model>,
    ) -> Result<ActorRef<engine_host::Message>, SpawnErr> {
        if let Some((_, host)) = self.registry.engine_hosts.iter().find(|(known, _)| known == model) {
            return Ok(host.clone());
        }
        let scheduler = self.model_scheduler(me).await?;
        self.registry.host_count += 1;
        let (id, loader) = (self.engine_id(model), self.shared.loader.clone());
        let args = EngineHostArgs { id: id.clone(), model: model.clone(), loader, scheduler };
        let (host, _) = EngineHost::spawn_linked(None, EngineHost, args, me.get_cell()).await?;
        self.registry.engine_ids.insert(host.get_id(), id);
        self.children.insert(host.get_id(), ChildId::EngineHost(model.clone()));
        self.registry.engine_hosts.push((model.clone(), host.clone()));
        self.update_workload(model, &host);
        Ok(host)
    }

    /// A unique id: the model's own, with a number if another host has it.
    fn engine_id(&self, model: &Arc<Model>) -> model_scheduler::EngineId {
        let id = self.catalog.engine_name(model);
        let alike = |(known, _): &&(Arc<Model>, _)| known.name == model.name && known.placement == model.placement;
        match self.registry.engine_hosts.iter().filter(alike).count() {
            0 => id.into(),
            _ => format!("{id}#{}", self.registry.host_count).into(),
        }
    }

    pub(super) async fn model_scheduler(
        &mut self,
        me: &ActorRef<Message>,
    ) -> Result<ActorRef<model_scheduler::Message>, SpawnErr> {
        if let Some(scheduler) = &self.registry.model_scheduler {
            return Ok(scheduler.clone());
        }
        let args = (self.shared.loader.clone(), self.shared.lookahead.clone());
        let (scheduler, _) = ModelScheduler::spawn_linked(None, ModelScheduler, args, me.get_cell()).await?;
        self.children.insert(scheduler.get_id(), ChildId::ModelScheduler);
        self.registry.model_scheduler = Some(scheduler.clone());
        Ok(scheduler)
    }

    /// Starts a new model scheduler, to which every engine host reports its status.
    pub(super) async fn replace_model_scheduler(&mut self, me: &ActorRef<Message>) {
        self.registry.model_scheduler = None;
        match self.model_scheduler(me).await {
            Ok(scheduler) => {
                for (_, host) in &self.registry.engine_hosts {
                    // A host that has just stopped is started again, with this scheduler.
                    let _ = host.cast(engine_host::Message::SetScheduler(scheduler.clone()));
                }
            }
            Err(error) => tracing::error!(%error, "failed to start the model scheduler: no more models are loaded"),
        }
    }

    /// Sends an engine host the prompt prefixes and the adapters of the catalog's roles.
    fn update_workload(&self, model: &Arc<Model>, host: &ActorRef<engine_host::Message>) {
        let workload = ModelWorkload::of(&self.catalog, model, &self.shared.models_dir);
        // A host that has just stopped is started again, and gets its workload then.
        let _ = host.cast(engine_host::Message::SetWorkload(workload));
    }

    /// Updates all engine hosts after a change of the catalog.
    pub(super) fn update_workloads(&self) {
        for (model, host) in &self.registry.engine_hosts {
            if self.catalog.uses_model(model) {
                self.update_workload(model, host);
            }
        }
    }

    /// The hosts of the engines that a decision needs.
    pub(super) async fn router_engines(
        &mut self,
        me: &ActorRef<Message>,
        request: &RoutingRequest,
    ) -> Result<RouterEngines, SpawnErr> {
        let label = match &request.label_model {
            Some(model) => Some(self.engine_host(me, model).await?),
            None => None,
        };
        Ok(RouterEngines { embedding: self.engine_host(me, &request.embedding_model).await?, label })
    }

    /// Has the router embed the candidates of these requests, each by its own engines.
    pub(super) async fn warm_up_router(
        &mut self,
        me: &ActorRef<Message>,
        requests: Vec<RoutingRequest>,
    ) -> Result<(), SpawnErr> {
        let mut all = Vec::new();
        for request in requests {
            let engines = self.router_engines(me, &request).await?;
            all.push((request, engines));
        }
        // A router that has just stopped embeds them with the first question.
        let _ = self.router(me).await?.cast(router::Message::WarmUp(all, self.shared.busy_tasks.subscribe()));
        Ok(())
    }

    pub(super) async fn router(&mut self, me: &ActorRef<Message>) -> Result<ActorRef<router::Message>, SpawnErr> {
        if let Some(router) = &self.registry.router {
            return Ok(router.clone());
        }
        let (router, _) =
            Router::spawn_linked(None, Router, self.shared.embedding_cache.clone(), me.get_cell()).await?;
        self.children.insert(router.get_id(), ChildId::Router);
        self.registry.router = Some(router.clone());
        Ok(router)
    }
}

impl ActorRegistry {
    pub(super) fn engine_hosts(&self) -> Vec<ActorRef<engine_host::Message>> {
        self.engine_hosts.iter().map(|(_, host)| host.clone()).collect()
    }

    /// Released experts finish the messages in their mailbox.
    pub(super) fn release_experts(&mut self, is_needed: impl Fn(&RoleName) -> bool) {
        self.experts.retain(|role, expert| {
            let is_needed = is_needed(role);
            if !is_needed {
                // It may have stopped already.
                let _ = expert.drain();
            }
            is_needed
        });
    }

    pub(super) fn release_engine_hosts(&mut self, is_needed: impl Fn(&Arc<Model>) -> bool) {
        self.engine_hosts.retain(|(model, host)| {
            let is_needed = is_needed(model);
            if !is_needed {
                // It may have stopped already.
                let _ = host.drain();
            }
            is_needed
        });
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
