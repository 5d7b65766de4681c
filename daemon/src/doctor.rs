//! `artel doctor`: inspects the environment of a daemon on this machine without starting one, and gives advice.

mod advice;
mod diagnosis;
mod findings;
mod gpu;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use artel_args::{GlobalArgs, ServeArgs};
use artel_terminal::CommandOutput;

use crate::journal::exit_code;
use crate::log_config::LogConfig;
use crate::serve::config::Config;
use crate::trace_config::TraceConfig;
use findings::Findings;

/// Prints the diagnoses; exit code 1 if a daemon could not start or could not run all models.
pub(crate) fn run(args: &ServeArgs, global: &GlobalArgs) -> ExitCode {
    exit_code(diagnose(args, global), global)
}

fn diagnose(args: &ServeArgs, global: &GlobalArgs) -> Result<bool> {
    let config = Config::of(&args.daemon, args.listen)?;
    let log = LogConfig::of(&args.log, &config.log)?;
    let traces = TraceConfig::of(&args.traces, &config.traces)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    let findings = runtime.block_on(Findings::collect(&config, &log, &traces));
    let diagnoses = advice::diagnose(&findings);
    let mut output = CommandOutput::new(global);
    output.show(&advice::json(&findings, &diagnoses), |out| advice::render(&diagnoses, out))?;
    Ok(diagnosis::is_ok(&diagnoses))
}
