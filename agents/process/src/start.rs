//! The daemon's side: starts an engine process and makes it load its model.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, Weak};

use artel_engine::{EngineHandle, EngineStats, LoadError};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{SetOnce, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::cpu_lease::{BrokerMember, CpuLeaseBroker};
use crate::hang_detector::HangPolicy;
use crate::hang_watch::HangWatch;
use crate::remote_engine::{RemoteConnection, RemoteEngine};
use crate::supervision::{call_failure, supervise};
use crate::wire::v1::engine_client::EngineClient;
use crate::wire::v1::load_event::Event;
use crate::wire::{self, v1};
use crate::{DeviceMemory, MAX_MESSAGE_BYTES};

/// The program to start.
#[derive(Debug, Clone)]
pub struct EngineProgram {
    /// The path of the executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment: it inherits nothing, since a variable of this process may be secret.
    pub env: Vec<(OsString, OsString)>,
    /// The model's name, for the log.
    pub name: String,
    /// The model to load and its parameters, interpreted by the program.
    pub spec: String,
    /// When the engine counts as hung, and is killed.
    pub hang_policy: HangPolicy,
    /// The filters of the log to which the daemon changes while the engine runs.
    pub log_levels: Option<watch::Receiver<String>>,
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
/// What the process says of its model; or, as an error that may pass, that it could not be started, or how it exited.
pub async fn start(
    program: EngineProgram,
    broker: Option<&CpuLeaseBroker>,
    progress: impl Fn(f32),
) -> Result<StartedEngine, LoadError> {
    let (ours, theirs) = Socket::pair().map_err(|e| failed_to("create a socket pair", &e))?;
    let child = spawn(&program, theirs)?;
    let id = child.id().unwrap_or(0);
    let (end, ended) = watch::channel(None);
    let (closing, hung) = (CancellationToken::new(), Arc::new(SetOnce::new()));
    tokio::spawn(supervise(child, program.name, closing.clone(), hung.clone(), end));
    let process = EngineProcess { id, ended, closing: closing.drop_guard(), hung, log_levels: program.log_levels };
    attach(process, ours, program.spec, program.hang_policy, broker, progress).await
}

/// A running process.
struct EngineProcess {
    id: u32,
    ended: watch::Receiver<Option<String>>,
    /// Ends the process when loading fails or its future is dropped.
    closing: DropGuard,
    /// Kills the process when it is set to the reason.
    hung: Arc<SetOnce<String>>,
    log_levels: Option<watch::Receiver<String>>,
}

/// Makes the process at the other end of a socket load a model.
async fn attach(
    process: EngineProcess,
    socket: Socket,
    spec: String,
    hang_policy: HangPolicy,
    broker: Option<&CpuLeaseBroker>,
    progress: impl Fn(f32),
) -> Result<StartedEngine, LoadError> {
    let mut client = connect(socket).await?;
    let (lease_member, cpu_lease) = match broker.map(|broker| lease_cpu(&client, broker)) {
        Some((member, lease)) => (member, Some(lease)),
        None => (Weak::new(), None),
    };
    let log_levels = process.log_levels.map(|levels| forward_log_levels(&client, levels));
    let hang_watch = HangWatch {
        client: client.clone(),
        process_id: process.id,
        policy: hang_policy,
        lease_member,
        ended: process.ended.clone(),
        hung: process.hung.clone(),
    };
    let hang_watch = hang_watch.start();
    let request = v1::LoadRequest { spec, shares_cpu: cpu_lease.is_some() };
    let mut ended = process.ended.clone();
    let loaded = tokio::select! {
        biased;
        loaded = load(&mut client, request, progress) => loaded,
        _ = ended.wait_for(Option::is_some) => Err(Status::unavailable("its process has ended")),
    };
    let loaded = match loaded {
        Ok(loaded) => loaded?,
        Err(status) => return Err(LoadError::transient(call_failure(&mut ended, &status).await)),
    };
    let connection = RemoteConnection {
        client,
        limits: wire::limits_of(loaded.limits.unwrap_or_default()),
        sampling_defaults: wire::sampling_defaults_of(&loaded.sampling_defaults),
        process_id: process.id,
        stats: Mutex::new(EngineStats::default()),
        pending_calls: Arc::new(AtomicU64::new(0)),
        ended: process.ended,
        hung: process.hung,
        closing: process.closing.disarm(),
        _cpu_lease: cpu_lease,
        _hang_watch: hang_watch,
        _log_levels: log_levels,
    };
    let memory = loaded.memory.into_iter().map(wire::memory_of).collect();
    Ok(StartedEngine { handle: EngineHandle::new(RemoteEngine(Arc::new(connection))), memory })
}

fn spawn(program: &EngineProgram, socket: Socket) -> Result<Child, LoadError> {
    let mut command = Command::new(&program.path);
    // The name in process lists.
    command.arg0("artel");
    command.args(&program.args).env_clear().envs(program.env.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::from(OwnedFd::from(socket))).stdout(Stdio::null()).stderr(Stdio::piped());
    // Signals of a terminal reach only the daemon, which ends its engines when its tasks are done.
    command.process_group(0).kill_on_drop(true);
    command.spawn().map_err(|e| failed_to("start the engine process", &e))
}

async fn connect(socket: Socket) -> Result<EngineClient<Channel>, LoadError> {
    let to_connect = "connect to the engine process";
    socket.set_nonblocking(true).map_err(|e| failed_to(to_connect, &e))?;
    let mut socket = Some(UnixStream::from_std(socket).map_err(|e| failed_to(to_connect, &e))?);
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let socket = socket.take().ok_or_else(|| std::io::Error::other("its process has exited"));
        std::future::ready(socket.map(TokioIo::new))
    });
    let channel = Endpoint::from_static("http://engine").connect_with_connector(connector).await;
    let client = EngineClient::new(channel.map_err(|e| failed_to(to_connect, &e))?);
    Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// Connects an engine to the broker, until the connection ends or the handle is dropped.
fn lease_cpu(client: &EngineClient<Channel>, broker: &CpuLeaseBroker) -> (Weak<BrokerMember>, AbortOnDropHandle<()>) {
    let (member, notices) = broker.join();
    let (member, mut client) = (Arc::new(member), client.clone());
    let weak = Arc::downgrade(&member);
    let lease = AbortOnDropHandle::new(tokio::spawn(async move {
        let notices = UnboundedReceiverStream::new(notices).map(|granted| v1::CpuLeaseNotice { granted });
        let Ok(requests) = client.lease_cpu(notices).await else { return };
        let mut requests = requests.into_inner();
        while let Ok(Some(request)) = requests.message().await {
            member.request(request.acquire);
        }
    }));
    (weak, lease)
}

/// Tells the process each change of what is logged, until the handle is dropped.
fn forward_log_levels(client: &EngineClient<Channel>, mut levels: watch::Receiver<String>) -> AbortOnDropHandle<()> {
    let mut client = client.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        while levels.changed().await.is_ok() {
            let filter = levels.borrow_and_update().clone();
            // Fails only if the process has ended.
            let _ = client.set_log_level(v1::SetLogLevelRequest { filter }).await;
        }
    }))
}

/// Makes the process load its model. Fails if the call does; the answer is the model, or why it cannot be loaded.
async fn load(
    client: &mut EngineClient<Channel>,
    request: v1::LoadRequest,
    progress: impl Fn(f32),
) -> Result<Result<v1::Loaded, LoadError>, Status> {
    let mut events = client.load(request).await?.into_inner();
    loop {
        match events.message().await?.and_then(|event| event.event) {
            Some(Event::Fraction(fraction)) => progress(fraction),
            Some(Event::Loaded(loaded)) => return Ok(Ok(loaded)),
            Some(Event::Failed(error)) => return Ok(Err(wire::load_error_of(error))),
            None => return Err(Status::unavailable("its process ended the load call without a result")),
        }
    }
}

/// The system refused something that it may grant later.
fn failed_to(what: &str, cause: &dyn std::error::Error) -> LoadError {
    LoadError::transient(format!("failed to {what}: {cause}"))
}

#[cfg(test)]
mod tests;
