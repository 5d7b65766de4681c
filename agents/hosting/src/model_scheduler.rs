//! The model scheduler: which models are loaded, where, and which are evicted for others.

mod kept_models;
mod message;
mod scheduled_model;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use artel_engine::LoadError;
use artel_placement::{
    self as placement, Device, DeviceBytes, EvictionPlan, KeptModel, KeptOut, ModelFootprint, ModelQueue, Placement,
    SwapDecision, left_by,
};
use artel_task::Clock;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, DerivedActorRef};
use tokio_util::task::AbortOnDropHandle;

use crate::engine_host::{EngineUnavailable, PlacementCommand};
use crate::loader::Loader;
use crate::lookahead::ModelLookahead;
use crate::model_workload::MemoryDemand;

use kept_models::{is_kept, kept_models};
use scheduled_model::ScheduledModel;

pub use message::{EngineId, EngineStatus, Message, ModelMove, Residency};

/// Loads and unloads that are kept: about a day of a busy machine.
const MAX_MOVES: usize = 256;

/// Decides which model is loaded where, by the pure functions of `artel_placement`, and sends the decisions to the engine
/// hosts.
///
/// States: idle -> querying (the devices) -> idle, or -> swapping (engines are evicted for another) -> idle. Hosts send it
/// every change of status, and it schedules anew whenever requests wait for a model that is not loaded.
pub struct ModelScheduler;

/// A model to be loaded once its victims are unloaded.
struct PendingSwap {
    model: EngineId,
    placement: Placement,
    victims: BTreeSet<EngineId>,
}

/// The arguments of the model scheduler.
pub struct ModelSchedulerArgs {
    /// Lists the devices and estimates memory.
    pub loader: Arc<dyn Loader>,
    /// The models that running tasks will need.
    pub lookahead: ModelLookahead,
    /// The wall time, for reports.
    pub clock: Clock,
}

/// The state of the model scheduler.
pub struct State {
    args: ModelSchedulerArgs,
    models: BTreeMap<EngineId, ScheduledModel>,
    swap: Option<PendingSwap>,
    /// Whether a query of the devices is in progress.
    querying: bool,
    swap_timer: Option<AbortOnDropHandle<()>>,
    moves: VecDeque<ModelMove>,
}

impl Actor for ModelScheduler {
    type Msg = Message;
    type State = State;
    type Arguments = ModelSchedulerArgs;

    async fn pre_start(&self, _: ActorRef<Message>, args: ModelSchedulerArgs) -> Result<State, ActorProcessingErr> {
        let (models, moves) = (BTreeMap::new(), VecDeque::new());
        Ok(State { args, models, swap: None, querying: false, swap_timer: None, moves })
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Status(id, host, status) => state.on_status(&me, &id, host, *status),
            Message::HostStopped(id, host) => state.on_host_stopped(&me, &id, host),
            Message::EngineUnloaded(id, reason) => state.record_move(&id, false, &reason),
            Message::Footprint { id, demand, footprint } => state.on_footprint(&me, &id, demand, *footprint),
            Message::Devices(devices) => state.schedule(&me, &devices),
            Message::SwapDue => state.reschedule(&me),
            Message::Moves(reply) => {
                // The caller may have stopped waiting.
                let _ = reply.send(state.moves.iter().cloned().collect());
            }
            #[cfg(feature = "test-panics")]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

impl State {
    fn on_status(
        &mut self,
        me: &ActorRef<Message>,
        id: &EngineId,
        host: DerivedActorRef<PlacementCommand>,
        status: EngineStatus,
    ) {
        let model = self.models.entry(id.clone()).or_insert_with(|| ScheduledModel::new(host.clone(), status.clone()));
        if !model.is_hosted_by(host.get_id()) {
            *model = ScheduledModel::new(host, status);
        } else {
            model.update(status);
        }
        if model.status.residency == Residency::Unloaded {
            model.draining = false;
            self.on_unloaded(id);
        }
        self.reschedule(me);
    }

    fn on_host_stopped(&mut self, me: &ActorRef<Message>, id: &EngineId, host: ActorId) {
        // Another host may have taken over its id.
        if self.models.get(id).is_none_or(|model| !model.is_hosted_by(host)) {
            return;
        }
        self.models.remove(id);
        self.on_unloaded(id);
        if self.swap.as_ref().is_some_and(|swap| swap.model == *id) {
            self.swap = None;
        }
        self.reschedule(me);
    }

    /// The memory of an engine is free: the pending swap completes once that holds for all its victims.
    fn on_unloaded(&mut self, id: &EngineId) {
        let Some(swap) = &mut self.swap else { return };
        swap.victims.remove(id);
        if swap.victims.is_empty()
            && let Some(PendingSwap { model, placement, .. }) = self.swap.take()
        {
            self.load(&model, placement);
        }
    }

    /// Queries the devices if requests wait for a model that is not loaded.
    fn reschedule(&mut self, me: &ActorRef<Message>) {
        if self.querying {
            return;
        }
        if self.swap.is_some() || !self.models.values().any(ScheduledModel::is_wanted) {
            self.undrain_except(&[]);
            return;
        }
        self.estimate_footprints(me);
        if !self.models.values().any(|model| model.is_wanted() && model.is_estimated()) {
            return;
        }
        self.querying = true;
        let mut in_use = DeviceBytes::new();
        for (device, bytes) in self.models.values().flat_map(|model| &model.status.device_bytes) {
            *in_use.entry(device.clone()).or_default() += bytes;
        }
        let (me, loader) = (me.clone(), self.args.loader.clone());
        tokio::spawn(async move {
            // A scheduler that was restarted meanwhile queries the devices itself.
            let _ = me.cast(Message::Devices(loader.devices(&in_use).await));
        });
    }

    /// Starts estimating the footprints of wanted models.
    fn estimate_footprints(&mut self, me: &ActorRef<Message>) {
        for (id, model) in self.models.iter_mut().filter(|(_, model)| model.is_wanted() && !model.is_estimated()) {
            let EngineStatus { model: definition, demand, is_kept, .. } = model.status.clone();
            if model.estimating.replace(demand) == Some(demand) {
                continue;
            }
            let (me, loader, id) = (me.clone(), self.args.loader.clone(), id.clone());
            tokio::spawn(async move {
                let footprint = tokio::spawn(async move { loader.footprint(&definition, demand).await }).await;
                let footprint = footprint.unwrap_or_else(|e| {
                    Err(LoadError::transient(format!("estimating the model's memory panicked: {e}")))
                });
                let footprint =
                    footprint.map(|footprint| ModelFootprint { model: id.to_string(), is_kept, ..footprint });
                let footprint = Box::new(footprint);
                // A scheduler that was restarted meanwhile asks again.
                let _ = me.cast(Message::Footprint { id, demand, footprint });
            });
        }
    }

    fn on_footprint(
        &mut self,
        me: &ActorRef<Message>,
        id: &EngineId,
        demand: MemoryDemand,
        footprint: Result<ModelFootprint, LoadError>,
    ) {
        let Some(model) = self.models.get_mut(id) else { return };
        model.estimating = None;
        match footprint {
            Err(error) => model.set_placement(Err(EngineUnavailable::Load(error))),
            Ok(footprint) => model.footprint = Some((demand, footprint)),
        }
        self.reschedule(me);
    }

    /// Decides what to load and evict, given the current devices.
    fn schedule(&mut self, me: &ActorRef<Message>, devices: &[Device]) {
        self.querying = false;
        // One swap at a time: the victims of a pending one still count as loaded.
        if self.swap.is_some() {
            return;
        }
        let kept = kept_models(&self.models);
        let evictable = self.models.iter().filter(|(_, model)| !is_kept(model, &self.models));
        let loaded: Vec<placement::ResidentModel> =
            evictable.filter_map(|(id, model)| model.loaded(id, &self.args.lookahead)).collect();
        for (id, reason) in self.refused(devices, &kept, &loaded) {
            if let Some(model) = self.models.get_mut(&id) {
                model.set_placement(Err(reason));
            }
        }
        let devices = left_by(&kept, devices);
        let queues: Vec<ModelQueue<'_>> = self.models.values().filter_map(ScheduledModel::queue).collect();
        let next_due = queues.iter().map(|queue| queue.max_wait().saturating_sub(queue.oldest_wait)).min();
        let decision = placement::decide_swap(&queues, &devices, &loaded);
        self.swap_timer =
            next_due.filter(|_| decision == SwapDecision::Keep).map(|delay| self.start_swap_timer(me, delay));
        match decision {
            SwapDecision::Keep => self.undrain_except(&[]),
            SwapDecision::Swap { model, victims, placement: place, reason } => {
                self.undrain_except(&victims);
                self.swap(&model, &victims, place, &reason);
                // Other models may be wanted too.
                self.reschedule(me);
            }
            SwapDecision::Drain { victims, reason, .. } => {
                tracing::info!(reason, "draining engines");
                self.undrain_except(&victims);
                self.drain(&victims);
            }
        }
    }

    /// The wanted models that would not fit even if nothing were loaded but what is kept for ever.
    fn refused(
        &self,
        devices: &[Device],
        kept: &[KeptModel],
        loaded: &[placement::ResidentModel],
    ) -> Vec<(EngineId, EngineUnavailable)> {
        let left = left_by(kept, devices);
        let wanted = self.models.iter().filter(|(_, model)| model.is_wanted());
        let refused = wanted.filter_map(|(id, model)| {
            let footprint = &model.footprint.as_ref()?.1;
            let EvictionPlan::Impossible(refusal) = placement::plan_eviction(footprint, &left, loaded) else {
                return None;
            };
            let reason = match KeptOut::of(footprint, devices, kept, refusal.clone()) {
                Some(kept_out) => EngineUnavailable::KeptOut(Box::new(kept_out)),
                // What is missing without them is what counts then.
                None => EngineUnavailable::Unplaceable(placement::place(footprint, devices).err().unwrap_or(refusal)),
            };
            Some((id.clone(), reason))
        });
        refused.collect()
    }

    fn start_swap_timer(&self, me: &ActorRef<Message>, delay: Duration) -> AbortOnDropHandle<()> {
        let me = me.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // A scheduler that has stopped needs no timer.
            let _ = me.cast(Message::SwapDue);
        }))
    }

    fn swap(&mut self, model: &str, victims: &[String], placement: Placement, reason: &str) {
        self.record_move(model, true, reason);
        let model: EngineId = model.into();
        if victims.is_empty() {
            return self.load(&model, placement);
        }
        for victim in victims {
            self.record_move(victim, false, &format!("evicted to free memory for {model}"));
            if let Some(victim) = self.models.get(victim.as_str()) {
                victim.send(PlacementCommand::Evict);
            }
        }
        let victims = victims.iter().map(|victim| victim.as_str().into()).collect();
        self.swap = Some(PendingSwap { model, placement, victims });
    }

    fn record_move(&mut self, model: &str, loaded: bool, reason: &str) {
        tracing::info!(model, reason, "{}", if loaded { "the model is to be loaded" } else { "the model is unloaded" });
        if self.moves.len() == MAX_MOVES {
            self.moves.pop_front();
        }
        self.moves.push_back(ModelMove {
            at: self.args.clock.system_time(),
            model: model.to_owned(),
            loaded,
            reason: reason.to_owned(),
        });
    }

    fn load(&mut self, id: &EngineId, placement: Placement) {
        if let Some(model) = self.models.get_mut(id) {
            model.set_placement(Ok(placement));
        }
    }

    fn drain(&mut self, victims: &[String]) {
        for (_, model) in self.models.iter_mut().filter(|(id, model)| is_in(id, victims) && !model.draining) {
            model.draining = true;
            model.send(PlacementCommand::SetDraining(true));
        }
    }

    /// Lets all other engines grant leases again.
    fn undrain_except(&mut self, victims: &[String]) {
        for (_, model) in self.models.iter_mut().filter(|(id, model)| model.draining && !is_in(id, victims)) {
            model.draining = false;
            model.send(PlacementCommand::SetDraining(false));
        }
    }
}

fn is_in(id: &EngineId, names: &[String]) -> bool {
    names.iter().any(|name| **name == **id)
}
