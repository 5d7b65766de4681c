//! An engine as clients see it.

use std::time::{Duration, SystemTime};

use artel_actors::{EngineReport, EngineState};
use artel_placement::{Placement, SplitMode};
use artel_proto::v1;

use crate::grpc::value::{duration, moment};

/// None for a model that is not loaded.
pub(super) fn engine(report: EngineReport) -> Option<v1::Engine> {
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
    let (devices, split, shares) = report.placement.as_ref().map(spread).unwrap_or_default();
    Some(v1::Engine {
        id: report.id,
        model: report.model.name.to_string(),
        devices,
        split: split.into(),
        shares,
        state: state.into(),
        loaded_fraction: loaded,
        sequences: limits.map_or(report.model.sequences, |limits| limits.sequences),
        active_sequences: number(stats.running),
        queued_sequences: number(stats.waiting).saturating_add(report.waiting_steps),
        context_tokens: limits.map_or(0, |limits| limits.context_tokens),
        memory: report.placement.as_ref().map(|place| memory(place, stats.prefix_cache_bytes)),
        process_id: report.process_id.unwrap_or(0),
        restarts: report.restarts,
        problem,
        retry_time: retry.map(|wait| moment(SystemTime::now() + wait)),
        adapters: report.adapters,
        start_time: report.ready_since.map(moment),
        last_use_time: report.last_used.map(moment),
        totals: report.stats.map(|stats| v1::EngineTotals {
            sequences: stats.finished + stats.cancelled + stats.failed,
            computed_tokens: stats.prefill_tokens,
            shared_tokens: stats.cached_tokens,
            output_tokens: stats.output_tokens,
            busy: Some(duration(Duration::from_nanos(stats.compute_ns))),
        }),
    })
}

/// Its devices, how it is spread over them, and their shares.
pub(super) fn spread(place: &Placement) -> (Vec<String>, v1::SplitMode, Vec<f64>) {
    let devices: Vec<String> = place.devices().into_iter().map(str::to_owned).collect();
    match (devices.len(), place.split) {
        (0 | 1, _) => (devices, v1::SplitMode::None, Vec::new()),
        (_, SplitMode::Row) => (devices, v1::SplitMode::Row, place.fractions()),
        _ => (devices, v1::SplitMode::Layer, place.fractions()),
    }
}

fn memory(place: &Placement, prefix_bytes: u64) -> v1::EngineMemory {
    let sum = |of: fn(&artel_placement::PlacementPart) -> u64| place.parts.iter().map(of).sum::<u64>();
    // What lies in the machine's memory beside the devices is the input embedding, weights nearly all of it.
    let host = place.host.as_ref().map_or(0, |(_, bytes)| *bytes);
    v1::EngineMemory {
        weights_bytes: sum(|part| part.weight_bytes) + host,
        cache_bytes: sum(|part| part.kv_bytes),
        compute_bytes: sum(|part| part.compute_bytes + part.process_bytes),
        prefix_bytes,
    }
}
