//! The daemon's side: starts an engine process, supervises it, and explains its exit.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_engine::{EngineHandle, EngineStats};
use artel_proto::engine::v1;
use artel_proto::engine::v1::engine_client::EngineClient;
use artel_proto::engine::v1::load_event::Event;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};

use crate::cpu_lease::CpuLeaseBroker;
use crate::remote_engine::{RemoteConnection, RemoteEngine};
use crate::stderr_log::StderrLog;
use crate::{DeviceMemory, MAX_MESSAGE_BYTES, exit_reason, wire};

/// The interval at which kills for lack of memory are counted, to attribute one to the exit of a process.
const OOM_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The time for a process to exit after a close: long enough for a batch of a large model on a slow machine.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for the last output of an exited process to arrive.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// The program to start.
#[derive(Debug, Clone)]
pub struct EngineProgram {
    /// The path of the executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables in addition to those of this process.
    pub env: Vec<(String, String)>,
    /// Environment variables that are removed, because they are secret.
    pub removed_env: Vec<String>,
    /// The model's name, for the log.
    pub name: String,
    /// The model to load and its parameters, interpreted by the program.
    pub spec: String,
}

/// An engine whose process has loaded its model.
#[derive(Debug)]
pub struct StartedEngine {
    /// The engine.
    pub handle: EngineHandle,
    /// The memory of the model on each of its devices.
    pub memory: Vec<DeviceMemory>,
}

/// Starts a process and waits until it has loaded its model; `progress` takes the fraction loaded, from 0 to 1. An engine that
/// shares CPU cores with others leases them from `broker`. Dropping the future ends the process.
///
/// # Errors
/// The reason why the model cannot be loaded, or how the process exited.
pub async fn start(
    program: EngineProgram,
    broker: Option<&CpuLeaseBroker>,
    progress: impl Fn(f32),
) -> Result<StartedEngine, String> {
    let (ours, theirs) = Socket::pair().map_err(|e| format!("failed to create a socket pair: {e}"))?;
    let child = spawn(&program, theirs)?;
    let id = child.id().unwrap_or(0);
    let (end, ended) = watch::channel(None);
    let closing = CancellationToken::new();
    tokio::spawn(supervise(child, program.name, closing.clone(), end));
    attach(EngineProcess { id, ended, closing: closing.drop_guard() }, ours, program.spec, broker, progress).await
}

/// A running process.
struct EngineProcess {
    id: u32,
    ended: watch::Receiver<Option<String>>,
    /// Ends the process when loading fails or its future is dropped.
    closing: DropGuard,
}

/// Makes the process at the other end of a socket load a model.
async fn attach(
    process: EngineProcess,
    socket: Socket,
    spec: String,
    broker: Option<&CpuLeaseBroker>,
    progress: impl Fn(f32),
) -> Result<StartedEngine, String> {
    let mut client = connect(socket).await?;
    let cpu_lease = broker.map(|broker| lease_cpu(&client, broker));
    let request = v1::LoadRequest { spec, shares_cpu: cpu_lease.is_some() };
    let loaded = match load(&mut client, request, progress).await {
        Ok(loaded) => loaded?,
        Err(status) => return Err(call_failure(&mut process.ended.clone(), &status).await),
    };
    let connection = RemoteConnection {
        client,
        limits: wire::limits_of(loaded.limits.unwrap_or_default()),
        process_id: process.id,
        stats: Mutex::new(EngineStats::default()),
        pending_calls: Arc::new(AtomicU64::new(0)),
        ended: process.ended,
        closing: process.closing.disarm(),
        _cpu_lease: cpu_lease,
    };
    let memory = loaded.memory.into_iter().map(wire::memory_of).collect();
    Ok(StartedEngine { handle: EngineHandle::new(RemoteEngine(Arc::new(connection))), memory })
}

fn spawn(program: &EngineProgram, socket: Socket) -> Result<Child, String> {
    let mut command = Command::new(&program.path);
    // The name in process lists.
    command.arg0("artel");
    command.args(&program.args).envs(program.env.iter().map(|(key, value)| (key, value)));
    for variable in &program.removed_env {
        command.env_remove(variable);
    }
    command.stdin(Stdio::from(OwnedFd::from(socket))).stdout(Stdio::null()).stderr(Stdio::piped());
    // Signals of a terminal reach only the daemon, which ends its engines when its tasks are done.
    command.process_group(0).kill_on_drop(true);
    command.spawn().map_err(|e| format!("failed to start the engine process: {e}"))
}

/// Waits for the exit of a process and publishes its reason. After `closing` is cancelled, kills the process on a timeout.
async fn supervise(mut child: Child, name: String, closing: CancellationToken, end: watch::Sender<Option<String>>) {
    // Only a kill for lack of memory in the last two intervals can have been that of this process.
    let mut kills = [exit_reason::oom_kill_count(); 2];
    let log = StderrLog::default();
    let reading = child.stderr.take().map(|stderr| tokio::spawn(log.clone().read(name.clone(), stderr)));
    let count_oom_kills = async {
        let mut interval = tokio::time::interval(OOM_POLL_INTERVAL);
        loop {
            interval.tick().await;
            kills = [kills[1], exit_reason::oom_kill_count()];
        }
    };
    let status = tokio::select! {
        status = child.wait() => status,
        () = count_oom_kills => return,
        () = closing.cancelled() => match tokio::time::timeout(EXIT_TIMEOUT, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                tracing::warn!(model = name, "the engine process does not exit after its close and is killed");
                // Fails only if the process has exited meanwhile.
                let _ = child.start_kill();
                child.wait().await
            }
        },
    };
    if let Some(reading) = reading {
        // Children of the process, if any, may keep the pipe open.
        let _ = tokio::time::timeout(STDERR_TIMEOUT, reading).await;
    }
    let reason = match status {
        _ if closing.is_cancelled() => "it was closed".to_owned(),
        Ok(status) => exit_reason::describe(status, &log.tail(), exit_reason::oom_kill_count() > kills[0]),
        Err(error) => format!("failed to wait for its process: {error}"),
    };
    end.send_replace(Some(reason));
}

async fn connect(socket: Socket) -> Result<EngineClient<Channel>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("failed to connect to the engine process: {e}");
    socket.set_nonblocking(true).map_err(|e| failed(&e))?;
    let mut socket = Some(UnixStream::from_std(socket).map_err(|e| failed(&e))?);
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let socket = socket.take().ok_or_else(|| std::io::Error::other("its process has exited"));
        std::future::ready(socket.map(TokioIo::new))
    });
    let channel = Endpoint::from_static("http://engine").connect_with_connector(connector).await;
    let client = EngineClient::new(channel.map_err(|e| failed(&e))?);
    Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// Connects an engine to the broker, until the connection ends or the result is dropped.
fn lease_cpu(client: &EngineClient<Channel>, broker: &CpuLeaseBroker) -> AbortOnDropHandle<()> {
    let (member, notices) = broker.join();
    let mut client = client.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let notices = UnboundedReceiverStream::new(notices).map(|granted| v1::CpuLeaseNotice { granted });
        let Ok(requests) = client.lease_cpu(notices).await else { return };
        let mut requests = requests.into_inner();
        while let Ok(Some(request)) = requests.message().await {
            member.request(request.acquire);
        }
    }))
}

async fn load(
    client: &mut EngineClient<Channel>,
    request: v1::LoadRequest,
    progress: impl Fn(f32),
) -> Result<Result<v1::Loaded, String>, tonic::Status> {
    let mut events = client.load(request).await?.into_inner();
    loop {
        match events.message().await?.and_then(|event| event.event) {
            Some(Event::Fraction(fraction)) => progress(fraction),
            Some(Event::Loaded(loaded)) => return Ok(Ok(loaded)),
            Some(Event::Failed(reason)) => return Ok(Err(reason)),
            None => return Err(tonic::Status::unavailable("its process ended the load call without a result")),
        }
    }
}

/// The reason of a failed call: how the process exited, if it did.
pub(crate) async fn call_failure(ended: &mut watch::Receiver<Option<String>>, status: &tonic::Status) -> String {
    let exited = tokio::time::timeout(2 * STDERR_TIMEOUT, ended.wait_for(Option::is_some)).await;
    let reason = exited.ok().and_then(Result::ok).and_then(|reason| reason.clone());
    reason.unwrap_or_else(|| format!("its process does not answer: {}", status.message()))
}

#[cfg(test)]
mod tests;
