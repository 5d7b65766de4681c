//! `artel doctor`: what a daemon would find here, without starting one, and what to do about it.

mod advice;
mod findings;
mod gpu;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::args::{Global, Setup};
use crate::client::output::Output;
use crate::journal::exit;
use crate::serve::config::Config;
use findings::Findings;

/// Looks and tells; exit code 1 if a daemon could not start or could not run all models.
pub(crate) fn run(setup: &Setup, global: &Global) -> ExitCode {
    exit(look(setup, global), global)
}

fn look(setup: &Setup, global: &Global) -> Result<bool> {
    let config = Config::of(setup, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let findings = runtime.context("failed to start the runtime")?.block_on(Findings::of(&config));
    let lines = advice::lines(&findings);
    let mut output = Output::new(global);
    output.show(&advice::json(&findings, &lines), |page| advice::render(&lines, page))?;
    Ok(advice::is_well(&lines))
}
