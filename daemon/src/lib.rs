//! The program `artel`: `serve` is the daemon, and most other verbs are clients of one.
//!
//! `serve` connects the crates: it loads the catalog from YAML and engines from GGUF files, opens the journal, starts the
//! runtime and serves gRPC. `engine` is a model in a process of its own, which the daemon starts, and `rpc-serve` lends this
//! machine's devices to other daemons. `init`, `cert`, `doctor`, `fetch` and `journal` act on a daemon's settings and files
//! without one.
//! Everything else is in a crate of its own: `artel-client` has the verbs of a client, `artel-check` has `check`, and `bench`
//! starts the program `artel-bench`.
//!
//! How tasks, graphs and engines work is not known here, nor the types generated from the protos: that is in the crates below.
//! The only public items are [`main`] and, for programs that test the daemon, [`main_with`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bench;
mod cert;
mod config;
mod doctor;
mod engine;
mod fetch;
mod hardening;
mod host;
mod init;
mod journal;
mod log_config;
mod measure;
mod rpc;
mod serve;
mod settings_advice;
mod signals;
mod telemetry;
mod trace_config;

use std::process::ExitCode;

use artel_args::{Args, CliCommand, ClientCommand, GlobalArgs};
use nix::sys::stat::{Mode, umask};

use hardening::CoreDumps;

pub use serve::{LoaderWrapper, ServeHooks};

/// A daemon allocates and frees small objects on several threads for months. jemalloc uses less CPU time for that than the
/// allocator of glibc, and returns free memory to the system. llama.cpp keeps its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs the verb of the command line.
pub fn main() -> ExitCode {
    main_with(ServeHooks::default())
}

/// Runs the verb of the command line, with these hooks if it is `serve`.
pub fn main_with(hooks: ServeHooks) -> ExitCode {
    let (Args { global, command }, given) = Args::parse_given();
    if !matches!(command, CliCommand::Client(_) | CliCommand::Check(_) | CliCommand::Bench(_)) {
        // These verbs write to the data directory: what they and their processes create is for their user alone.
        umask(Mode::S_IRWXG | Mode::S_IRWXO);
    }
    match command {
        CliCommand::Serve(serve) => serve::run(&serve, global.json, hooks, CoreDumps::forbid()),
        CliCommand::Check(check) => artel_check::run(&check, &global),
        CliCommand::Fetch(fetch) => fetch::run(&fetch, &global),
        CliCommand::Init(init) => init::run(&init, &global),
        CliCommand::Cert(command) => cert::run(&command, &global),
        CliCommand::Doctor(setup) => doctor::run(&setup, &global),
        CliCommand::Config(verb) => config::run(&verb, &given, &global),
        CliCommand::Journal(verb) => journal::run(&verb, &global),
        CliCommand::Engine(engine) => engine::run(&engine),
        CliCommand::Extract => extract(),
        CliCommand::Measure => measure::run(),
        CliCommand::RpcServe(serve) => rpc::run(&serve, global.json),
        CliCommand::Bench(_) => bench::run(),
        CliCommand::Client(verb) => client(verb, &global),
    }
}

/// Reads documents for the daemon, which is at the other end of standard input.
fn extract() -> ExitCode {
    match artel_documents::worker::serve_on_stdin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("artel: failed to read documents: {error}");
            ExitCode::FAILURE
        }
    }
}

fn client(verb: ClientCommand, global: &GlobalArgs) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(artel_client::run(verb, global)),
        Err(error) => {
            eprintln!("artel: failed to start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
