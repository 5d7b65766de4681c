//! `artel bench`: workloads on a daemon of its own, in turn with another server if one is named.
//!
//! Every repeat has prompts of its own, so that nothing of an earlier one helps: a server that has run for long is as cold
//! as one that was just started.

mod adapters;
mod choose;
mod contestant;
mod crowd;
mod decode;
mod hops;
mod overload;
mod own;
mod peer;
mod roles;
mod route;
mod speeds;
mod stall;
mod table;
mod words;

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::args::{Bench, Global, Workload};
use contestant::Contestant;
use own::Own;
use peer::Peer;
use speeds::Speeds;
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
    let own = Contestant::Own(Box::new(Own::start(&model, bench.threads, false).await?));
    let inside = match bench.inside {
        true => Some(Contestant::Own(Box::new(Own::start(&model, bench.threads, true).await?))),
        false => None,
    };
    let peer = bench.against.as_deref().map(Peer::new).map(Contestant::Peer);
    let mut contestants: Vec<Contestant> = [own].into_iter().chain(inside).chain(peer).collect();
    let mut table = Table::default();
    // Another server may have run since the last bench, and must not know our prompts.
    let salt = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut cells, mut alone) = (speeds::CELLS, Vec::new());
    let threads = bench.threads.unwrap_or_else(crate::serve::cores);
    for repeat in 0..bench.repeats {
        for contestant in &mut contestants {
            eprintln!("repeat {} of {}: {}", repeat + 1, bench.repeats, contestant.name());
            let salt = salt + u64::from(repeat);
            match bench.name {
                Workload::Roles => roles::run(contestant, salt, &mut table).await?,
                Workload::Stall => stall::run(contestant, salt, &mut table).await?,
                Workload::Adapters => adapters::run(contestant, bench.adapters.as_ref(), salt, &mut table).await?,
                Workload::Choose => choose::run(contestant, salt, &mut table).await?,
                Workload::Overload => overload::run(contestant, salt, &mut table).await?,
                Workload::Hops => hops::run(contestant, salt, &mut table).await?,
                Workload::Decode => cells = decode::run(contestant, salt, &mut table).await?.unwrap_or(cells),
                Workload::Route => match contestant {
                    Contestant::Own(own) => route::run(own, salt, &mut table).await?,
                    Contestant::Peer(_) => bail!("other servers do not route: leave `--against` out"),
                },
            }
        }
        if bench.name == Workload::Decode {
            // In turn with the others, since it is their ratio that counts; nobody asks them anything meanwhile.
            alone.push(measure_alone(&model, threads, cells).await?);
            decode::of_file(&measure_file(&model, threads, cells).await?, &mut table);
        }
        // Whoever came first comes last.
        contestants.reverse();
    }
    // The daemon has ended when llama.cpp is measured alone.
    drop(contestants);
    let limits = match bench.name {
        Workload::Roles => roles::limits,
        Workload::Stall => stall::limits,
        Workload::Adapters => adapters::limits,
        Workload::Choose => choose::limits,
        Workload::Hops => hops::limits,
        Workload::Decode => {
            decode::limits(&alone, &mut table);
            return Ok(table);
        }
        Workload::Overload => {
            cells = overload::CELLS;
            overload::limits
        }
        // What a decision costs depends on which signals are heard.
        Workload::Route => return Ok(table),
    };
    limits(&measure_alone(&model, threads, cells).await?, &mut table);
    Ok(table)
}

/// What llama.cpp does on the same model and with the same weights, with so many cells of each sequence.
async fn measure_alone(model: &Path, threads: u32, cells: u32) -> Result<Speeds> {
    let model = model.to_owned();
    let speeds = tokio::task::spawn_blocking(move || Speeds::measure(&model, threads, cells));
    speeds.await.context("measuring llama.cpp panicked")?
}

/// What llama.cpp does on the model's file as it is.
async fn measure_file(model: &Path, threads: u32, cells: u32) -> Result<Speeds> {
    let model = model.to_owned();
    let speeds = tokio::task::spawn_blocking(move || Speeds::of_file(&model, threads, cells));
    speeds.await.context("measuring llama.cpp panicked")?
}
