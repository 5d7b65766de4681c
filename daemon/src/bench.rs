//! `artel bench`: workloads on a daemon of its own, in turn with another server if one is named.
//!
//! Every repeat has prompts of its own, so that nothing of an earlier one helps: a server that has run for long is as cold
//! as one that was just started.

mod contestant;
mod own;
mod peer;
mod roles;
mod stall;
mod table;
mod words;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::args::{Bench, Global, Workload};
use contestant::Contestant;
use own::Own;
use peer::Peer;
use table::Table;

/// Measures and prints a table; exit code 1 if something could not be measured.
pub(crate) fn run(bench: &Bench, global: &Global) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start the runtime");
    match runtime.and_then(|runtime| runtime.block_on(measure(bench))) {
        Ok(table) => {
            table.print(global.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("artel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(bench: &Bench) -> Result<Table> {
    if !bench.model.is_file() {
        bail!("{} is no file: name the GGUF file of a chat model", bench.model.display());
    }
    let model = std::path::absolute(&bench.model).context("failed to find the model")?;
    let own = Contestant::Own(Box::new(Own::start(&model, bench.threads).await?));
    let peer = bench.against.as_deref().map(Peer::new).map(Contestant::Peer);
    let mut contestants: Vec<Contestant> = [own].into_iter().chain(peer).collect();
    let mut table = Table::default();
    // Another server may have run since the last bench, and must not know our prompts.
    let salt = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for repeat in 0..bench.repeats {
        for contestant in &mut contestants {
            eprintln!("repeat {} of {}: {}", repeat + 1, bench.repeats, contestant.name());
            match bench.name {
                Workload::Roles => roles::run(contestant, salt + u64::from(repeat), &mut table).await?,
                Workload::Stall => stall::run(contestant, salt + u64::from(repeat), &mut table).await?,
            }
        }
        // Whoever came first comes last.
        contestants.reverse();
    }
    Ok(table)
}
