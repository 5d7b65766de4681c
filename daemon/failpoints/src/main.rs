//! `artel-failpoints`, for tests only: the daemon with models that are scripts and with faults at chosen commits.
//!
//! It is `artel` in everything else, so that tests start it in the place of `artel`, and an engine process of it is itself
//! again. The hooks are all that it knows of the daemon. The program `artel` has none of it.
//!
//! `ARTEL_REHEARSAL_DEATH=before:N` kills the process before its N-th commit, `after:N` after it. `ARTEL_FAILPOINT=before:N=FAULT`
//! does what FAULT says: `kill`, `hang` (the commit never ends), `full` (the disk is full), `ioerr` (the disk does not write,
//! or does not confirm what it wrote) or `panic` (the journal's writer panics). `ARTEL_SCRIPT_PREFIXES=DIR` has scripted models keep
//! their prefixes there, as other models do in the data directory.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod failpoint;
mod script;

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use artel::ServeHooks;
use artel_actors::Loader;
use artel_journal::CommitHook;

use failpoint::{Failpoint, Failpoints};
use script::ScriptModelLoader;

/// A point of death, as `before:N` or `after:N`.
const KILL_VARIABLE: &str = "ARTEL_REHEARSAL_DEATH";
/// The directory of the prefixes of scripted models.
const PREFIXES_VARIABLE: &str = "ARTEL_SCRIPT_PREFIXES";
/// A point and its fault, as `before:N=FAULT` or `after:N=FAULT`.
const FAULT_VARIABLE: &str = "ARTEL_FAILPOINT";

fn main() -> ExitCode {
    let mut failpoints = Failpoints::default();
    for variable in [KILL_VARIABLE, FAULT_VARIABLE] {
        let Ok(text) = env::var(variable) else { continue };
        match text.parse::<Failpoint>() {
            Ok(failpoint) => failpoints.add(failpoint),
            Err(error) => {
                eprintln!("artel-failpoints: {variable}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    artel::main_with(hooks(failpoints))
}

fn hooks(failpoints: Failpoints) -> ServeHooks {
    let wrap = |loader: Arc<dyn Loader>| -> Arc<dyn Loader> {
        Arc::new(ScriptModelLoader::new(loader, env::var_os(PREFIXES_VARIABLE).map(Into::into)))
    };
    let journal_hook = |failpoints: Failpoints| -> Arc<dyn CommitHook> { Arc::new(failpoints) };
    ServeHooks {
        wrap_loader: Some(Box::new(wrap)),
        journal_hook: Some(failpoints).filter(|failpoints| !failpoints.is_empty()).map(journal_hook),
    }
}
