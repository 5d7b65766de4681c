//! The experts, the keepers and the router: started when first needed, found again by name.

use std::collections::HashMap;
use std::sync::Arc;

use artel_roles::Model;
use artel_task::RoleName;
use ractor::{Actor, ActorId, ActorRef, SpawnErr};

use super::{Message, State, Who};
use crate::demand::Asked;
use crate::expert::Expert;
use crate::fleet::{self, Fleet};
use crate::keeper::{self, Arguments, Keeper};
use crate::router::{Keepers, Question, Router};
use crate::{expert, router};

/// Who is there.
#[derive(Default)]
pub(super) struct Cast {
    experts: HashMap<RoleName, ActorRef<expert::Message>>,
    /// By content, since another version of the catalog may have another model of the same name.
    keepers: Vec<(Arc<Model>, ActorRef<keeper::Message>)>,
    router: Option<ActorRef<router::Message>>,
    fleet: Option<ActorRef<fleet::Message>>,
    /// Keepers so far, for their names.
    count: u64,
    /// Their names among the fleet's.
    ids: HashMap<ActorId, fleet::Id>,
}

impl State {
    pub(super) async fn expert(
        &mut self,
        me: &ActorRef<Message>,
        role: &RoleName,
    ) -> Result<ActorRef<expert::Message>, SpawnErr> {
        if let Some(expert) = self.cast.experts.get(role) {
            return Ok(expert.clone());
        }
        let (expert, _) = Expert::spawn_linked(None, Expert, (), me.get_cell()).await?;
        self.who.insert(expert.get_id(), Who::Expert(role.clone()));
        self.cast.experts.insert(role.clone(), expert.clone());
        Ok(expert)
    }

    pub(super) async fn keeper(
        &mut self,
        me: &ActorRef<Message>,
        model: &Arc<Model>,
    ) -> Result<ActorRef<keeper::Message>, SpawnErr> {
        if let Some((_, keeper)) = self.cast.keepers.iter().find(|(known, _)| known == model) {
            return Ok(keeper.clone());
        }
        let fleet = self.fleet(me).await?;
        self.cast.count += 1;
        let arguments =
            Arguments { id: self.id_of(model), model: model.clone(), loader: self.links.loader.clone(), fleet };
        let id = arguments.id.clone();
        let (keeper, _) = Keeper::spawn_linked(None, Keeper, arguments, me.get_cell()).await?;
        self.cast.ids.insert(keeper.get_id(), id);
        self.who.insert(keeper.get_id(), Who::Keeper(model.clone()));
        self.cast.keepers.push((model.clone(), keeper.clone()));
        self.prime(model, &keeper);
        Ok(keeper)
    }

    /// A name that no other keeper has: the model's own, wherever it is alone with it.
    fn id_of(&self, model: &Arc<Model>) -> fleet::Id {
        let id = self.catalog.engine_name(model);
        let alike = |(known, _): &&(Arc<Model>, _)| known.name == model.name && known.placement == model.placement;
        match self.cast.keepers.iter().filter(alike).count() {
            0 => id.into(),
            _ => format!("{id}#{}", self.cast.count).into(),
        }
    }

    pub(super) async fn fleet(&mut self, me: &ActorRef<Message>) -> Result<ActorRef<fleet::Message>, SpawnErr> {
        if let Some(fleet) = &self.cast.fleet {
            return Ok(fleet.clone());
        }
        let links = (self.links.loader.clone(), self.links.ahead.clone());
        let (fleet, _) = Fleet::spawn_linked(None, Fleet, links, me.get_cell()).await?;
        self.who.insert(fleet.get_id(), Who::Fleet);
        self.cast.fleet = Some(fleet.clone());
        Ok(fleet)
    }

    /// There is another fleet: every keeper tells it how things stand.
    pub(super) async fn replace_fleet(&mut self, me: &ActorRef<Message>) {
        self.cast.fleet = None;
        match self.fleet(me).await {
            Ok(fleet) => {
                for (_, keeper) in &self.cast.keepers {
                    // A keeper that has just ended is started again, with this fleet.
                    let _ = keeper.cast(keeper::Message::Fleet(fleet.clone()));
                }
            }
            Err(error) => tracing::error!(%error, "failed to start the fleet: no more models are loaded"),
        }
    }

    /// Tells a keeper which prompts the catalog's roles begin with, and which adapters they have.
    fn prime(&self, model: &Arc<Model>, keeper: &ActorRef<keeper::Message>) {
        let asked = Asked::of(&self.catalog, model, &self.links.models);
        // A keeper that has just ended is started again, and told again.
        let _ = keeper.cast(keeper::Message::Prime(asked));
    }

    /// Tells all keepers, after a change of the catalog.
    pub(super) fn prime_all(&self) {
        for (model, keeper) in &self.cast.keepers {
            if self.catalog.uses_model(model) {
                self.prime(model, keeper);
            }
        }
    }

    /// Those whose engines a decision needs.
    pub(super) async fn router_keepers(
        &mut self,
        me: &ActorRef<Message>,
        question: &Question,
    ) -> Result<Keepers, SpawnErr> {
        let label = match &question.label {
            Some(model) => Some(self.keeper(me, model).await?),
            None => None,
        };
        Ok(Keepers { embedding: self.keeper(me, &question.model).await?, label })
    }

    /// Has the router learn the candidates of these questions, each by its own engines.
    pub(super) async fn learn(&mut self, me: &ActorRef<Message>, questions: Vec<Question>) -> Result<(), SpawnErr> {
        let mut all = Vec::new();
        for question in questions {
            let keepers = self.router_keepers(me, &question).await?;
            all.push((question, keepers));
        }
        // A router that has just ended learns when somebody asks.
        let _ = self.router(me).await?.cast(router::Message::Learn(all, self.links.busy.subscribe()));
        Ok(())
    }

    pub(super) async fn router(&mut self, me: &ActorRef<Message>) -> Result<ActorRef<router::Message>, SpawnErr> {
        if let Some(router) = &self.cast.router {
            return Ok(router.clone());
        }
        let (router, _) = Router::spawn_linked(None, Router, self.links.vectors.clone(), me.get_cell()).await?;
        self.who.insert(router.get_id(), Who::Router);
        self.cast.router = Some(router.clone());
        Ok(router)
    }
}

impl Cast {
    pub(super) fn keepers(&self) -> Vec<ActorRef<keeper::Message>> {
        self.keepers.iter().map(|(_, keeper)| keeper.clone()).collect()
    }

    /// Those who are let go finish what is in their mailbox.
    pub(super) fn release_experts(&mut self, stays: impl Fn(&RoleName) -> bool) {
        self.experts.retain(|role, expert| {
            let stays = stays(role);
            if !stays {
                // One that has just ended needs no telling.
                let _ = expert.drain();
            }
            stays
        });
    }

    pub(super) fn release_keepers(&mut self, stays: impl Fn(&Arc<Model>) -> bool) {
        self.keepers.retain(|(model, keeper)| {
            let stays = stays(model);
            if !stays {
                // One that has just ended needs no telling.
                let _ = keeper.drain();
            }
            stays
        });
    }

    /// Somebody else may have taken the place of one that was let go.
    pub(super) fn forget_expert(&mut self, role: &RoleName, id: ActorId) {
        if self.experts.get(role).is_some_and(|expert| expert.get_id() == id) {
            self.experts.remove(role);
        }
    }

    pub(super) fn forget_keeper(&mut self, model: &Arc<Model>, id: ActorId) {
        self.keepers.retain(|(known, keeper)| known != model || keeper.get_id() != id);
        // One that panicked has told nobody that its engine is gone.
        if let (Some(name), Some(fleet)) = (self.ids.remove(&id), &self.fleet) {
            let _ = fleet.cast(fleet::Message::Gone(name, id));
        }
    }

    pub(super) fn forget_router(&mut self) {
        self.router = None;
    }

    #[cfg(test)]
    pub(super) fn panic(&self, who: &Who) {
        match who {
            Who::Expert(role) => drop(self.experts[role].cast(expert::Message::Panic)),
            Who::Fleet => drop(self.fleet.as_ref().map(|fleet| fleet.cast(fleet::Message::Panic))),
            Who::Router => drop(self.router.as_ref().map(|router| router.cast(router::Message::Panic))),
            Who::Keeper(model) => {
                let found = self.keepers.iter().find(|(known, _)| known == model);
                drop(found.map(|(_, keeper)| keeper.cast(keeper::Message::Panic)));
            }
            Who::Conductor(_) | Who::Supervisor => unreachable!("the supervisor has these panic itself"),
        }
    }
}
