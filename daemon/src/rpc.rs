//! `artel rpc-serve`: serves this machine's devices to daemons on other machines over llama.cpp's RPC protocol.
//!
//! llama.cpp's server serves one client at a time and aborts when a client sends invalid data. Here each client has a server
//! process of its own, which ends with its connection, so that several engines can share a machine without affecting each other.
//! The process is started when the client has sent the beginning of a command: a connection that says nothing costs a descriptor
//! for some seconds, or until another one needs its place.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use artel_accept::{Acceptor, ConnectionLimits, ConnectionPlaces, ConnectionSlot, PeerAddress, raise_descriptor_limit};
use artel_args::RpcServeArgs;
use artel_log::LogFilter;
use artel_model::DeviceKind;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::engine::{environment, probe};
use crate::hardening::CoreDumps;
use crate::host::{own_program, resident_bytes};
use crate::log_config::{LogConfig, LogSettings};
use crate::telemetry::{self, FLUSH_TIMEOUT};

/// Concurrent clients: the engines and device probes of several daemons. Each takes a process of 15 MB and the memory of its
/// tensors.
const MAX_CLIENTS: usize = 64;
/// Concurrent clients of one machine: its engines, and a probe.
const MAX_PEER_CLIENTS: usize = 32;
/// Descriptors that a client takes: its socket, that of its process, the pipe and the handle of the process.
const CLIENT_DESCRIPTORS: u64 = 4;
/// How long a client may take to send its first command, which it does at once.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// What each command begins with: its number in one byte, the size of its data in eight.
const COMMAND_HEADER_BYTES: usize = 9;
/// How often it is looked whether the rest of a command's beginning has come.
const PEEK_INTERVAL: Duration = Duration::from_millis(5);
/// How long a server process may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The delay between attempts to connect to a server process.
const CONNECT_RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// How often the memory of a server process is read.
const MEMORY_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The smallest change of memory that is logged.
const MEMORY_CHANGE_BYTES: u64 = 1 << 20;

/// Serves until it is stopped by a signal.
pub(crate) fn run(args: &RpcServeArgs, json: bool) -> ExitCode {
    CoreDumps::forbid().decide(false);
    let log = LogConfig::of(&args.log, &LogSettings::default());
    let log = log.and_then(|config| Ok((telemetry::start(&config, json)?, config.filter)));
    let (log, filter) = match log {
        Ok(started) => started,
        Err(error) => {
            eprintln!("artel: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = if args.one { serve_one(args) } else { serve_many(args, json, &filter) };
    let failure = outcome.err();
    if let Some(error) = &failure {
        log.print(&format!("artel: {error:#}"));
    }
    log.flush(FLUSH_TIMEOUT);
    if failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Serves one client with llama.cpp's server, until standard input closes.
fn serve_one(args: &RpcServeArgs) -> Result<()> {
    std::thread::spawn(|| {
        // Nothing is ever written to it: the read returns when it closes.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let threads = args.threads.map_or_else(artel_llama::usable_cores, std::num::NonZero::get);
    Ok(artel_llama::serve_rpc(&args.listen.to_string(), threads, &args.devices)?)
}

fn serve_many(args: &RpcServeArgs, json: bool, filter: &LogFilter) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("failed to start the runtime")?.block_on(async {
        let devices = served_devices(&args.devices).await?;
        let listener = TcpListener::bind(args.listen).await;
        let listener = listener.with_context(|| format!("failed to listen on {}", args.listen))?;
        let address = listener.local_addr().context("failed to read the listening address")?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "every client that can connect can use these devices and read their memory: there is no authentication");
        }
        announce(address, &devices, json)?;
        let limits = ConnectionLimits::within(
            raise_descriptor_limit(),
            CLIENT_DESCRIPTORS,
            Some(MAX_CLIENTS),
            Some(MAX_PEER_CLIENTS),
        );
        let acceptor = Acceptor::new(listener, ConnectionPlaces::new(limits));
        let threads = args.threads.map_or_else(artel_llama::usable_cores, std::num::NonZero::get).to_string();
        let devices = devices.join(",");
        let arguments = ["--threads", &threads, "--devices", &devices, "--log-level", filter.as_str()];
        tokio::select! {
            never = accept(acceptor, arguments.map(str::to_owned).into()) => match never {},
            signal = tokio::signal::ctrl_c() => signal.context("failed to listen for signals"),
            () = terminated() => Ok(()),
        }
    })
}

/// Resolves on SIGTERM.
async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        // Without the handler, SIGTERM ends the process directly.
        Err(_) => std::future::pending().await,
    }
}

/// The devices to serve: those named if they exist; by default the GPUs, or the CPU if there are none.
async fn served_devices(names: &[String]) -> Result<Vec<String>> {
    let found = probe::devices(None).await?;
    let known = || found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = names.iter().find(|name| found.iter().all(|found| found.name != **name)) {
        bail!("there is no device `{name}`; the devices are {}", known());
    }
    if !names.is_empty() {
        return Ok(names.to_vec());
    }
    let of_kind = |kinds: &[DeviceKind]| -> Vec<String> {
        let devices = found.iter().filter(|found| kinds.contains(&found.kind));
        devices.map(|found| found.name.clone()).collect()
    };
    let gpus = of_kind(&[DeviceKind::Gpu, DeviceKind::IntegratedGpu]);
    Ok(if gpus.is_empty() { of_kind(&[DeviceKind::Cpu]) } else { gpus })
}

/// Prints the listening address on standard output, for users and for programs that started the server.
fn announce(address: SocketAddr, devices: &[String], json: bool) -> Result<()> {
    let line = match json {
        true => serde_json::json!({"listening": address.to_string(), "devices": devices}).to_string(),
        false => format!("artel serves {} on {address}", devices.join(", ")),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("failed to write to standard output")
}

/// Never ends: a connection that fails is one that fails.
async fn accept(mut acceptor: Acceptor, arguments: Arc<[String]>) -> Infallible {
    loop {
        let (client, slot) = acceptor.accept().await;
        let arguments = arguments.clone();
        tokio::spawn(async move {
            let peer = slot.peer();
            tokio::select! {
                served = serve_client(client, &slot, &arguments) => if let Err(error) = served {
                    tracing::warn!(%peer, "{error:#}");
                },
                () = slot.evicted() => {}
            }
        });
    }
}

/// Serves one client with a process of its own, once it has said something.
async fn serve_client(mut client: TcpStream, slot: &ConnectionSlot, arguments: &[String]) -> Result<()> {
    let peer = slot.peer();
    if !has_command(&client).await {
        tracing::debug!(%peer, "a connection without a command was closed");
        return Ok(());
    }
    // From here on, it does not make room for others.
    let call = slot.begin_call();
    // Whoever reaches this port may use it.
    call.admit();
    let (child, mut server) = start(arguments).await?;
    let process = child.id().unwrap_or(0);
    tracing::info!(%peer, process, "a client connected");
    let copied = tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut server) => copied,
        () = log_memory(process, peer) => unreachable!("it never returns"),
    };
    // The process ends when its standard input closes.
    drop(child);
    match copied {
        Ok((received, sent)) => tracing::info!(%peer, process, received, sent, "a client disconnected"),
        Err(error) => tracing::info!(%peer, process, %error, "the connection to a client failed"),
    }
    Ok(())
}

/// Whether a client sends the beginning of a command before the deadline. It stays in the socket, for the process.
async fn has_command(client: &TcpStream) -> bool {
    let mut header = [0; COMMAND_HEADER_BYTES];
    let begun = async {
        loop {
            match client.peek(&mut header).await {
                Ok(COMMAND_HEADER_BYTES) => return true,
                Ok(0) | Err(_) => return false,
                // The socket is readable already, so that waiting for the rest is waiting for time to pass.
                Ok(_) => tokio::time::sleep(PEEK_INTERVAL).await,
            }
        }
    };
    tokio::time::timeout(COMMAND_TIMEOUT, begun).await.unwrap_or(false)
}

/// Starts a server process with these arguments and connects to it.
async fn start(arguments: &[String]) -> Result<(Child, TcpStream)> {
    // Another program may take the port before the process does. Then the process fails to listen, and the client retries.
    let free = TcpListener::bind(("127.0.0.1", 0)).await.context("failed to find a free port")?;
    let address = free.local_addr().context("failed to read the listening address")?;
    drop(free);
    let mut command = Command::new(own_program().context("failed to find the path of the running program")?);
    command.arg0("artel").args(["rpc-serve", "--one", "--listen", &address.to_string()]);
    command.args(arguments).env_clear().envs(environment::inherited());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).process_group(0);
    let mut child = command.spawn().context("failed to start a server process")?;
    let connected = tokio::time::timeout(START_TIMEOUT, async {
        loop {
            match TcpStream::connect(address).await {
                Ok(server) => return Ok(server),
                Err(_) => tokio::time::sleep(CONNECT_RETRY_INTERVAL).await,
            }
            if let Some(status) = child.try_wait().context("failed to wait for the server process")? {
                bail!("the server process exited with {status}");
            }
        }
    });
    let server = connected.await.context("the server process does not listen")??;
    server.set_nodelay(true).context("failed to set TCP_NODELAY")?;
    Ok((child, server))
}

/// Logs the memory of a server process whenever it changes. Never returns.
async fn log_memory(process: u32, peer: PeerAddress) {
    let mut logged_bytes = 0u64;
    let mut ticks = tokio::time::interval(MEMORY_POLL_INTERVAL);
    loop {
        ticks.tick().await;
        let memory = resident_bytes(process).unwrap_or(0);
        if memory.abs_diff(logged_bytes) >= MEMORY_CHANGE_BYTES {
            logged_bytes = memory;
            tracing::info!(%peer, process, memory, "memory of a client");
        }
    }
}
