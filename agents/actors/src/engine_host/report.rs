//! The public report of an engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use artel_engine::EngineStats;
use artel_engine::backend::EngineLimits;
use artel_placement::{DeviceBytes, Placement};
use artel_roles::Model;
use ractor::RpcReplyPort;

use super::{HostedEngine, State};

/// The state of a model's engine, its placement and its counters.
#[derive(Debug, Clone)]
pub struct EngineReport {
    /// Its id among the engines.
    pub id: String,
    /// The model.
    pub model: Arc<Model>,
    /// Its state.
    pub state: EngineState,
    /// Its counters; set while it is ready.
    pub stats: Option<EngineStats>,
    /// Its capacity; set while it is ready.
    pub limits: Option<EngineLimits>,
    /// Its devices; set while it is loaded or being loaded.
    pub placement: Option<Placement>,
    /// The memory it takes, by device.
    pub device_bytes: DeviceBytes,
    /// The adapters of its roles.
    pub adapters: Vec<String>,
    /// Its process id, if it has a process of its own.
    pub process_id: Option<u32>,
    /// How often it has exited unexpectedly.
    pub restarts: u32,
    /// The reason of its last unexpected exit.
    pub last_error: Option<String>,
    /// When it became ready.
    pub ready_since: Option<SystemTime>,
    /// When a step last used it.
    pub last_used: Option<SystemTime>,
    /// Steps that use it now.
    pub active_steps: u32,
    /// How long the last load took.
    pub load_time: Duration,
    /// Steps that wait for it to be loaded.
    pub waiting_steps: u32,
}

/// The state of an engine.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineState {
    /// Not loaded; it is loaded when first needed.
    Unloaded,
    /// The loaded fraction of the model, from 0 to 1; while its file is downloaded, the downloaded fraction.
    Loading(f32),
    /// Ready.
    Ready,
    /// Finishing its requests, to be unloaded then.
    Draining,
    /// It exited unexpectedly, or the last load failed.
    Failed {
        /// Why.
        reason: String,
        /// In how long it may be loaded again, if it is needed; `None` if it was given up.
        retry_after: Option<Duration>,
    },
}

impl State {
    pub(super) fn report(&self, reply: RpcReplyPort<EngineReport>) {
        let (state, handle, ready_since) = match &self.engine {
            HostedEngine::Unloaded => {
                let progress = self.loader.download_progress(&self.model);
                (progress.map_or(EngineState::Unloaded, EngineState::Loading), None, None)
            }
            HostedEngine::Loading(fraction) => {
                (EngineState::Loading(f32::from_bits(fraction.load(Ordering::Relaxed))), None, None)
            }
            HostedEngine::Ready { handle, since } if self.draining => {
                (EngineState::Draining, Some(handle), Some(since.1))
            }
            HostedEngine::Ready { handle, since } => (EngineState::Ready, Some(handle), Some(since.1)),
            HostedEngine::Unloading => (EngineState::Draining, None, None),
            HostedEngine::Failed { reason, retry_at } => {
                let retry_after = retry_at.map(|retry_at| retry_at.saturating_duration_since(Instant::now()));
                (EngineState::Failed { reason: reason.reason().to_owned(), retry_after }, None, None)
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
            placement: self.placement.as_deref().cloned(),
            device_bytes: self.device_bytes.clone(),
            adapters: self.workload.adapters.iter().map(adapter).collect(),
            process_id: handle.and_then(artel_engine::EngineHandle::process_id),
            restarts: self.restarts,
            last_error: self.last_error.clone(),
            ready_since,
            last_used: self.last_used,
            active_steps: self.leases,
            load_time: self.load_time,
            waiting_steps: self.waiters.len() as u32,
        };
        let handle = handle.cloned();
        // The stats of an engine in a process of its own come over IPC, for which an actor must not wait.
        tokio::spawn(async move {
            let stats = match &handle {
                Some(handle) => Some(handle.fetch_stats().await),
                None => None,
            };
            // The caller may have stopped waiting.
            let _ = reply.send(EngineReport { stats, ..report });
        });
    }
}
