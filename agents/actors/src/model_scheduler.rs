//! The model scheduler: which models are loaded, where, and which are evicted for others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use artel_placement::{
    self as placement, Device, DeviceBytes, EvictionPlan, ModelFootprint, ModelQueue, Placement, PlacementError,
    SwapDecision,
};
use artel_roles::Model;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio_util::task::AbortOnDropHandle;

use crate::Loader;
use crate::engine_host::{self, EngineUnavailable};
use crate::lookahead::ModelLookahead;
use crate::model_workload::MemoryDemand;

/// Loads and unloads that are kept: about a day of a busy machine.
const MAX_MOVES: usize = 256;

/// Decides which model is loaded where, by the pure functions of `artel_placement`, and sends the decisions to the engine
/// hosts.
///
/// States: idle -> querying (the devices) -> idle, or -> swapping (engines are evicted for another) -> idle. Hosts send it
/// every change of status, and it schedules anew whenever requests wait for a model that is not loaded.
pub(crate) struct ModelScheduler;

/// The messages to the model scheduler.
pub(crate) enum Message {
    /// The status of this host's engine.
    Status(EngineId, ActorRef<engine_host::Message>, Box<EngineStatus>),
    /// A host has stopped, and its engine with it.
    HostStopped(EngineId, ActorId),
    /// An engine exited, failed to load or was unloaded on request, for this reason. Evictions are not reported.
    EngineUnloaded(EngineId, String),
    /// The estimated footprint of a model under this demand.
    Footprint { id: EngineId, demand: MemoryDemand, footprint: Box<Result<ModelFootprint, String>> },
    /// The current devices.
    Devices(Vec<Device>),
    /// A model has waited for as long as it may before another is swapped out.
    SwapDue,
    /// Answers with the loads and unloads and their reasons, the oldest first.
    Moves(RpcReplyPort<Vec<ModelMove>>),
    /// Panics, as a bug would.
    #[cfg(test)]
    Panic,
}

/// The id of an engine: the name of its model, with a number if another version of the catalog has a model of that name.
pub(crate) type EngineId = Arc<str>;

/// The status of an engine and its queue, as its host reports it.
#[derive(Debug, Clone)]
pub(crate) struct EngineStatus {
    pub(crate) model: Arc<Model>,
    /// The memory that its roles need beside the model.
    pub(crate) demand: MemoryDemand,
    pub(crate) residency: Residency,
    /// Steps that use it now.
    pub(crate) leases: u32,
    pub(crate) waiting_steps: u32,
    /// Since when the first of them has waited.
    pub(crate) waiting_since: Option<Instant>,
    pub(crate) idle_since: Instant,
    /// How long the last load took.
    pub(crate) load_time: Duration,
    /// The memory it takes, by device.
    pub(crate) device_bytes: DeviceBytes,
    /// The number of placements its host has received: a status sent before the latest one is stale.
    pub(crate) placement_version: u64,
}

/// Whether a model is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Residency {
    /// It takes no memory.
    Unloaded,
    /// It is being loaded or unloaded.
    Changing,
    /// It serves requests.
    Loaded,
}

/// A load or an unload.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelMove {
    /// When it was decided.
    pub at: SystemTime,
    /// The model.
    pub model: String,
    /// Whether it was loaded; otherwise it was unloaded.
    pub loaded: bool,
    /// Why it was loaded or unloaded; for a load, also why on these devices.
    pub reason: String,
}

struct ScheduledModel {
    host: ActorRef<engine_host::Message>,
    status: EngineStatus,
    /// The footprint and the demand that it was estimated for.
    footprint: Option<(MemoryDemand, ModelFootprint)>,
    /// The demand of the estimate in progress.
    estimating: Option<MemoryDemand>,
    draining: bool,
    /// Placements sent to the host.
    placement_version: u64,
}

/// A model to be loaded once its victims are unloaded.
struct PendingSwap {
    model: EngineId,
    placement: Placement,
    victims: BTreeSet<EngineId>,
}

pub(crate) struct State {
    loader: Arc<dyn Loader>,
    lookahead: ModelLookahead,
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
    type Arguments = (Arc<dyn Loader>, ModelLookahead);

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        (loader, lookahead): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (models, moves) = (BTreeMap::new(), VecDeque::new());
        Ok(State { loader, lookahead, models, swap: None, querying: false, swap_timer: None, moves })
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
            #[cfg(test)]
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
        host: ActorRef<engine_host::Message>,
        status: EngineStatus,
    ) {
        let model = self.models.entry(id.clone()).or_insert_with(|| ScheduledModel::new(host.clone(), status.clone()));
        if model.host.get_id() != host.get_id() {
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
        if self.models.get(id).is_none_or(|model| model.host.get_id() != host) {
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
        let (me, loader) = (me.clone(), self.loader.clone());
        tokio::spawn(async move {
            // A scheduler that was restarted meanwhile queries the devices itself.
            let _ = me.cast(Message::Devices(loader.devices(&in_use).await));
        });
    }

    /// Starts estimating the footprints of wanted models.
    fn estimate_footprints(&mut self, me: &ActorRef<Message>) {
        for (id, model) in self.models.iter_mut().filter(|(_, model)| model.is_wanted() && !model.is_estimated()) {
            let (definition, demand) = (model.status.model.clone(), model.status.demand);
            if model.estimating.replace(demand) == Some(demand) {
                continue;
            }
            let (me, loader, id) = (me.clone(), self.loader.clone(), id.clone());
            tokio::spawn(async move {
                let footprint = tokio::spawn(async move { loader.footprint(&definition, demand).await }).await;
                let footprint =
                    footprint.unwrap_or_else(|e| Err(format!("estimating the model's memory panicked: {e}")));
                let footprint =
                    Box::new(footprint.map(|footprint| ModelFootprint { model: id.to_string(), ..footprint }));
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
        footprint: Result<ModelFootprint, String>,
    ) {
        let Some(model) = self.models.get_mut(id) else { return };
        model.estimating = None;
        match footprint {
            Err(reason) => model.set_placement(Err(EngineUnavailable::Failed(reason))),
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
        let loaded: Vec<placement::ResidentModel> =
            self.models.iter().filter_map(|(id, model)| model.loaded(id, &self.lookahead)).collect();
        let refused: Vec<(EngineId, PlacementError)> = self.refused(devices, &loaded);
        for (id, refusal) in refused {
            if let Some(model) = self.models.get_mut(&id) {
                // A device that is missing is no shortage of memory.
                let unavailable = match refusal.shortage() {
                    Some(_) => EngineUnavailable::InsufficientMemory,
                    None => EngineUnavailable::Failed,
                };
                model.set_placement(Err(unavailable(describe_refusal(&refusal))));
            }
        }
        let queues: Vec<ModelQueue<'_>> = self.models.values().filter_map(ScheduledModel::queue).collect();
        let next_due = queues.iter().map(|queue| queue.max_wait().saturating_sub(queue.oldest_wait)).min();
        let decision = placement::decide_swap(&queues, devices, &loaded);
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

    /// The wanted models that would not fit even if nothing else were loaded.
    fn refused(&self, devices: &[Device], loaded: &[placement::ResidentModel]) -> Vec<(EngineId, PlacementError)> {
        let wanted = self.models.iter().filter(|(_, model)| model.is_wanted());
        let refused = wanted.filter_map(|(id, model)| {
            match placement::plan_eviction(&model.footprint.as_ref()?.1, devices, loaded) {
                EvictionPlan::Impossible(refusal) => Some((id.clone(), refusal)),
                _ => None,
            }
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
                victim.send(engine_host::Message::Evict);
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
            at: SystemTime::now(),
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
            model.send(engine_host::Message::SetDraining(true));
        }
    }

    /// Lets all other engines grant leases again.
    fn undrain_except(&mut self, victims: &[String]) {
        for (_, model) in self.models.iter_mut().filter(|(id, model)| model.draining && !is_in(id, victims)) {
            model.draining = false;
            model.send(engine_host::Message::SetDraining(false));
        }
    }
}

fn is_in(id: &EngineId, names: &[String]) -> bool {
    names.iter().any(|name| **name == **id)
}

impl ScheduledModel {
    fn new(host: ActorRef<engine_host::Message>, status: EngineStatus) -> Self {
        let placement_version = status.placement_version;
        Self { host, status, footprint: None, estimating: None, draining: false, placement_version }
    }

    /// Takes over a status. One sent before the host received its latest placement is stale in what depends on that.
    fn update(&mut self, status: EngineStatus) {
        if status.placement_version < self.placement_version {
            let (residency, device_bytes) = (self.status.residency, std::mem::take(&mut self.status.device_bytes));
            self.status = EngineStatus { residency, device_bytes, ..status };
        } else {
            // A load may have measured what the footprint is estimated from.
            if status.residency == Residency::Loaded && self.status.residency != Residency::Loaded {
                self.footprint = None;
            }
            self.status = status;
        }
    }

    fn is_wanted(&self) -> bool {
        self.status.residency == Residency::Unloaded && self.status.waiting_steps > 0
    }

    fn is_estimated(&self) -> bool {
        self.footprint.as_ref().is_some_and(|(demand, _)| *demand == self.status.demand)
    }

    /// Has the host load its model, or fail its waiting steps. Until the host answers, the model counts as loaded.
    fn set_placement(&mut self, placement: Result<Placement, EngineUnavailable>) {
        self.placement_version += 1;
        self.status.residency = Residency::Changing;
        self.status.device_bytes = placement.as_ref().map(Placement::bytes).unwrap_or_default();
        self.send(engine_host::Message::SetPlacement(placement.map(Box::new)));
    }

    fn queue(&self) -> Option<ModelQueue<'_>> {
        let need = &self.footprint.as_ref().filter(|_| self.is_wanted() && self.is_estimated())?.1;
        let oldest = self.status.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        Some(ModelQueue { footprint: need, oldest_wait: oldest, load_time: self.status.load_time })
    }

    fn loaded(&self, id: &EngineId, lookahead: &ModelLookahead) -> Option<placement::ResidentModel> {
        let status = &self.status;
        (status.residency != Residency::Unloaded).then(|| placement::ResidentModel {
            model: id.to_string(),
            bytes: status.device_bytes.clone(),
            is_busy: status.leases > 0 || status.residency == Residency::Changing,
            is_draining: self.draining,
            waiting_steps: status.waiting_steps,
            steps_until_use: lookahead.steps_until(&status.model),
            idle: status.idle_since.elapsed(),
            load_time: status.load_time,
        })
    }

    fn send(&self, message: engine_host::Message) {
        // A host that has just stopped reports that itself.
        let _ = self.host.cast(message);
    }
}

/// The text of a refusal with its remedies.
fn describe_refusal(refusal: &PlacementError) -> String {
    let remedies: Vec<String> = refusal.remedies().iter().map(ToString::to_string).collect();
    match remedies.is_empty() {
        true => refusal.to_string(),
        false => format!("{refusal}; what would help: {}", remedies.join("; or ")),
    }
}
