//! `artel engine`: one model in a process of its own, which the daemon starts and speaks to over its standard input.

pub(crate) mod monitor;
pub(crate) mod probe;
mod spec;

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use artel_engine::{EngineHandle, SharedCpu};
use artel_process::{EngineLoader, DeviceMemory, ServeOutcome};
use async_trait::async_trait;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) use spec::{Common, Form, Spec, Spread};

use crate::args;
use crate::serve::{signals, telemetry};

/// Of the processes of a daemon, engines are killed first when memory runs short: they are loaded again, and the daemon goes on.
const OOM_SCORE: &str = "300";

/// Serves until the daemon has no more use for the engine, or looks for devices.
pub(crate) fn run(args: &args::Engine) -> ExitCode {
    if args.probe {
        return probe::run(args.rpc.as_deref());
    }
    telemetry::start(true);
    // Kernels without it, and processes that may not change it, do as well.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    // The memory of a model is of no use on disk; its last words are in the log.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    match serve() {
        Ok(ServeOutcome::Closed | ServeOutcome::Disconnected { is_freed: true }) => ExitCode::SUCCESS,
        Ok(ServeOutcome::Disconnected { is_freed: false }) => {
            // A thread computes that nobody waits for; what ends with the process must not be destroyed under it.
            let _ = kill(Pid::this(), Signal::SIGKILL);
            ExitCode::FAILURE
        }
        Ok(ServeOutcome::EngineEnded(reason)) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("artel engine is started by the daemon, not by hand: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// This very program, even if its file was replaced meanwhile.
pub(crate) fn itself() -> Result<PathBuf, String> {
    let running = PathBuf::from("/proc/self/exe");
    let path = if running.exists() { Ok(running) } else { std::env::current_exe() };
    path.map_err(|e| format!("the program does not find itself: {e}"))
}

fn serve() -> Result<ServeOutcome> {
    let input = std::io::stdin().as_fd().try_clone_to_owned().context("failed to take standard input over")?;
    let socket = UnixStream::from(input);
    socket.peer_addr().context("standard input is no connected socket")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    let serving = async {
        signals::outlive_limits()?;
        artel_process::serve(socket, LlamaLoading).await
    };
    let serving = runtime.block_on(serving).context("the socket failed")?;
    runtime.shutdown_background();
    Ok(serving)
}

/// Loads models with llama.cpp.
pub(crate) struct LlamaLoading;

#[async_trait]
impl EngineLoader for LlamaLoading {
    async fn load(
        &self,
        spec: &str,
        turn: Option<SharedCpu>,
        progress: Arc<dyn Fn(f32) + Send + Sync>,
    ) -> Result<(EngineHandle, Vec<DeviceMemory>), String> {
        let spec: Spec = serde_json::from_str(spec).map_err(|e| format!("the engine was told nonsense: {e}"))?;
        spec.load(turn, progress).await
    }
}
