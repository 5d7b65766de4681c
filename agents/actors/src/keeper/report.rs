//! An engine as others see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use artel_engine::EngineStats;
use artel_engine::backend::EngineLimits;
use artel_placement::{DeviceBytes, Placement};
use artel_roles::Model;
use ractor::RpcReplyPort;

use super::{Engine, State};

/// An engine as others see it.
#[derive(Debug, Clone)]
pub struct EngineReport {
    /// Its name among the others.
    pub id: String,
    /// The model.
    pub model: Arc<Model>,
    /// Where it stands.
    pub state: EngineState,
    /// What it has done and does, while it is ready.
    pub stats: Option<EngineStats>,
    /// What it can hold, while it is ready.
    pub limits: Option<EngineLimits>,
    /// Where it is, while it is loaded or being loaded.
    pub place: Option<Placement>,
    /// What it takes, by device.
    pub bytes: DeviceBytes,
    /// The adapters that its roles have.
    pub adapters: Vec<String>,
    /// Its process, if it has one of its own.
    pub process: Option<u32>,
    /// How often it ended by itself.
    pub restarts: u32,
    /// How it ended last.
    pub problem: Option<String>,
    /// When it began to serve.
    pub since: Option<SystemTime>,
    /// When it was last used.
    pub used: Option<SystemTime>,
    /// Steps that use it now.
    pub uses: u32,
    /// What loading it took last time.
    pub load_cost: Duration,
    /// Steps that wait for it to be loaded.
    pub waiting: u32,
}

/// Where an engine stands.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineState {
    /// Not loaded; it is loaded when first needed.
    Empty,
    /// So much of it is loaded, from 0 to 1; or so much of its file is here, as long as that comes from elsewhere.
    Loading(f32),
    /// Ready.
    Ready,
    /// Finishing what it has, to be unloaded then.
    Draining,
    /// It ended by itself, or the last load failed.
    Broken {
        /// Why.
        reason: String,
        /// In how long it is loaded again, if it is needed; none: it was given up.
        retry: Option<Duration>,
    },
}

impl State {
    pub(super) fn report(&self, reply: RpcReplyPort<EngineReport>) {
        let (state, handle, since) = match &self.engine {
            Engine::Empty => {
                let coming = self.loader.coming(&self.model);
                (coming.map_or(EngineState::Empty, EngineState::Loading), None, None)
            }
            Engine::Loading(share) => (EngineState::Loading(f32::from_bits(share.load(Ordering::Relaxed))), None, None),
            Engine::Ready { handle, since } if self.draining => (EngineState::Draining, Some(handle), Some(since.1)),
            Engine::Ready { handle, since } => (EngineState::Ready, Some(handle), Some(since.1)),
            Engine::Leaving => (EngineState::Draining, None, None),
            Engine::Broken { reason, until } => {
                let retry = until.map(|until| until.saturating_duration_since(Instant::now()));
                (EngineState::Broken { reason: reason.reason().to_owned(), retry }, None, None)
            }
        };
        let adapter = |(path, scale): &(std::path::PathBuf, f32)| {
            if *scale == 1.0 { path.display().to_string() } else { format!("{} at {scale}", path.display()) }
        };
        let report = EngineReport {
            id: self.id.to_string(),
            model: self.model.clone(),
            state,
            stats: None,
            limits: handle.map(artel_engine::EngineHandle::limits),
            place: self.place.as_deref().cloned(),
            bytes: self.bytes.clone(),
            adapters: self.asked.adapters.iter().map(adapter).collect(),
            process: handle.and_then(artel_engine::EngineHandle::process_id),
            restarts: self.restarts,
            problem: self.problem.clone(),
            since,
            used: self.used,
            uses: self.uses,
            load_cost: self.load_cost,
            waiting: self.waiting.len() as u32,
        };
        let handle = handle.cloned();
        // An engine in a process of its own has to be asked, which no actor waits for.
        tokio::spawn(async move {
            let stats = match &handle {
                Some(handle) => Some(handle.fetch_stats().await),
                None => None,
            };
            // Whoever asked may have stopped waiting.
            let _ = reply.send(EngineReport { stats, ..report });
        });
    }
}
