//! The fleet: which engines are loaded, where, and who goes to make room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use artel_placement::{self as placement, DeviceBytes, EvictionPlan, Device, ModelFootprint, Placement, ModelQueue, PlacementError, SwapDecision};
use artel_roles::Model;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio_util::task::AbortOnDropHandle;

use crate::Loader;
use crate::ahead::Ahead;
use crate::demand::Demand;
use crate::keeper::{self, Hopeless};

/// Loads and unloads that are remembered: a day of a busy machine.
const MOVES: usize = 256;

/// Decides what is loaded where, by the pure functions of `artel_placement`, and tells the keepers.
///
/// States: resting -> looking (at the devices) -> resting, or -> moving (engines leave to make room) -> resting. It is told
/// whatever changes at a keeper, and decides anew whenever a model is wanted that is not loaded.
pub(crate) struct Fleet;

/// What the fleet is asked and told.
pub(crate) enum Message {
    /// How it stands with the model of this keeper.
    Status(Id, ActorRef<keeper::Message>, Box<Status>),
    /// A keeper has ended, its engine with it.
    Gone(Id, ActorId),
    /// An engine is not there any more, or could not be loaded, for this reason. Nobody made it leave for somebody else.
    Left(Id, String),
    /// What a model takes if this is asked of it.
    Need { id: Id, demand: Demand, need: Box<Result<ModelFootprint, String>> },
    /// What there is now.
    Devices(Vec<Device>),
    /// Somebody has waited long.
    Late,
    /// Answers with what was loaded and unloaded, and why, the oldest first.
    Moves(RpcReplyPort<Vec<Move>>),
    /// Panic, as a fault of ours would.
    #[cfg(test)]
    Panic,
}

/// A keeper's name among the others: that of its model, with a number if another version of the catalog has one like it.
pub(crate) type Id = Arc<str>;

/// How it stands with a model.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) model: Arc<Model>,
    /// What roles ask of it.
    pub(crate) demand: Demand,
    pub(crate) standing: Standing,
    /// Steps that use it now.
    pub(crate) uses: u32,
    /// Steps that wait for it.
    pub(crate) waiting: u32,
    /// Since when the first of them has waited.
    pub(crate) oldest: Option<Instant>,
    pub(crate) last_use: Instant,
    /// What loading it took last time.
    pub(crate) load_cost: Duration,
    /// What it takes, while it is there.
    pub(crate) bytes: DeviceBytes,
    /// How many places it has been told: what was said before the last one is old.
    pub(crate) told: u64,
}

/// Whether an engine is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is not, and takes no memory.
    Empty,
    /// It comes or goes.
    Moving,
    /// It serves.
    Ready,
}

/// Something that was loaded or unloaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// When it was decided.
    pub at: SystemTime,
    /// The model.
    pub model: String,
    /// Whether it was loaded; otherwise it was unloaded.
    pub loaded: bool,
    /// Why, and for what is loaded, why there, in words and figures.
    pub reason: String,
}

struct Entry {
    keeper: ActorRef<keeper::Message>,
    status: Status,
    /// With the demand that it was reckoned for.
    need: Option<(Demand, ModelFootprint)>,
    /// The demand that somebody is reckoning it for.
    reckoning: Option<Demand>,
    draining: bool,
    /// How many places the keeper was told.
    told: u64,
}

/// Engines leave, and then this model comes.
struct Pending {
    model: Id,
    place: Placement,
    victims: BTreeSet<Id>,
}

pub(crate) struct State {
    loader: Arc<dyn Loader>,
    ahead: Ahead,
    entries: BTreeMap<Id, Entry>,
    pending: Option<Pending>,
    /// Whether the devices are looked at now.
    looking: bool,
    late: Option<AbortOnDropHandle<()>>,
    moves: VecDeque<Move>,
}

impl Actor for Fleet {
    type Msg = Message;
    type State = State;
    type Arguments = (Arc<dyn Loader>, Ahead);

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        (loader, ahead): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (entries, moves) = (BTreeMap::new(), VecDeque::new());
        Ok(State { loader, ahead, entries, pending: None, looking: false, late: None, moves })
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Status(id, keeper, status) => state.status(&me, &id, keeper, *status),
            Message::Gone(id, keeper) => state.gone(&me, &id, keeper),
            Message::Left(id, reason) => state.note(&id, false, &reason),
            Message::Need { id, demand, need } => state.need(&me, &id, demand, *need),
            Message::Devices(devices) => state.decide(&me, &devices),
            Message::Late => state.look(&me),
            Message::Moves(reply) => {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(state.moves.iter().cloned().collect());
            }
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

impl State {
    fn status(&mut self, me: &ActorRef<Message>, id: &Id, keeper: ActorRef<keeper::Message>, status: Status) {
        let entry = self.entries.entry(id.clone()).or_insert_with(|| Entry::new(keeper.clone(), status.clone()));
        if entry.keeper.get_id() != keeper.get_id() {
            *entry = Entry::new(keeper, status);
        } else {
            entry.hear(status);
        }
        if entry.status.standing == Standing::Empty {
            entry.draining = false;
            self.left(id);
        }
        self.look(me);
    }

    fn gone(&mut self, me: &ActorRef<Message>, id: &Id, keeper: ActorId) {
        // Another keeper may have its name by now.
        if self.entries.get(id).is_none_or(|entry| entry.keeper.get_id() != keeper) {
            return;
        }
        self.entries.remove(id);
        self.left(id);
        if self.pending.as_ref().is_some_and(|pending| pending.model == *id) {
            self.pending = None;
        }
        self.look(me);
    }

    /// An engine takes no memory any more: whoever waits for that may come.
    fn left(&mut self, id: &Id) {
        let Some(pending) = &mut self.pending else { return };
        pending.victims.remove(id);
        if pending.victims.is_empty()
            && let Some(Pending { model, place, .. }) = self.pending.take()
        {
            self.begin(&model, place);
        }
    }

    /// Looks at the devices if a model is wanted that is not there.
    fn look(&mut self, me: &ActorRef<Message>) {
        if self.looking {
            return;
        }
        if self.pending.is_some() || !self.entries.values().any(Entry::is_wanted) {
            self.undrain(&[]);
            return;
        }
        self.reckon(me);
        if !self.entries.values().any(|entry| entry.is_wanted() && entry.is_reckoned()) {
            return;
        }
        self.looking = true;
        let mut taken = DeviceBytes::new();
        for (device, bytes) in self.entries.values().flat_map(|entry| &entry.status.bytes) {
            *taken.entry(device.clone()).or_default() += bytes;
        }
        let (me, loader) = (me.clone(), self.loader.clone());
        tokio::spawn(async move {
            // A fleet that was replaced meanwhile looks for itself.
            let _ = me.cast(Message::Devices(loader.devices(&taken).await));
        });
    }

    /// Has it reckoned what wanted models take.
    fn reckon(&mut self, me: &ActorRef<Message>) {
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.is_wanted() && !entry.is_reckoned()) {
            let (model, demand) = (entry.status.model.clone(), entry.status.demand);
            if entry.reckoning.replace(demand) == Some(demand) {
                continue;
            }
            let (me, loader, id) = (me.clone(), self.loader.clone(), id.clone());
            tokio::spawn(async move {
                let need = tokio::spawn(async move { loader.need(&model, demand).await }).await;
                let need = need.unwrap_or_else(|e| Err(format!("reckoning what it takes panicked: {e}")));
                let need = Box::new(need.map(|need| ModelFootprint { model: id.to_string(), ..need }));
                // A fleet that was replaced meanwhile asks again.
                let _ = me.cast(Message::Need { id, demand, need });
            });
        }
    }

    fn need(&mut self, me: &ActorRef<Message>, id: &Id, demand: Demand, need: Result<ModelFootprint, String>) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.reckoning = None;
        match need {
            Err(reason) => entry.place(Err(Hopeless::Broken(reason))),
            Ok(need) => entry.need = Some((demand, need)),
        }
        self.look(me);
    }

    /// Something is wanted that is not there, and these are the devices.
    fn decide(&mut self, me: &ActorRef<Message>, devices: &[Device]) {
        self.looking = false;
        // One after the other: what goes now is counted as there.
        if self.pending.is_some() {
            return;
        }
        let loaded: Vec<placement::ResidentModel> =
            self.entries.iter().filter_map(|(id, entry)| entry.loaded(id, &self.ahead)).collect();
        let refused: Vec<(Id, PlacementError)> = self.refused(devices, &loaded);
        for (id, refusal) in refused {
            if let Some(entry) = self.entries.get_mut(&id) {
                // A device that is not there is no lack of room.
                let hopeless = if refusal.shortage().is_some() { Hopeless::NoRoom } else { Hopeless::Broken };
                entry.place(Err(hopeless(words(&refusal))));
            }
        }
        let queues: Vec<ModelQueue<'_>> = self.entries.values().filter_map(Entry::queue).collect();
        let next = queues.iter().map(|queue| queue.max_wait().saturating_sub(queue.oldest_wait)).min();
        let turn = placement::decide_swap(&queues, devices, &loaded);
        self.late = next.filter(|_| turn == SwapDecision::Keep).map(|wait| self.remind(me, wait));
        match turn {
            SwapDecision::Keep => self.undrain(&[]),
            SwapDecision::Swap { model, victims, placement: place, reason } => {
                self.undrain(&victims);
                self.swap(&model, &victims, place, &reason);
                // Others may be wanted too.
                self.look(me);
            }
            SwapDecision::Drain { victims, reason, .. } => {
                tracing::info!(reason, "engines take no new steps");
                self.undrain(&victims);
                self.drain(&victims);
            }
        }
    }

    /// Who would not fit if nothing else were there.
    fn refused(&self, devices: &[Device], loaded: &[placement::ResidentModel]) -> Vec<(Id, PlacementError)> {
        let wanted = self.entries.iter().filter(|(_, entry)| entry.is_wanted());
        let refused =
            wanted.filter_map(|(id, entry)| match placement::plan_eviction(&entry.need.as_ref()?.1, devices, loaded) {
                EvictionPlan::Impossible(refusal) => Some((id.clone(), refusal)),
                _ => None,
            });
        refused.collect()
    }

    fn remind(&self, me: &ActorRef<Message>, wait: Duration) -> AbortOnDropHandle<()> {
        let me = me.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // A fleet that is gone is not late.
            let _ = me.cast(Message::Late);
        }))
    }

    fn swap(&mut self, model: &str, victims: &[String], place: Placement, reason: &str) {
        self.note(model, true, reason);
        let model: Id = model.into();
        if victims.is_empty() {
            return self.begin(&model, place);
        }
        for victim in victims {
            self.note(victim, false, &format!("{model} needs its room"));
            if let Some(entry) = self.entries.get(victim.as_str()) {
                entry.tell(keeper::Message::Evict);
            }
        }
        let victims = victims.iter().map(|victim| victim.as_str().into()).collect();
        self.pending = Some(Pending { model, place, victims });
    }

    fn note(&mut self, model: &str, loaded: bool, reason: &str) {
        tracing::info!(model, reason, "{}", if loaded { "loads" } else { "goes" });
        if self.moves.len() == MOVES {
            self.moves.pop_front();
        }
        self.moves.push_back(Move {
            at: SystemTime::now(),
            model: model.to_owned(),
            loaded,
            reason: reason.to_owned(),
        });
    }

    fn begin(&mut self, id: &Id, place: Placement) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.place(Ok(place));
        }
    }

    fn drain(&mut self, victims: &[String]) {
        for (_, entry) in self.entries.iter_mut().filter(|(id, entry)| is_in(id, victims) && !entry.draining) {
            entry.draining = true;
            entry.tell(keeper::Message::Drain(true));
        }
    }

    /// Everybody but these may take new steps.
    fn undrain(&mut self, but: &[String]) {
        for (_, entry) in self.entries.iter_mut().filter(|(id, entry)| entry.draining && !is_in(id, but)) {
            entry.draining = false;
            entry.tell(keeper::Message::Drain(false));
        }
    }
}

fn is_in(id: &Id, names: &[String]) -> bool {
    names.iter().any(|name| **name == **id)
}

impl Entry {
    fn new(keeper: ActorRef<keeper::Message>, status: Status) -> Self {
        let told = status.told;
        Self { keeper, status, need: None, reckoning: None, draining: false, told }
    }

    /// What a keeper said before it knew its place holds no more, as far as places go.
    fn hear(&mut self, status: Status) {
        if status.told < self.told {
            let (standing, bytes) = (self.status.standing, std::mem::take(&mut self.status.bytes));
            self.status = Status { standing, bytes, ..status };
        } else {
            // What it takes is known better once it was loaded.
            if status.standing == Standing::Ready && self.status.standing != Standing::Ready {
                self.need = None;
            }
            self.status = status;
        }
    }

    fn is_wanted(&self) -> bool {
        self.status.standing == Standing::Empty && self.status.waiting > 0
    }

    fn is_reckoned(&self) -> bool {
        self.need.as_ref().is_some_and(|(demand, _)| *demand == self.status.demand)
    }

    /// Has the keeper load its model, or tell those who wait that there is no hope. Until it says more, the model counts as
    /// there.
    fn place(&mut self, place: Result<Placement, Hopeless>) {
        self.told += 1;
        self.status.standing = Standing::Moving;
        self.status.bytes = place.as_ref().map(Placement::bytes).unwrap_or_default();
        self.tell(keeper::Message::Place(place.map(Box::new)));
    }

    fn queue(&self) -> Option<ModelQueue<'_>> {
        let need = &self.need.as_ref().filter(|_| self.is_wanted() && self.is_reckoned())?.1;
        let oldest = self.status.oldest.map_or(Duration::ZERO, |since| since.elapsed());
        Some(ModelQueue { footprint: need, oldest_wait: oldest, load_time: self.status.load_cost })
    }

    fn loaded(&self, id: &Id, ahead: &Ahead) -> Option<placement::ResidentModel> {
        let status = &self.status;
        (status.standing != Standing::Empty).then(|| placement::ResidentModel {
            model: id.to_string(),
            bytes: status.bytes.clone(),
            is_busy: status.uses > 0 || status.standing == Standing::Moving,
            is_draining: self.draining,
            waiting_steps: status.waiting,
            steps_until_use: ahead.until(&status.model),
            idle: status.last_use.elapsed(),
            load_time: status.load_cost,
        })
    }

    fn tell(&self, message: keeper::Message) {
        // A keeper that has just ended says so.
        let _ = self.keeper.cast(message);
    }
}

/// A refusal with what would help.
pub(crate) fn words(refusal: &PlacementError) -> String {
    let remedies: Vec<String> = refusal.remedies().iter().map(ToString::to_string).collect();
    match remedies.is_empty() {
        true => refusal.to_string(),
        false => format!("{refusal}; what would help: {}", remedies.join("; or ")),
    }
}
