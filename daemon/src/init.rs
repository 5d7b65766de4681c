//! `artel init`: from nothing to a catalog of one's own, with the best model that this machine has memory for.
//!
//! The order makes an interruption harmless: the model is downloaded first, under a name that no catalog reads until it is
//! whole, and the catalog is written last, file by file and never over another one. The same command goes on where it stopped.

mod choose;
mod crew_check;
mod notes;
mod place;
mod prepare;
mod questions;
mod report;
mod setup;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use artel_args::{GlobalArgs, InitArgs};
use artel_terminal::{CommandOutcome, CommandOutput, print_error};

use crate::journal::exit_code;
use questions::Questions;
use report::InitReport;
use setup::Setup;

/// Sets up a catalog; exit code 1 if it is not written or cannot work, 2 if nothing can be asked.
pub(crate) fn run(args: &InitArgs, global: &GlobalArgs) -> ExitCode {
    if !args.yes && (global.json || !io::stdin().is_terminal()) {
        let why = if global.json { "with --json" } else { "because standard input is no terminal" };
        let advice = "`--yes` takes the default directory and the model that is offered";
        print_error(global.color, format_args!("nothing can be asked {why}: {advice}"));
        return CommandOutcome::Usage.into();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("failed to start the runtime").and_then(|runtime| {
        let mut output = CommandOutput::new(global);
        runtime.block_on(set_up(args, &mut output))
    });
    exit_code(result, global)
}

async fn set_up(args: &InitArgs, output: &mut CommandOutput) -> Result<bool> {
    let mut questions = Questions::new(!args.yes);
    let mut setup = Setup::new(args, &mut questions).await?;
    setup.show_memory(output)?;
    let chosen = setup.choose(&mut questions, output).await?;
    let prepared = setup.prepare(chosen, &mut questions, output).await?;
    let files = prepared.catalog.files();
    let written = artel_init::write_files(&setup.place.dir, &files, args.force)?;
    let check = crew_check::check(&setup.place.dir, &setup.config, &prepared.catalog).await?;
    let report = InitReport { setup: &setup, prepared: &prepared, files: &files, written: &written, check: &check };
    report.print(output)?;
    Ok(check.is_ok())
}
