//! `artel-bench`, which `artel bench` starts: a workload goes to a daemon of its own, alternating with another server if one is
//! named, and a table of speeds comes out.
//!
//! It talks to the daemon as any client does, over gRPC, and to the other server over the OpenAI API. llama.cpp is also
//! measured alone, in this process: the limit of what a server can reach on this machine. The daemon is the program `artel`
//! beside this one; how it works is not known here.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adapters;
mod answer;
mod baseline;
mod choose;
mod closed_loop;
mod daemon_process;
mod decode;
mod front;
mod hops;
mod intruders;
mod measure;
mod open_loop;
mod overload;
mod own_daemon;
mod peer_server;
mod prompt_text;
mod role;
mod roles;
mod route;
mod scripted_daemon;
mod span_counter;
mod stall;
mod table;
mod target;
mod watchers;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use artel_args::{Args, BenchArgs, CliCommand, Parser as _};
use table::BenchTable;

/// Runs a workload and prints its table; exit code 1 if it could not be measured, 2 after invalid usage.
fn main() -> ExitCode {
    let Args { global, command } = parse(&std::env::args_os().collect::<Vec<_>>()).unwrap_or_else(|error| error.exit());
    let CliCommand::Bench(bench) = command else {
        eprintln!("artel-bench: this program only measures workloads: use `artel` for every other verb");
        return ExitCode::from(2);
    };
    match run(&bench) {
        Ok(table) => {
            table.print(global.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("artel-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command line, in which the word `bench` may be left out.
fn parse(given: &[OsString]) -> Result<Args, clap::Error> {
    Args::try_parse_from(given).or_else(|error| {
        let (program, flags) = given.split_at(given.len().min(1));
        let verb = [OsString::from("bench")];
        let with_verb = Args::try_parse_from([program, verb.as_slice(), flags].concat());
        // Of two errors, the one is shown that is about the line as it is meant.
        let has_verb = flags.iter().any(|flag| flag == "bench");
        with_verb.map_err(|other| if has_verb { error } else { other })
    })
}

fn run(bench: &BenchArgs) -> Result<BenchTable> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("failed to start the runtime")?.block_on(measure::measure(bench))
}

#[cfg(test)]
mod tests {
    use artel_args::BenchWorkload;

    use super::*;

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn workload(line: &str) -> (BenchWorkload, bool) {
        let Args { global, command } = parsed(line).unwrap();
        let CliCommand::Bench(bench) = command else { panic!("{command:?}") };
        (bench.name, global.json)
    }

    #[test]
    fn the_verb_may_be_left_out() {
        for line in [
            "artel-bench bench roles --model bench --json",
            "artel-bench --json bench roles --model bench",
            "artel-bench roles --model bench --json",
            "artel-bench --json roles --model bench",
            "artel-bench --model bench --json roles",
        ] {
            assert_eq!(workload(line), (BenchWorkload::Roles, true), "{line}");
        }
        assert_eq!(workload("artel-bench route --model m.gguf"), (BenchWorkload::Route, false));
    }

    #[test]
    fn an_error_is_about_the_workload() {
        for line in ["artel-bench roles", "artel-bench bench roles"] {
            assert!(parsed(line).unwrap_err().to_string().contains("--model"), "{line}");
        }
    }

    #[test]
    fn a_workload_on_scripted_models_needs_no_model() {
        for name in ["intruders", "watchers"] {
            parsed(&format!("artel-bench {name}")).unwrap();
        }
    }

    #[test]
    fn other_verbs_are_not_run() {
        assert!(!matches!(parsed("artel-bench devices").unwrap().command, CliCommand::Bench(_)));
    }
}
