//! `artel journal`: checks and repairs the journal without a daemon.

mod integrity;
mod repair;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use artel_args::{GlobalArgs, JournalCommand};
use artel_terminal::{CommandOutcome, CommandOutput, print_error};

use crate::serve::config::Config;

/// Runs a command; exit code 1 if the journal is damaged and not repaired, or cannot be read.
pub(crate) fn run(command: &JournalCommand, global: &GlobalArgs) -> ExitCode {
    let output = &mut CommandOutput::new(global);
    let result = match command {
        JournalCommand::Check(args) => Config::at(args).and_then(|config| {
            let report = block_on(artel_journal::check(&config.data))?;
            integrity::print(report.as_ref(), output)?;
            Ok(report.is_none_or(|report| report.problems.is_empty()))
        }),
        JournalCommand::Repair(args) => Config::at(args).and_then(|config| {
            let repair = block_on(artel_journal::repair(&config.data))?;
            repair::print(repair.as_ref(), output).map(|()| true)
        }),
    };
    exit_code(result, global)
}

/// The exit code of a result, `Ok(false)` being a failed check; prints an error to standard error.
pub(crate) fn exit_code(result: Result<bool>, global: &GlobalArgs) -> ExitCode {
    let outcome = match result {
        Ok(true) => CommandOutcome::Done,
        Ok(false) => CommandOutcome::Failed,
        Err(error) => {
            print_error(global.color, format_args!("{error:#}"));
            CommandOutcome::Failed
        }
    };
    outcome.into()
}

/// Runs an operation of the journal to its end. The message of an error names its cause already.
fn block_on<T>(operation: impl Future<Output = Result<T, artel_journal::Error>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(operation).map_err(|error| anyhow!("{error}"))
}
