//! `artel engine`: one model in a process of its own. The daemon starts it and communicates over its standard input.

pub(crate) mod environment;
mod monitor;
pub(crate) mod probe;
mod spec;

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use artel_args::EngineArgs;
use artel_engine::{EngineHandle, LoadError, SharedCpu};
use artel_log::FilterHandle;
use artel_process::{DeviceMemory, EngineLoader, ServeOutcome};
use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) use spec::{EngineDefaults, EngineSpec, kv_cache_type};

use crate::hardening::CoreDumps;
use crate::{signals, telemetry};

/// When memory runs out, the kernel kills engines before the daemon: an engine is loaded again, and the daemon keeps running.
const OOM_SCORE_ADJ: &str = "300";

/// Serves until the daemon closes the engine; with `--probe`, lists devices.
pub(crate) fn run(args: &EngineArgs) -> ExitCode {
    if args.probe {
        CoreDumps::forbid().decide(args.core_dumps);
        return probe::run(args.rpc.as_deref());
    }
    // Best effort: the file may be missing or not writable. Later it would belong to root.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    CoreDumps::forbid().decide(args.core_dumps);
    let log = telemetry::start_engine();
    match serve(log) {
        Ok(ServeOutcome::Closed | ServeOutcome::Disconnected { is_freed: true }) => ExitCode::SUCCESS,
        Ok(ServeOutcome::Disconnected { is_freed: false }) => {
            // A thread is still computing. Exit without destructors, which would free what the thread uses.
            let _ = kill(Pid::this(), Signal::SIGKILL);
            ExitCode::FAILURE
        }
        Ok(ServeOutcome::EngineEnded(reason)) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("artel engine must be started by the daemon: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn serve(log: FilterHandle) -> Result<ServeOutcome> {
    let input = std::io::stdin().as_fd().try_clone_to_owned().context("failed to duplicate standard input")?;
    let socket = UnixStream::from(input);
    socket.peer_addr().context("standard input is not a connected socket")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    let serving = async {
        signals::handle_file_size_limit()?;
        artel_process::serve(socket, LlamaEngineLoader { log }).await
    };
    let serving = runtime.block_on(serving).context("failed to serve on the socket")?;
    runtime.shutdown_background();
    Ok(serving)
}

/// Loads models with llama.cpp from serialized specs.
struct LlamaEngineLoader {
    /// What the process logs.
    log: FilterHandle,
}

#[async_trait]
impl EngineLoader for LlamaEngineLoader {
    async fn load(
        &self,
        spec: &str,
        turn: Option<SharedCpu>,
        progress: Arc<dyn Fn(f32) + Send + Sync>,
    ) -> Result<(EngineHandle, Vec<DeviceMemory>), LoadError> {
        // Another version of the program wrote it.
        let invalid = |e: serde_json::Error| LoadError::permanent(format!("the engine spec is invalid: {e}"));
        let spec: EngineSpec = serde_json::from_str(spec).map_err(invalid)?;
        spec.load(turn, progress).await
    }

    fn set_log_level(&self, filter: &str) {
        // Of the same version as this program, so that it is one.
        if let Ok(filter) = filter.parse() {
            self.log.set(&filter);
        }
    }
}
