//! The keeper of one model's engine.

mod report;
mod uses;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use artel_engine::EngineHandle;
use artel_placement::{DeviceBytes, Placement};
use artel_roles::Model;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio_util::task::AbortOnDropHandle;

use crate::demand::Asked;
use crate::fleet::{self, Id, Standing, Status};
use crate::{Loader, Progress};

pub use report::{EngineReport, EngineState};
pub(crate) use uses::{Hopeless, Lease, unwrap};

/// The first pause after a failed load; it doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: a person who mends a file need not wait longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After so many failures in a row, a model is given up until somebody asks for it by name or the catalog changes.
const MAX_FAILURES: u32 = 5;
/// An engine that has served for so long was sound: what ends it then is a first failure.
const SOUND: Duration = Duration::from_secs(60);

/// Loads the engine of a model when it is first needed and the fleet has found it a place, keeps it, and loads it again after
/// it ended.
///
/// States: empty -> loading -> ready -> leaving (to make room, or on request) -> empty; ready -> broken (the engine ended) ->
/// loading (at once); loading -> broken -> loading (after a pause), or -> given up; empty -> broken (no place) -> loading. The
/// fleet is told of every change.
pub(crate) struct Keeper;

/// What a keeper is made with.
pub(crate) struct Arguments {
    pub(crate) id: Id,
    pub(crate) model: Arc<Model>,
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) fleet: ActorRef<fleet::Message>,
}

/// What a keeper is asked and told.
pub(crate) enum Message {
    /// Answers with the engine, once it is loaded.
    Engine(RpcReplyPort<Result<Lease, Hopeless>>),
    /// As `Engine`, from somebody who knows that it failed before: it is tried at once.
    Insist(RpcReplyPort<Result<Lease, Hopeless>>),
    /// A lease is over.
    Released,
    /// Computes these openings ahead of time, whenever the engine has been loaded, and keeps no adapters but these. The catalog
    /// may have changed.
    Prime(Asked),
    /// Load it there; or why it has no place.
    Place(Result<Box<Placement>, Hopeless>),
    /// Somebody else needs the room: take no new steps, or take some again.
    Drain(bool),
    /// Somebody else needs the room: go as soon as nobody uses it.
    Evict,
    /// Gives the engine up: those that run go on, and the model is freed when the last one is done.
    Unload(RpcReplyPort<Option<EngineHandle>>),
    /// Answers with what the engine does.
    Report(RpcReplyPort<EngineReport>),
    /// There is another fleet.
    Fleet(ActorRef<fleet::Message>),
    /// The load has ended.
    Loaded(Result<EngineHandle, String>),
    /// The engine of this generation has ended.
    Ended { generation: u64, reason: String },
    /// Panic, as a fault of ours would.
    #[cfg(test)]
    Panic,
}

pub(crate) struct State {
    id: Id,
    model: Arc<Model>,
    loader: Arc<dyn Loader>,
    fleet: ActorRef<fleet::Message>,
    engine: Engine,
    generation: u64,
    /// Those who wait for it, and since when.
    waiting: VecDeque<(RpcReplyPort<Result<Lease, Hopeless>>, Instant)>,
    uses: u32,
    draining: bool,
    last_use: Instant,
    used: Option<SystemTime>,
    load_cost: Duration,
    place: Option<Box<Placement>>,
    bytes: DeviceBytes,
    told: u64,
    /// What the fleet heard last, if that was that the engine serves and nobody waits: whether somebody uses it.
    serves: Option<bool>,
    failures: u32,
    restarts: u32,
    /// How it ended last.
    problem: Option<String>,
    asked: Asked,
    /// The openings that are computed now; another list, or another engine, ends it.
    priming: Option<AbortOnDropHandle<()>>,
}

enum Engine {
    Empty,
    /// Its share that is loaded, as the bits of a float.
    Loading(Arc<AtomicU32>),
    Ready {
        handle: EngineHandle,
        since: (Instant, SystemTime),
    },
    /// It goes: its memory is not free yet.
    Leaving,
    /// It ended by itself or could not be loaded.
    Broken {
        reason: Hopeless,
        /// When it may be loaded again; none: it was given up.
        until: Option<Instant>,
    },
}

impl Actor for Keeper {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<Message>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { id, model, loader, fleet } = arguments;
        let mut state = State {
            id,
            model,
            loader,
            fleet,
            engine: Engine::Empty,
            generation: 0,
            waiting: VecDeque::new(),
            uses: 0,
            draining: false,
            last_use: Instant::now(),
            used: None,
            load_cost: Duration::ZERO,
            place: None,
            bytes: DeviceBytes::new(),
            told: 0,
            serves: None,
            failures: 0,
            restarts: 0,
            problem: None,
            asked: Asked::default(),
            priming: None,
        };
        state.tell(&me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Engine(reply) => state.engine(&me, reply),
            Message::Insist(reply) => {
                state.mend();
                state.engine(&me, reply);
            }
            Message::Released => state.released(&me),
            Message::Prime(asked) => state.prime(&me, asked),
            Message::Place(place) => state.placed(&me, place),
            Message::Drain(draining) => {
                state.draining = draining;
                state.serve(&me);
            }
            Message::Evict => {
                state.draining = true;
                state.leave_if_idle(&me);
            }
            Message::Unload(reply) => {
                let handle = state.unload(&me);
                if handle.is_some() {
                    state.say_left("somebody asked for that");
                }
                answer(reply, handle);
            }
            Message::Report(reply) => state.report(reply),
            Message::Fleet(fleet) => {
                state.fleet = fleet;
                (state.draining, state.serves) = (false, None);
                state.serve(&me);
            }
            Message::Loaded(result) => state.loaded(&me, result),
            Message::Ended { generation, reason } => state.ended(&me, generation, reason),
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }

    async fn post_stop(&self, me: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        // A fleet that is gone needs no telling.
        let _ = state.fleet.cast(fleet::Message::Gone(state.id.clone(), me.get_id()));
        Ok(())
    }
}

impl State {
    fn engine(&mut self, me: &ActorRef<Message>, reply: RpcReplyPort<Result<Lease, Hopeless>>) {
        match &self.engine {
            Engine::Broken { reason, until: None } => {
                let reason = reason.reason();
                let reason = format!("{reason}; given up after {MAX_FAILURES} failures: `artel load` tries again");
                return answer(reply, Err(Hopeless::Broken(reason)));
            }
            Engine::Broken { reason, until: Some(until) } if Instant::now() < *until => {
                return answer(reply, Err(reason.clone()));
            }
            Engine::Broken { .. } => self.engine = Engine::Empty,
            _ => {}
        }
        self.waiting.push_back((reply, Instant::now()));
        self.serve(me);
    }

    /// Somebody has reason to think that it will go well now.
    fn mend(&mut self) {
        if matches!(self.engine, Engine::Broken { .. }) {
            self.engine = Engine::Empty;
        }
    }

    /// Gives the engine to those who wait, if it is there for them, and tells the fleet how things stand.
    fn serve(&mut self, me: &ActorRef<Message>) {
        if let Engine::Ready { handle, .. } = &self.engine
            && !self.draining
        {
            while let Some((reply, _)) = self.waiting.pop_front() {
                self.uses += 1;
                self.used = Some(SystemTime::now());
                // Whoever stopped waiting drops the lease, which is counted then.
                let _ = reply.send(Ok(Lease::new(handle.clone(), me)));
            }
        }
        self.tell_news(me);
    }

    fn released(&mut self, me: &ActorRef<Message>) {
        self.uses = self.uses.saturating_sub(1);
        (self.last_use, self.used) = (Instant::now(), Some(SystemTime::now()));
        if self.draining {
            self.leave_if_idle(me);
        }
        self.tell_news(me);
    }

    fn placed(&mut self, me: &ActorRef<Message>, place: Result<Box<Placement>, Hopeless>) {
        self.told += 1;
        match place {
            Err(reason) => self.refused(me, &reason),
            // It is there, or comes already.
            Ok(_) if matches!(self.engine, Engine::Ready { .. } | Engine::Loading(_)) => self.tell(me),
            Ok(place) => {
                self.bytes = place.bytes();
                self.place = Some(place.clone());
                self.draining = false;
                self.load(me, place);
                self.tell(me);
            }
        }
    }

    fn load(&mut self, me: &ActorRef<Message>, place: Box<Placement>) {
        let share = Arc::new(AtomicU32::new(0));
        self.engine = Engine::Loading(share.clone());
        self.last_use = Instant::now();
        let (me, model, loader) = (me.clone(), self.model.clone(), self.loader.clone());
        tokio::spawn(async move {
            tracing::info!(model = %model.name, devices = ?place.devices(), "loading");
            let progress: Progress = Arc::new(move |loaded| share.store(loaded.to_bits(), Ordering::Relaxed));
            let task = tokio::spawn(async move { loader.load(&model, &place, progress).await });
            let result = task.await.unwrap_or_else(|e| Err(format!("loading panicked: {e}")));
            // A keeper that was replaced meanwhile needs no engine.
            let _ = me.cast(Message::Loaded(result));
        });
    }

    fn loaded(&mut self, me: &ActorRef<Message>, result: Result<EngineHandle, String>) {
        let handle = match result {
            Ok(handle) => handle,
            Err(reason) => return self.failed(me, reason),
        };
        self.load_cost = self.last_use.elapsed();
        tracing::info!(model = %self.model.name, limits = ?handle.limits(), took = ?self.load_cost, "ready");
        self.generation += 1;
        self.engine = Engine::Ready { handle: handle.clone(), since: (Instant::now(), SystemTime::now()) };
        self.follow(me, &handle);
        self.serve(me);
        self.prime_now(handle);
    }

    /// Has the keeper told when the engine ends.
    fn follow(&self, me: &ActorRef<Message>, handle: &EngineHandle) {
        let (me, ended, generation) = (me.clone(), handle.watch_end(), self.generation);
        tokio::spawn(async move {
            let reason = ended.await;
            // A keeper that is gone has dropped its engine, which is why it ended.
            let _ = me.cast(Message::Ended { generation, reason });
        });
    }

    /// It could not be loaded: those who wait are told, and after a pause it is tried again.
    fn failed(&mut self, me: &ActorRef<Message>, reason: String) {
        tracing::error!(model = %self.id, reason, "cannot be loaded");
        self.say_left(&format!("it could not be loaded: {reason}"));
        let pause = (FIRST_PAUSE * 2u32.saturating_pow(self.failures)).min(LONGEST_PAUSE);
        self.failures += 1;
        let reason = Hopeless::Broken(reason);
        self.broken(reason.clone(), pause);
        self.disappoint(me, &reason);
    }

    /// There is no place for it: those who wait are told. That is no failure of its own, and room or a device may come back
    /// at any time.
    fn refused(&mut self, me: &ActorRef<Message>, reason: &Hopeless) {
        tracing::error!(model = %self.id, reason = reason.reason(), "has no place");
        self.gone();
        self.engine = Engine::Broken { reason: reason.clone(), until: Some(Instant::now() + FIRST_PAUSE) };
        self.disappoint(me, reason);
    }

    fn disappoint(&mut self, me: &ActorRef<Message>, reason: &Hopeless) {
        for (reply, _) in self.waiting.drain(..) {
            answer(reply, Err(reason.clone()));
        }
        self.tell(me);
    }

    /// It has failed once more: it may be loaded again after a pause, or is given up.
    fn broken(&mut self, reason: Hopeless, pause: Duration) {
        self.gone();
        let until = (self.failures < MAX_FAILURES).then(|| Instant::now() + pause);
        if until.is_none() {
            tracing::error!(model = %self.id, failures = self.failures, "given up: `artel load` tries again");
        }
        self.engine = Engine::Broken { reason, until };
    }

    /// Tells the fleet why the engine, which was loaded or being loaded, is not there any more.
    fn say_left(&self, reason: &str) {
        // A fleet that was replaced remembers nothing.
        let _ = self.fleet.cast(fleet::Message::Left(self.id.clone(), reason.to_owned()));
    }

    /// Its memory is free.
    fn gone(&mut self) {
        self.engine = Engine::Empty;
        (self.priming, self.place) = (None, None);
        self.bytes.clear();
        self.draining = false;
    }

    fn ended(&mut self, me: &ActorRef<Message>, generation: u64, reason: String) {
        if generation != self.generation {
            return;
        }
        match std::mem::replace(&mut self.engine, Engine::Empty) {
            Engine::Ready { since: (since, _), .. } => {
                let sound = since.elapsed() >= SOUND;
                tracing::warn!(model = %self.id, reason, sound, "the engine has ended by itself");
                self.say_left(&format!("it ended by itself: {reason}"));
                self.failures = if sound { 1 } else { self.failures + 1 };
                self.restarts += 1;
                self.problem = Some(reason.clone());
                // It is loaded again as soon as somebody needs it.
                self.broken(Hopeless::Broken(reason), Duration::ZERO);
            }
            Engine::Leaving => self.gone(),
            // It was unloaded, and is being loaded again already.
            other => self.engine = other,
        }
        self.tell(me);
    }

    fn prime(&mut self, me: &ActorRef<Message>, asked: Asked) {
        self.asked = asked;
        // Perhaps the catalog has changed.
        self.failures = 0;
        self.mend();
        if let Engine::Ready { handle, .. } = &self.engine {
            let handle = handle.clone();
            self.prime_now(handle);
        }
        self.tell(me);
    }

    fn prime_now(&mut self, handle: EngineHandle) {
        let Asked { openings, adapters } = self.asked.clone();
        handle.retain_adapters(adapters);
        let model = self.model.name.clone();
        let priming = tokio::spawn(async move {
            for opening in openings {
                let role = opening.flow.clone();
                if let Err(error) = handle.prefill(opening).await {
                    tracing::warn!(%model, %role, %error, "its prompt cannot be computed ahead of time");
                }
            }
        });
        self.priming = Some(AbortOnDropHandle::new(priming));
    }

    /// A load that is under way goes on, since steps wait for it.
    fn unload(&mut self, me: &ActorRef<Message>) -> Option<EngineHandle> {
        match std::mem::replace(&mut self.engine, Engine::Empty) {
            Engine::Ready { handle, since: (since, _) } => {
                tracing::info!(model = %self.model.name, "unloaded");
                if since.elapsed() >= SOUND {
                    self.failures = 0;
                }
                self.engine = Engine::Leaving;
                self.priming = None;
                self.tell(me);
                Some(handle)
            }
            Engine::Broken { .. } => {
                self.gone();
                None
            }
            other => {
                self.engine = other;
                None
            }
        }
    }

    fn leave_if_idle(&mut self, me: &ActorRef<Message>) {
        if self.uses == 0
            && let Some(handle) = self.unload(me)
        {
            // Nobody uses it: what was computed ahead is all that ends.
            tokio::spawn(async move { handle.close().await });
        }
    }

    fn serves(&self) -> Option<bool> {
        let serves = matches!(self.engine, Engine::Ready { .. }) && self.waiting.is_empty() && !self.draining;
        serves.then_some(self.uses > 0)
    }

    /// Tells the fleet, unless all that is new is how many steps use the engine: it need not hear of each of them.
    fn tell_news(&mut self, me: &ActorRef<Message>) {
        if self.serves.is_none() || self.serves != self.serves() {
            self.tell(me);
        }
    }

    fn tell(&mut self, me: &ActorRef<Message>) {
        self.waiting.retain(|(reply, _)| !reply.is_closed());
        self.serves = self.serves();
        let standing = match self.engine {
            Engine::Empty | Engine::Broken { .. } => Standing::Empty,
            Engine::Loading(_) | Engine::Leaving => Standing::Moving,
            Engine::Ready { .. } => Standing::Ready,
        };
        let status = Status {
            model: self.model.clone(),
            demand: self.asked.demand(),
            standing,
            uses: self.uses,
            waiting: self.waiting.len() as u32,
            oldest: self.waiting.front().map(|(_, since)| *since),
            last_use: self.last_use,
            load_cost: self.load_cost,
            bytes: self.bytes.clone(),
            told: self.told,
        };
        // A fleet that is gone is replaced, and then told.
        let _ = self.fleet.cast(fleet::Message::Status(self.id.clone(), me.clone(), Box::new(status)));
    }
}

/// Whoever asked may have stopped waiting.
fn answer<T: ractor::State>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}
