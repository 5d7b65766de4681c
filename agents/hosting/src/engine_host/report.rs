//! The public report of an engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use artel_engine::backend::EngineLimits;
use artel_engine::{EngineHandle, EngineStats, SamplingOptions};
use artel_placement::{DeviceBytes, Placement};
use artel_roles::Model;
use ractor::RpcReplyPort;

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
    /// What its file states of its sampling; empty unless it is ready.
    pub sampling_defaults: SamplingOptions,
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
    /// For how long it has been ready and unused; none unless it is.
    pub idle: Option<Duration>,
    /// When it is unloaded if nothing uses it until then, by the `keep` of its model; none if it stays.
    pub unloads_at: Option<SystemTime>,
    /// Whether it is kept for ever. One that the newest catalog does not have is not.
    pub is_kept: bool,
}

impl EngineReport {
    /// Sends it once the counters are there. Those of an engine in a process of its own come over IPC, for which an actor must
    /// not wait.
    pub(super) fn send_with_stats(self, handle: Option<EngineHandle>, reply: RpcReplyPort<Self>) {
        tokio::spawn(async move {
            let stats = match &handle {
                Some(handle) => Some(handle.fetch_stats().await),
                None => None,
            };
            // The caller may have stopped waiting.
            let _ = reply.send(Self { stats, ..self });
        });
    }
}

/// Adapters that apply together, as a report names them.
pub(super) fn adapters_text(set: &[(PathBuf, f32)]) -> String {
    let text = |(path, scale): &(PathBuf, f32)| adapter_text(path, *scale);
    set.iter().map(text).collect::<Vec<_>>().join(" and ")
}

/// An adapter as a report names it.
fn adapter_text(path: &Path, scale: f32) -> String {
    if scale == 1.0 { path.display().to_string() } else { format!("{} at {scale}", path.display()) }
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
