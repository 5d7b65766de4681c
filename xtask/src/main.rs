//! `cargo xtask demo | test | clients | book | names | structure | vulkan | cuda | gpu | bench | memory | indexing | calm | setup | licences`: everything that a fresh Debian or Ubuntu machine with only cargo needs.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod book;
mod calm;
mod chat_templates;
mod clients;
mod cuda;
mod demo;
mod gpu;
mod indexing;
mod json_schema_suite;
mod licences;
mod local_daemon;
mod memory;
mod models;
mod names;
#[cfg(test)]
mod picture;
mod prometheus;
mod setup;
mod shell;
mod sources;
mod structure;
mod test;
mod tools;
mod trainer;
mod venv;
mod vulkan;
mod web;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Sets up and tests Artel", disable_help_subcommand = true)]
struct XtaskArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the book
    Book,
    /// Check the rules of the glossary: type names, constants, pronouns
    Names,
    /// Check the sizes of crates and files, import circles and untyped errors
    Structure,
    /// Install what is missing, fetch the demo models, and what the tests need beside: Prometheus, npm packages, Chromium, chat templates
    Setup,
    /// Start a daemon and send a real task through the graph of docs/examples/helpdesk
    Demo {
        /// Another message than the usual one
        message: Option<String>,
    },
    /// Measure the daemon with the real model; nothing else should run meanwhile
    Bench,
    /// Run workloads on one core with a hog beside them: no slow engine may be taken for a dead one
    Calm {
        /// How long, in minutes
        #[arg(default_value_t = 60)]
        minutes: u64,
        /// The program `artel`, with `artel-bench` beside it; by default it is built
        #[arg(long, value_name = "FILE")]
        artel: Option<PathBuf>,
    },
    /// Install LangChain, LiteLLM and the AI SDK, and run them and OpenAI's own packages against a daemon
    Clients,
    /// Compare the memory of a model with adapters with that of llama.cpp's own server
    Memory,
    /// Compare how fast files become knowledge with LangChain
    Indexing,
    /// Check the licences and sources of all dependencies
    Licences,
    /// Build and run every test
    Test {
        /// Passed on to the test runner
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Build for GPUs of NVIDIA's with a compiler of Python's packages, which takes long; no GPU is needed
    Cuda {
        /// The compute capability of the GPU without its dot; several with `;` between
        #[arg(long, default_value = "86", value_parser = cuda::architectures)]
        arch: String,
        /// Compilers at once [default: one for each core]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        jobs: Option<u16>,
    },
    /// Run models on the GPUs of this machine, placed in every way, and the benches, and write a report
    Gpu(gpu::GpuArgs),
    /// Build for Vulkan, which takes long, and run the tests of its devices
    Vulkan,
}

fn main() -> Result<()> {
    let cache = shell::cache_dir()?;
    match XtaskArgs::parse().verb {
        Verb::Setup => setup::run(&cache).and_then(|()| test::fetch(&cache)),
        Verb::Demo { message } => setup::run(&cache).and_then(|()| demo::run(&cache, message.as_deref())),
        Verb::Book => book::run(&cache),
        Verb::Clients => setup::run(&cache).and_then(|()| test::clients(&cache)),
        Verb::Names => names::run(),
        Verb::Structure => structure::run(),
        Verb::Calm { minutes, artel } => setup::run(&cache).and_then(|()| calm::run(&cache, minutes, artel)),
        Verb::Bench => setup::run(&cache).and_then(|()| test::bench(&cache)),
        Verb::Memory => setup::run(&cache).and_then(|()| memory::run(&cache)),
        Verb::Indexing => setup::run(&cache).and_then(|()| indexing::run(&cache)),
        Verb::Licences => licences::run(&cache),
        Verb::Test { args } => setup::run(&cache).and_then(|()| test::run(&cache, &args)),
        Verb::Cuda { arch, jobs } => setup::run(&cache).and_then(|()| cuda::run(&cache, &arch, jobs.map(usize::from))),
        // Without a GPU, nothing is installed and fetched either.
        Verb::Gpu(args) if !gpu::has_devices(&args) => Ok(()),
        Verb::Gpu(args) => setup::run(&cache).and_then(|()| gpu::run(&cache, args)),
        Verb::Vulkan => setup::run(&cache).and_then(|()| vulkan::run(&cache)),
    }
}
