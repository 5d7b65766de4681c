//! The program `artel`: `serve` is the daemon, `check` reads a catalog, most other verbs are clients of a daemon.
//!
//! `serve` connects the crates: it loads the catalog from YAML and engines from GGUF files, opens the journal, starts the
//! runtime and serves gRPC. Only `grpc`, `client` and `engine::monitor` know the types generated from the protos. How tasks,
//! graphs and engines work is not known here: that is in the crates below.
//!
//! The feature `failpoints` builds a second binary, `artel-failpoints`, for tests only: its models can be scripts, and it can
//! kill itself at a chosen commit. The released program has none of it.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod bench;
mod check;
mod client;
mod disk;
mod doctor;
mod engine;
mod fetch;
mod grpc;
mod hf_download;
mod journal;
mod rpc;
mod serve;

use std::process::ExitCode;

use args::{Args, CliCommand};
use clap::Parser as _;

/// A daemon allocates and frees small objects on several threads for months. jemalloc uses less CPU time for that than the
/// allocator of glibc, and returns free memory to the system. llama.cpp keeps its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs the verb of the command line.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        CliCommand::Serve(serve) => serve::run(&serve, args.global.json),
        CliCommand::Check(check) => check::run(&check, &args.global, serve::files::check),
        CliCommand::Fetch(fetch) => fetch::run(&fetch, &args.global),
        CliCommand::Doctor(setup) => doctor::run(&setup, &args.global),
        CliCommand::Journal(verb) => journal::run(&verb, &args.global),
        CliCommand::Engine(engine) => engine::run(&engine),
        CliCommand::RpcServe(serve) => rpc::run(&serve, args.global.json),
        CliCommand::Bench(bench) => bench::run(&bench, &args.global),
        CliCommand::Client(verb) => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(client::run(verb, &args.global)),
            Err(error) => {
                eprintln!("artel: failed to start the runtime: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
