//! The daemon's side: a process is started, watched, and its end explained.

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

use crate::log::Lines;
use crate::remote::{Inner, Remote};
use crate::turns::Counter;
use crate::{MESSAGE, Memory, death, wire};

/// How often kills for lack of memory are counted.
const LOOK: Duration = Duration::from_secs(5);
/// A process that is to end gets so long: a batch of a large model on a slow machine.
const END: Duration = Duration::from_secs(10);
/// How long the last words of a process that ended may take to arrive.
const WORDS: Duration = Duration::from_secs(1);

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables of its environment, beside our own.
    pub env: Vec<(String, String)>,
    /// Variables that are not passed on, since they are secret.
    pub without: Vec<String>,
    /// The model's name, for the log.
    pub name: String,
    /// What it is to load.
    pub spec: String,
}

/// An engine whose process serves.
#[derive(Debug)]
pub struct Started {
    /// The engine.
    pub handle: EngineHandle,
    /// What the model takes, on each of its devices.
    pub memory: Vec<Memory>,
}

/// Starts a process, has it load its model, and waits until it serves; `progress` takes the share that is loaded, from 0 to
/// 1. Engines that compute on cores which others use too take turns at `counter`. Dropping the future ends the process.
///
/// # Errors
/// Why the model cannot be loaded, or how the process died.
pub async fn start(program: Program, counter: Option<&Counter>, progress: impl Fn(f32)) -> Result<Started, String> {
    let (ours, theirs) = Socket::pair().map_err(|e| format!("failed to make a pair of sockets: {e}"))?;
    let child = spawn(&program, theirs)?;
    let process = child.id().unwrap_or(0);
    let (end, ended) = watch::channel(None);
    let closing = CancellationToken::new();
    tokio::spawn(follow(child, program.name, closing.clone(), end));
    attach(Life { process, ended, closing: closing.drop_guard() }, ours, program.spec, counter, progress).await
}

/// A process that runs.
struct Life {
    process: u32,
    ended: watch::Receiver<Option<String>>,
    /// Whatever goes wrong while it loads, and whoever gives up waiting: the process ends.
    closing: DropGuard,
}

/// Has the process at the other end of a socket load a model.
async fn attach(
    life: Life,
    socket: Socket,
    spec: String,
    counter: Option<&Counter>,
    progress: impl Fn(f32),
) -> Result<Started, String> {
    let mut client = connect(socket).await?;
    let turns = counter.map(|counter| turns(&client, counter));
    let request = v1::LoadRequest { spec, turns: turns.is_some() };
    let loaded = match load(&mut client, request, progress).await {
        Ok(loaded) => loaded?,
        Err(status) => return Err(last_words(&mut life.ended.clone(), &status).await),
    };
    let inner = Inner {
        client,
        limits: wire::limits_of(loaded.limits.unwrap_or_default()),
        process: life.process,
        stats: Mutex::new(EngineStats::default()),
        asked: Arc::new(AtomicU64::new(0)),
        end: life.ended,
        closing: life.closing.disarm(),
        _turns: turns,
    };
    let memory = loaded.memory.into_iter().map(wire::memory_of).collect();
    Ok(Started { handle: EngineHandle::new(Remote(Arc::new(inner))), memory })
}

fn spawn(program: &Program, socket: Socket) -> Result<Child, String> {
    let mut command = Command::new(&program.path);
    // For those who list processes.
    command.arg0("artel");
    command.args(&program.args).envs(program.env.iter().map(|(key, value)| (key, value)));
    for variable in &program.without {
        command.env_remove(variable);
    }
    command.stdin(Stdio::from(OwnedFd::from(socket))).stdout(Stdio::null()).stderr(Stdio::piped());
    // Signals of a terminal go to the daemon alone, which ends its engines when its tasks are done.
    command.process_group(0).kill_on_drop(true);
    command.spawn().map_err(|e| format!("failed to start a process for the engine: {e}"))
}

/// Waits for the end of a process and explains it. Once it is to end, it gets some time.
async fn follow(mut child: Child, name: String, closing: CancellationToken, end: watch::Sender<Option<String>>) {
    // Of the kills for lack of memory only one of the last seconds can have been that of this process.
    let mut kills = [death::kills_for_memory(); 2];
    let lines = Lines::default();
    let reading = child.stderr.take().map(|stderr| tokio::spawn(lines.clone().read(name.clone(), stderr)));
    let alive = async {
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            kills = [kills[1], death::kills_for_memory()];
        }
    };
    let status = tokio::select! {
        status = child.wait() => status,
        () = alive => return,
        () = closing.cancelled() => match tokio::time::timeout(END, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                tracing::warn!(model = name, "the engine's process does not end by itself and is killed");
                // One that ended just now cannot be killed, which is as good.
                let _ = child.start_kill();
                child.wait().await
            }
        },
    };
    if let Some(reading) = reading {
        // Its own children, if it had any, may hold the pipe open.
        let _ = tokio::time::timeout(WORDS, reading).await;
    }
    let reason = match status {
        _ if closing.is_cancelled() => "it was closed".to_owned(),
        Ok(status) => death::explain(status, &lines.last(), death::kills_for_memory() > kills[0]),
        Err(error) => format!("its process is lost: {error}"),
    };
    end.send_replace(Some(reason));
}

async fn connect(socket: Socket) -> Result<EngineClient<Channel>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("failed to talk to the engine's process: {e}");
    socket.set_nonblocking(true).map_err(|e| failed(&e))?;
    let mut socket = Some(UnixStream::from_std(socket).map_err(|e| failed(&e))?);
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let socket = socket.take().ok_or_else(|| std::io::Error::other("its process is gone"));
        std::future::ready(socket.map(TokioIo::new))
    });
    let channel = Endpoint::from_static("http://engine").connect_with_connector(connector).await;
    let client = EngineClient::new(channel.map_err(|e| failed(&e))?);
    Ok(client.max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE))
}

/// Carries the engine's asking to the counter and its answers back, until the connection ends or the result is dropped.
fn turns(client: &EngineClient<Channel>, counter: &Counter) -> AbortOnDropHandle<()> {
    let (member, told) = counter.join();
    let mut client = client.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let grants = UnboundedReceiverStream::new(told).map(|yours| v1::Grant { yours });
        let Ok(asks) = client.turns(grants).await else { return };
        let mut asks = asks.into_inner();
        while let Ok(Some(ask)) = asks.message().await {
            member.say(ask.want);
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
            Some(Event::Fraction(share)) => progress(share),
            Some(Event::Loaded(loaded)) => return Ok(Ok(loaded)),
            Some(Event::Failed(reason)) => return Ok(Err(reason)),
            None => return Err(tonic::Status::unavailable("its process stopped in the middle of loading")),
        }
    }
}

/// Why a call could not be answered: how the process died, if it did.
pub(crate) async fn last_words(end: &mut watch::Receiver<Option<String>>, status: &tonic::Status) -> String {
    let ended = tokio::time::timeout(2 * WORDS, end.wait_for(Option::is_some)).await;
    let reason = ended.ok().and_then(Result::ok).and_then(|reason| reason.clone());
    reason.unwrap_or_else(|| format!("its process does not answer: {}", status.message()))
}

#[cfg(test)]
mod tests;
