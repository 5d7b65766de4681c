//! Converts engine reports to messages.

use std::time::Duration;

use artel_actors::{Clock, EngineReport, EngineState};
use artel_placement::{Placement, SplitMode};
use artel_proto::v1;
use artel_task::event::SamplingOptions;

use crate::server_paths::ServerPaths;
use crate::value::{duration, system_time};

/// `None` for a model that is neither loaded nor waited for.
pub(super) fn engine(report: EngineReport, clock: &Clock, paths: &ServerPaths) -> Option<v1::Engine> {
    let (state, mut problem, retry, loaded) = match report.state {
        EngineState::Unloaded if report.waiting_steps == 0 => return None,
        EngineState::Unloaded => (v1::EngineState::Loading, String::new(), None, 0.0),
        EngineState::Loading(share) => (v1::EngineState::Loading, String::new(), None, f64::from(share)),
        EngineState::Ready => (v1::EngineState::Ready, String::new(), None, 1.0),
        EngineState::Draining => (v1::EngineState::Draining, String::new(), None, 1.0),
        EngineState::Failed { reason, retry_after: retry } => (v1::EngineState::Failed, reason, retry, 0.0),
    };
    if problem.is_empty() {
        problem = report.last_error.unwrap_or_default();
    }
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let (stats, limits) = (report.stats.unwrap_or_default(), report.limits);
    let (devices, split, tensor_split) = report.placement.as_ref().map(device_split).unwrap_or_default();
    Some(v1::Engine {
        id: report.id,
        model: report.model.name.to_string(),
        devices,
        split: split.into(),
        tensor_split,
        state: state.into(),
        loaded_fraction: loaded,
        sequences: limits.map_or(report.model.sequences(), |limits| limits.sequences),
        active_sequences: number(stats.running),
        queued_sequences: number(stats.waiting).saturating_add(report.waiting_steps),
        context_tokens: limits.map_or(0, |limits| limits.context_tokens),
        memory: report.placement.as_ref().map(|placement| memory(placement, stats.prefix_cache_bytes)),
        process_id: report.process_id.unwrap_or(0),
        restarts: report.restarts,
        problem: paths.hide(&problem),
        retry_time: retry.map(|wait| system_time(clock.system_time() + wait)),
        adapters: report.adapters.iter().map(|adapter| paths.hide(adapter)).collect(),
        start_time: report.ready_since.map(system_time),
        last_use_time: report.last_used.map(system_time),
        totals: report.stats.map(|stats| v1::EngineTotals {
            sequences: stats.finished + stats.cancelled + stats.failed,
            prefill_tokens: stats.prefill_tokens,
            cached_tokens: stats.cached_tokens,
            output_tokens: stats.output_tokens,
            compute_time: Some(duration(Duration::from_nanos(stats.compute_ns))),
        }),
        idle_time: report.idle.map(duration),
        unload_time: report.unloads_at.map(system_time),
        kept: report.is_kept,
        sampling_defaults: (!report.sampling_defaults.is_empty()).then(|| sampling_options(&report.sampling_defaults)),
    })
}

/// What a model's file states; it states neither texts nor seeds.
fn sampling_options(options: &SamplingOptions) -> v1::SamplingOptions {
    let xtc = options.xtc.map(|xtc| v1::XtcSampling { probability: xtc.probability, threshold: Some(xtc.threshold) });
    v1::SamplingOptions {
        temperature: options.temperature,
        top_p: options.top_p,
        top_k: options.top_k,
        min_p: options.min_p,
        typical_p: options.typical_p,
        repeat_penalty: options.repeat_penalty,
        penalty_last_n: options.penalty_last_n,
        xtc,
        ..v1::SamplingOptions::default()
    }
}

/// The devices of a placement, its split mode, and the fraction on each device (`tensor_split`).
pub(super) fn device_split(placement: &Placement) -> (Vec<String>, v1::SplitMode, Vec<f64>) {
    let devices: Vec<String> = placement.devices().into_iter().map(str::to_owned).collect();
    match (devices.len(), placement.split) {
        (0 | 1, _) => (devices, v1::SplitMode::None, Vec::new()),
        (_, SplitMode::Row) => (devices, v1::SplitMode::Row, placement.fractions()),
        _ => (devices, v1::SplitMode::Layer, placement.fractions()),
    }
}

fn memory(placement: &Placement, prefix_bytes: u64) -> v1::EngineMemory {
    let sum = |of: fn(&artel_placement::PlacementPart) -> u64| placement.parts.iter().map(of).sum::<u64>();
    let host = |of: fn(&artel_placement::HostPart) -> u64| placement.host.as_ref().map_or(0, of);
    v1::EngineMemory {
        weights_bytes: sum(|part| part.weight_bytes) + host(|host| host.weight_bytes),
        kv_cache_bytes: sum(|part| part.kv_bytes) + host(|host| host.kv_bytes),
        compute_bytes: sum(|part| part.compute_bytes + part.process_bytes)
            + host(|host| host.compute_bytes + host.process_bytes),
        prefix_cache_bytes: prefix_bytes,
    }
}
