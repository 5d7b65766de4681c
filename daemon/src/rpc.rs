//! `artel rpc-serve`: lends this machine's devices to daemons on other machines, over llama.cpp's own RPC.
//!
//! llama.cpp's server serves one client after the other and ends with the first one that misbehaves. Here each client has a
//! process of its own, which ends with its connection; several engines can share a machine, and none can end another.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::args::RpcServe;
use crate::engine::{itself, probe};
use crate::serve::{cores, telemetry};

/// Clients at once: the engines of some daemons, and those who only look.
const CLIENTS: usize = 64;
/// A process that does not listen after so long never will.
const START: Duration = Duration::from_secs(20);
/// Between two looks at whether it listens.
const LOOK: Duration = Duration::from_millis(10);
/// How often the memory of a client is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// A change of memory that is worth a line in the log, in bytes.
const CHANGE: u64 = 1 << 20;

/// Serves until it is stopped by a signal.
pub(crate) fn run(args: &RpcServe, json: bool) -> ExitCode {
    telemetry::start(json);
    let served = if args.one { one(args) } else { many(args, json) };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("artel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One client of llama.cpp's own server, until standard input closes.
fn one(args: &RpcServe) -> Result<()> {
    std::thread::spawn(|| {
        // Nothing is ever written there.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let threads = args.threads.map_or_else(cores, std::num::NonZero::get);
    artel_llama::serve_rpc(&args.listen.to_string(), threads, &args.devices).map_err(anyhow::Error::msg)
}

fn many(args: &RpcServe, json: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("failed to start the runtime")?.block_on(async {
        let devices = lent(&args.devices).await?;
        let listener = TcpListener::bind(args.listen).await;
        let listener = listener.with_context(|| format!("failed to listen on {}", args.listen))?;
        let address = listener.local_addr().context("failed to learn the address")?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "whoever can connect can use these devices and read what is on them: there is no password");
        }
        ready(address, &devices, json)?;
        let threads = args.threads.map_or_else(cores, std::num::NonZero::get);
        tokio::select! {
            served = accept(&listener, devices.into(), threads) => served,
            ended = tokio::signal::ctrl_c() => ended.context("failed to listen for signals"),
            () = terminated() => Ok(()),
        }
    })
}

/// Resolves when the process is asked to end.
async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        // Then only killing ends it.
        Err(_) => std::future::pending().await,
    }
}

/// The devices to lend: those named, if they are there; otherwise the GPUs, or else the CPU.
async fn lent(names: &[String]) -> Result<Vec<String>> {
    let found = probe::devices(None).await.map_err(anyhow::Error::msg)?;
    let known = || found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = names.iter().find(|name| found.iter().all(|found| found.name != **name)) {
        bail!("there is no device `{name}`; there are {}", known());
    }
    if !names.is_empty() {
        return Ok(names.to_vec());
    }
    let of = |kinds: &[probe::Kind]| -> Vec<String> {
        let fit = found.iter().filter(|found| kinds.contains(&found.kind));
        fit.map(|found| found.name.clone()).collect()
    };
    let gpus = of(&[probe::Kind::Gpu, probe::Kind::IntegratedGpu]);
    Ok(if gpus.is_empty() { of(&[probe::Kind::Cpu]) } else { gpus })
}

/// Says where it listens, on standard output, for people and for programs that started it.
fn ready(address: SocketAddr, devices: &[String], json: bool) -> Result<()> {
    let line = match json {
        true => serde_json::json!({"listening": address.to_string(), "devices": devices}).to_string(),
        false => format!("artel lends {} on {address}", devices.join(", ")),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("failed to write to standard output")
}

async fn accept(listener: &TcpListener, devices: Arc<[String]>, threads: u32) -> Result<()> {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let place = places.clone().acquire_owned().await.context("places are never closed")?;
        let (client, peer) = listener.accept().await.context("failed to take a connection")?;
        let devices = devices.clone();
        tokio::spawn(async move {
            if let Err(error) = lend(client, peer, &devices, threads).await {
                tracing::warn!(%peer, "{error:#}");
            }
            drop(place);
        });
    }
}

/// Serves one client with a process of its own.
async fn lend(mut client: TcpStream, peer: SocketAddr, devices: &[String], threads: u32) -> Result<()> {
    // Many small messages go to and fro.
    client.set_nodelay(true).context("failed to set up the connection")?;
    let (child, mut server) = start(devices, threads).await?;
    let process = child.id().unwrap_or(0);
    tracing::info!(%peer, process, "a client came");
    let carried = tokio::select! {
        carried = tokio::io::copy_bidirectional(&mut client, &mut server) => carried,
        () = watch(process, peer) => unreachable!("it watches for ever"),
    };
    // The process ends with its standard input.
    drop(child);
    match carried {
        Ok((received, sent)) => tracing::info!(%peer, process, received, sent, "a client left"),
        Err(error) => tracing::info!(%peer, process, %error, "a client was lost"),
    }
    Ok(())
}

/// A process that serves, and a connection to it.
async fn start(devices: &[String], threads: u32) -> Result<(Child, TcpStream)> {
    // Somebody else may take the port before the process does: then it cannot listen, and the client tries again.
    let free = TcpListener::bind(("127.0.0.1", 0)).await.context("failed to find a free port")?;
    let address = free.local_addr().context("failed to learn the address")?;
    drop(free);
    let mut command = Command::new(itself().map_err(anyhow::Error::msg)?);
    command.arg0("artel").args(["rpc-serve", "--one", "--listen", &address.to_string()]);
    command.args(["--threads", &threads.to_string(), "--devices", &devices.join(",")]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).process_group(0);
    let mut child = command.spawn().context("failed to start a process for the client")?;
    let connected = tokio::time::timeout(START, async {
        loop {
            match TcpStream::connect(address).await {
                Ok(server) => return Ok(server),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
            if let Some(status) = child.try_wait().context("the client's process is lost")? {
                bail!("the client's process ended with {status}");
            }
        }
    });
    let server = connected.await.context("the client's process does not listen")??;
    server.set_nodelay(true).context("failed to set up the connection")?;
    Ok((child, server))
}

/// Tells in the log how much memory a process takes, whenever that has changed.
async fn watch(process: u32, peer: SocketAddr) {
    let mut told = 0u64;
    let mut ticks = tokio::time::interval(WATCH);
    loop {
        ticks.tick().await;
        let memory = crate::serve::hardware::resident(process).unwrap_or(0);
        if memory.abs_diff(told) >= CHANGE {
            told = memory;
            tracing::info!(%peer, process, memory, "a client holds memory");
        }
    }
}
