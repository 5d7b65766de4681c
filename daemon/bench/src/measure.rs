//! One workload, measured in repeats on every target.
//!
//! Every repeat has new prompts, so that no cache of an earlier repeat hits: a server that has run for long is as cold as one
//! that was just started.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use artel_args::{BenchArgs, BenchWorkload};

use crate::baseline::LlamaBaseline;
use crate::own_daemon::{DaemonVariant, OwnDaemon};
use crate::peer_server::PeerServer;
use crate::scripted_daemon::ScriptedDaemon;
use crate::span_counter::SpanCounter;
use crate::table::BenchTable;
use crate::target::BenchTarget;
use crate::{adapters, baseline, choose, decode, front, hops, intruders, overload, roles, route, stall, watchers};

/// Measures a workload.
pub(crate) async fn measure(bench: &BenchArgs) -> Result<BenchTable> {
    if matches!(bench.name, BenchWorkload::Intruders | BenchWorkload::Watchers) {
        return measure_scripted(bench).await;
    }
    let model = bench.model.as_ref().context("--model is missing: name the GGUF file of a chat model")?;
    if !model.is_file() {
        bail!("--model {} is not a file: name the GGUF file of a chat model", model.display());
    }
    let model = std::path::absolute(model).context("failed to resolve the path of the model")?;
    let counter = if bench.traces { Some(SpanCounter::start().await?) } else { None };
    let inside = bench.inside.then_some(DaemonVariant::InProcess);
    let traced = counter.as_ref().map(|counter| DaemonVariant::Traced(counter.endpoint.clone()));
    let mut targets = Vec::new();
    for variant in [DaemonVariant::Default].into_iter().chain(inside).chain(traced) {
        targets.push(BenchTarget::Own(Box::new(OwnDaemon::start(&model, bench.threads, variant).await?)));
    }
    targets.extend(bench.against.as_deref().map(PeerServer::new).map(BenchTarget::Peer));
    let mut table = BenchTable::default();
    // Another server may have run since the last bench; its caches must not hold our prompts.
    let salt = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut cells, mut baselines) = (baseline::MIDPOINT_CELLS, Vec::new());
    let threads = bench.threads.unwrap_or_else(artel_llama::usable_cores);
    for repeat in 0..bench.repeats {
        for target in &mut targets {
            eprintln!("repeat {} of {}: {}", repeat + 1, bench.repeats, target.name());
            let salt = salt + u64::from(repeat);
            match bench.name {
                BenchWorkload::Roles => roles::run(target, salt, &mut table).await?,
                BenchWorkload::Stall => stall::run(target, salt, &mut table).await?,
                BenchWorkload::Adapters => adapters::run(target, bench.adapters.as_ref(), salt, &mut table).await?,
                BenchWorkload::Choose => choose::run(target, salt, &mut table).await?,
                BenchWorkload::Overload => overload::run(target, salt, &mut table).await?,
                BenchWorkload::Front => front::run(target, salt, &mut table).await?,
                BenchWorkload::Hops => hops::run(target, salt, &mut table).await?,
                BenchWorkload::Decode => cells = decode::run(target, salt, &mut table).await?.unwrap_or(cells),
                BenchWorkload::Intruders | BenchWorkload::Watchers => bail!("they are measured on scripted models"),
                BenchWorkload::Route => match target {
                    BenchTarget::Own(own) => route::run(own, salt, &mut table).await?,
                    BenchTarget::Peer(_) => {
                        bail!("the workload `route` has no equivalent on other servers: leave `--against` out")
                    }
                },
            }
        }
        if bench.name == BenchWorkload::Decode {
            // Alternating with the targets, because the ratio matters; they are idle meanwhile.
            baselines.push(measure_baseline(&model, threads, cells).await?);
            decode::record_file_baseline(&measure_file_baseline(&model, threads, cells).await?, &mut table);
        }
        // The order alternates, so that drift of the machine's speed affects all targets alike.
        targets.reverse();
    }
    // The daemons end before llama.cpp is measured alone.
    drop(targets);
    if let Some(counter) = counter {
        eprintln!("the collector received {} spans", counter.spans());
    }
    let set_limits = match bench.name {
        BenchWorkload::Roles => roles::set_limits,
        BenchWorkload::Stall => stall::set_limits,
        BenchWorkload::Adapters => adapters::set_limits,
        BenchWorkload::Choose => choose::set_limits,
        BenchWorkload::Hops => hops::set_limits,
        BenchWorkload::Decode => {
            decode::set_limits(&baselines, &mut table);
            return Ok(table);
        }
        BenchWorkload::Overload => {
            cells = overload::MIDPOINT_CELLS;
            overload::set_limits
        }
        // The cost of a decision depends on the signals in use, so llama.cpp alone gives no limit.
        BenchWorkload::Route | BenchWorkload::Front | BenchWorkload::Intruders | BenchWorkload::Watchers => {
            return Ok(table);
        }
    };
    set_limits(&measure_baseline(&model, threads, cells).await?, &mut table);
    Ok(table)
}

/// Measures a workload on a daemon whose models are scripts, with and without the load in turn.
async fn measure_scripted(bench: &BenchArgs) -> Result<BenchTable> {
    let is_model_named = bench.model.is_some() || bench.adapters.is_some() || bench.threads.is_some();
    if is_model_named || bench.inside || bench.against.is_some() {
        bail!("this workload runs on scripted models: leave all flags but `--repeats` out");
    }
    let daemon = ScriptedDaemon::start().await?;
    let mut table = BenchTable::default();
    for repeat in 0..bench.repeats {
        eprintln!("repeat {} of {}", repeat + 1, bench.repeats);
        // The order alternates, so that drift of the machine's speed affects both alike.
        let is_quiet_first = repeat.is_multiple_of(2);
        match bench.name {
            BenchWorkload::Intruders => intruders::run(&daemon, is_quiet_first, &mut table).await?,
            _ => watchers::run(&daemon, is_quiet_first, &mut table).await?,
        }
    }
    Ok(table)
}

/// llama.cpp's speed with the weights that the daemon computes with, at this many KV cells in each sequence.
async fn measure_baseline(model: &Path, threads: u32, cells: u32) -> Result<LlamaBaseline> {
    let model = model.to_owned();
    let baseline = tokio::task::spawn_blocking(move || LlamaBaseline::measure(&model, threads, cells));
    baseline.await.context("the measurement of llama.cpp panicked")?
}

/// llama.cpp's speed with the model's file as it is.
async fn measure_file_baseline(model: &Path, threads: u32, cells: u32) -> Result<LlamaBaseline> {
    let model = model.to_owned();
    let baseline = tokio::task::spawn_blocking(move || LlamaBaseline::measure_file(&model, threads, cells));
    baseline.await.context("the measurement of llama.cpp panicked")?
}
