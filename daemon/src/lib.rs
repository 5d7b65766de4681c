//! The one program, `artel`: `serve` is the daemon, `check` reads a catalog, every other verb talks to a daemon.
//!
//! `serve` puts the crates together: YAML becomes a catalog, GGUF files become engines, the journal is opened, the crew is
//! started, and `grpc` answers for it. Types generated from the protos are known to `grpc` and to `client` alone.
//!
//! The feature `rehearsal` makes a second binary, `artel-rehearsal`, for tests alone: its models can be scripts, and it can
//! be told to die at a commit. The program that people run has nothing of it.
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
mod hub;
mod journal;
mod rpc;
mod serve;

use std::process::ExitCode;

use args::{Args, Verb};
use clap::Parser as _;

/// A daemon makes and drops small things on several threads for months: this takes a fifth less of all CPU time than the
/// allocator of glibc, and gives back what is free. llama.cpp keeps its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match args.verb {
        Verb::Serve(serve) => serve::run(&serve, args.global.json),
        Verb::Check(check) => check::run(&check, &args.global, serve::files::check),
        Verb::Fetch(fetch) => fetch::run(&fetch, &args.global),
        Verb::Doctor(setup) => doctor::run(&setup, &args.global),
        Verb::Journal(verb) => journal::run(&verb, &args.global),
        Verb::Engine(engine) => engine::run(&engine),
        Verb::RpcServe(serve) => rpc::run(&serve, args.global.json),
        Verb::Bench(bench) => bench::run(&bench, &args.global),
        Verb::Client(verb) => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(client::run(verb, &args.global)),
            Err(error) => {
                eprintln!("artel: failed to start the runtime: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
