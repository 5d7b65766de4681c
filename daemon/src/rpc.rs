//! `artel rpc-serve`: serves this machine's devices to daemons on other machines over llama.cpp's RPC protocol.
//!
//! llama.cpp's server serves one client at a time and aborts when a client sends invalid data. Here each client has a server
//! process of its own, which ends with its connection, so that several engines can share a machine without affecting each other.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use artel_args::RpcServeArgs;
use artel_model::DeviceKind;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::engine::probe;
use crate::host::{own_program, resident_bytes};
use crate::telemetry;

/// Concurrent clients: the engines and device probes of several daemons.
const MAX_CLIENTS: usize = 64;
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
    telemetry::start(json);
    let outcome = if args.one { serve_one(args) } else { serve_many(args, json) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("artel: {error:#}");
            ExitCode::FAILURE
        }
    }
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

fn serve_many(args: &RpcServeArgs, json: bool) -> Result<()> {
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
        let threads = args.threads.map_or_else(artel_llama::usable_cores, std::num::NonZero::get);
        tokio::select! {
            result = accept(&listener, devices.into(), threads) => result,
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

async fn accept(listener: &TcpListener, devices: Arc<[String]>, threads: u32) -> Result<()> {
    let permits = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let permit = permits.clone().acquire_owned().await.context("the semaphore is never closed")?;
        let (client, peer) = listener.accept().await.context("failed to accept a connection")?;
        let devices = devices.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_client(client, peer, &devices, threads).await {
                tracing::warn!(%peer, "{error:#}");
            }
            drop(permit);
        });
    }
}

/// Serves one client with a process of its own.
async fn serve_client(mut client: TcpStream, peer: SocketAddr, devices: &[String], threads: u32) -> Result<()> {
    // The protocol exchanges many small messages.
    client.set_nodelay(true).context("failed to set TCP_NODELAY")?;
    let (child, mut server) = start(devices, threads).await?;
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

/// Starts a server process and connects to it.
async fn start(devices: &[String], threads: u32) -> Result<(Child, TcpStream)> {
    // Another program may take the port before the process does. Then the process fails to listen, and the client retries.
    let free = TcpListener::bind(("127.0.0.1", 0)).await.context("failed to find a free port")?;
    let address = free.local_addr().context("failed to read the listening address")?;
    drop(free);
    let mut command = Command::new(own_program().context("failed to find the path of the running program")?);
    command.arg0("artel").args(["rpc-serve", "--one", "--listen", &address.to_string()]);
    command.args(["--threads", &threads.to_string(), "--devices", &devices.join(",")]);
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
async fn log_memory(process: u32, peer: SocketAddr) {
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
