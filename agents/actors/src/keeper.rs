//! The keeper of one model's engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use artel_engine::{Handle, Stats};
use artel_roles::Model;
use artel_task::event::{Code, Failure};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio_util::task::AbortOnDropHandle;

use crate::Loader;
use crate::report::failure;

/// The first pause after a failed load; it doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: a person who mends a file need not wait longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Loads the engine of a model when it is first needed, keeps it, and loads it again after it ended.
///
/// States: empty -> loading -> ready -> empty (the engine ended), or loading -> broken -> loading (after a pause).
pub(crate) struct Keeper;

/// What a keeper is asked and told.
pub(crate) enum Message {
    /// Answers with the engine, once it is loaded.
    Engine(RpcReplyPort<Result<Handle, String>>),
    /// Computes these openings ahead of time, whenever the engine has been loaded, and keeps no adapters but these.
    Prime { openings: Vec<artel_engine::Request>, adapters: Vec<(PathBuf, f32)> },
    /// Gives the engine up: those that run go on, and the model is freed when the last one is done.
    Unload(RpcReplyPort<Option<Handle>>),
    /// Answers with what the engine does.
    Report(RpcReplyPort<EngineReport>),
    /// The load has ended.
    Loaded(Result<Handle, String>),
    /// The engine of this generation has ended.
    Ended { generation: u64, reason: String },
    /// Panic, as a fault of ours would.
    #[cfg(test)]
    Panic,
}

/// An engine as others see it.
#[derive(Debug, Clone)]
pub struct EngineReport {
    /// The model.
    pub model: Arc<Model>,
    /// Where it stands.
    pub state: EngineState,
    /// What it has done and does, while it is ready.
    pub stats: Option<Stats>,
    /// What it can hold, while it is ready.
    pub limits: Option<artel_engine::backend::Limits>,
}

/// Where an engine stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// Not loaded; it is loaded when first needed.
    Empty,
    /// Being loaded.
    Loading,
    /// Ready.
    Ready,
    /// The last load failed, for this reason.
    Broken(String),
}

pub(crate) struct State {
    model: Arc<Model>,
    loader: Arc<dyn Loader>,
    engine: Engine,
    generation: u64,
    failures: u32,
    openings: Vec<artel_engine::Request>,
    adapters: Vec<(PathBuf, f32)>,
    /// The openings that are computed now; another list, or another engine, ends it.
    priming: Option<AbortOnDropHandle<()>>,
}

enum Engine {
    Empty,
    Loading(Vec<RpcReplyPort<Result<Handle, String>>>),
    Ready(Handle),
    Broken { reason: String, until: Instant },
}

impl Actor for Keeper {
    type Msg = Message;
    type State = State;
    type Arguments = (Arc<Model>, Arc<dyn Loader>);

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        (model, loader): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State {
            model,
            loader,
            engine: Engine::Empty,
            generation: 0,
            failures: 0,
            openings: Vec::new(),
            adapters: Vec::new(),
            priming: None,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Engine(reply) => state.engine(&me, reply),
            Message::Prime { openings, adapters } => state.prime(openings, adapters),
            Message::Unload(reply) => answer(reply, state.unload()),
            Message::Report(reply) => answer(reply, state.report()),
            Message::Loaded(result) => state.loaded(&me, &result),
            Message::Ended { generation, reason } => state.ended(generation, &reason),
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

impl State {
    fn engine(&mut self, me: &ActorRef<Message>, reply: RpcReplyPort<Result<Handle, String>>) {
        match &mut self.engine {
            Engine::Ready(handle) => answer(reply, Ok(handle.clone())),
            Engine::Loading(waiting) => waiting.push(reply),
            Engine::Broken { reason, until } if Instant::now() < *until => answer(reply, Err(reason.clone())),
            Engine::Empty | Engine::Broken { .. } => {
                self.engine = Engine::Loading(vec![reply]);
                let (me, model, loader) = (me.clone(), self.model.clone(), self.loader.clone());
                tokio::spawn(async move {
                    tracing::info!(model = %model.name, "loading");
                    let task = tokio::spawn(async move { loader.load(&model).await });
                    let result = task.await.unwrap_or_else(|e| Err(format!("loading panicked: {e}")));
                    // A keeper that was replaced meanwhile needs no engine.
                    let _ = me.cast(Message::Loaded(result));
                });
            }
        }
    }

    fn loaded(&mut self, me: &ActorRef<Message>, result: &Result<Handle, String>) {
        let waiting = match std::mem::replace(&mut self.engine, Engine::Empty) {
            Engine::Loading(waiting) => waiting,
            _ => Vec::new(),
        };
        match result {
            Ok(handle) => {
                tracing::info!(model = %self.model.name, limits = ?handle.limits(), "ready");
                self.generation += 1;
                self.failures = 0;
                self.engine = Engine::Ready(handle.clone());
                self.prime_now(handle.clone());
                let (me, handle, generation) = (me.clone(), handle.watcher(), self.generation);
                tokio::spawn(async move {
                    let reason = handle.await;
                    // A keeper that is gone has dropped its engine, which is why it ended.
                    let _ = me.cast(Message::Ended { generation, reason });
                });
            }
            Err(reason) => {
                tracing::error!(model = %self.model.name, %reason, "cannot be loaded");
                let pause = (FIRST_PAUSE * 2u32.saturating_pow(self.failures)).min(LONGEST_PAUSE);
                self.failures += 1;
                self.engine = Engine::Broken { reason: reason.clone(), until: Instant::now() + pause };
            }
        }
        for reply in waiting {
            answer(reply, result.clone());
        }
    }

    fn ended(&mut self, generation: u64, reason: &str) {
        if generation == self.generation {
            tracing::warn!(model = %self.model.name, %reason, "the engine has ended; it is loaded again when needed");
            self.engine = Engine::Empty;
            self.priming = None;
        }
    }

    fn prime(&mut self, openings: Vec<artel_engine::Request>, adapters: Vec<(PathBuf, f32)>) {
        (self.openings, self.adapters) = (openings, adapters);
        if let Engine::Ready(handle) = &self.engine {
            self.prime_now(handle.clone());
        }
    }

    fn prime_now(&mut self, handle: Handle) {
        handle.keep_adapters(self.adapters.clone());
        let (openings, model) = (self.openings.clone(), self.model.name.clone());
        let priming = tokio::spawn(async move {
            for opening in openings {
                let role = opening.flow.clone();
                if let Err(error) = handle.prime(opening).await {
                    tracing::warn!(%model, %role, %error, "its prompt cannot be computed ahead of time");
                }
            }
        });
        self.priming = Some(AbortOnDropHandle::new(priming));
    }

    /// A load that is under way goes on, since steps wait for it.
    fn unload(&mut self) -> Option<Handle> {
        match std::mem::replace(&mut self.engine, Engine::Empty) {
            Engine::Ready(handle) => {
                tracing::info!(model = %self.model.name, "unloaded");
                // Its end is no accident, and nothing is computed ahead on it.
                self.generation += 1;
                self.priming = None;
                Some(handle)
            }
            loading @ Engine::Loading(_) => {
                self.engine = loading;
                None
            }
            Engine::Empty | Engine::Broken { .. } => None,
        }
    }

    fn report(&self) -> EngineReport {
        let (state, handle) = match &self.engine {
            Engine::Empty => (EngineState::Empty, None),
            Engine::Loading(_) => (EngineState::Loading, None),
            Engine::Ready(handle) => (EngineState::Ready, Some(handle)),
            Engine::Broken { reason, .. } => (EngineState::Broken(reason.clone()), None),
        };
        let (stats, limits) = (handle.map(Handle::stats), handle.map(Handle::limits));
        EngineReport { model: self.model.clone(), state, stats, limits }
    }
}

/// The engine that a keeper answered with, or why there is none.
pub(crate) fn unwrap<E: std::fmt::Display>(answer: Result<Result<Handle, String>, E>) -> Result<Handle, Failure> {
    match answer {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(reason)) => Err(failure(Code::ModelUnavailable, reason)),
        Err(e) => Err(failure(Code::ModelUnavailable, format!("the engine's keeper is gone: {e}"))),
    }
}

/// Whoever asked may have stopped waiting.
fn answer<T: ractor::State>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}
