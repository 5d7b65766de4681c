//! `artel check`: a directory of YAML goes in, every problem of the catalog and of the files that it names comes out.
//!
//! [`files`] is also what a daemon asks before it loads a model or accepts a new catalog. Neither a daemon nor llama.cpp is
//! needed: files are checked as far as their headers and hashes show, and nothing is downloaded. This crate does not know the
//! devices, and so not whether a model fits into memory.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod files;
mod reasoning_marks;
mod report;
mod template_variables;

use std::process::ExitCode;

use artel_args::{CheckArgs, GlobalArgs};
use artel_terminal::{CommandOutcome, CommandOutput, output_failed};

use report::CheckReport;

/// Checks a catalog, and with `--models` also the files that it names; prints every problem.
pub fn run(args: &CheckArgs, global: &GlobalArgs) -> ExitCode {
    let report = CheckReport::new(args, files::check);
    let outcome = match report.print(&mut CommandOutput::new(global)) {
        Ok(()) if report.is_valid() => CommandOutcome::Done,
        Ok(()) => CommandOutcome::Failed,
        Err(error) => output_failed(&error, global.color),
    };
    outcome.into()
}
