//! `cargo xtask setup | test`: everything that a fresh Debian or Ubuntu machine with only cargo needs.
#![forbid(unsafe_code)]

mod models;
mod setup;
mod shell;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Sets up and tests Artel", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing and fetch the demo models
    Setup,
    /// Build and run every test
    Test {
        /// Passed on to the test runner
        #[arg(last = true)]
        args: Vec<String>,
    },
}

fn main() -> Result<()> {
    let cache = shell::cache_dir()?;
    match Args::parse().verb {
        Verb::Setup => setup::run(&cache),
        Verb::Test { args } => setup::run(&cache).and_then(|()| test::run(&cache, &args)),
    }
}
