//! Devices, engines and placements.

use std::time::{Duration, SystemTime};

use artel_model::SamplingOptions;
use artel_model::sampling::XtcParams;
use artel_proto::v1::{
    self, Device, DeviceMonitor, DevicePart, Engine, EngineState, PlacedModel, Placement, PlacementChange,
    UnplacedModel,
};
use artel_terminal::{BAD, BOLD, DIM, DeviceReadings, GOOD, StyledText, TextTable, WARN, bytes, cell};

use crate::json::EnumName;
use crate::render::time::from_proto;

/// The most placement changes that are shown.
const MAX_CHANGES: usize = 20;

/// The devices of the daemon.
pub(crate) fn devices(devices: &[Device], out: &mut StyledText) {
    let mut table = TextTable::new(&["DEVICE", "KIND", "TOTAL", "FREE", "USED", "DESCRIPTION"]);
    for device in devices {
        let description = match (&device.monitor, device.available) {
            (_, false) => (BAD, device.problem.clone()),
            (Some(monitor), true) => (DIM, format!("{}; {}", device.description, readings(monitor))),
            (None, true) => (DIM, device.description.clone()),
        };
        table.row(vec![
            (BOLD, device.name.clone()),
            cell(device.kind().enum_name()),
            cell(bytes(device.total_bytes)),
            cell(bytes(device.free_bytes)),
            cell(bytes(device.used_bytes)),
            description,
        ]);
    }
    table.render(out);
}

fn readings(monitor: &DeviceMonitor) -> DeviceReadings<'_> {
    DeviceReadings {
        used_bytes: monitor.used_bytes,
        utilization: monitor.utilization,
        temperature_celsius: monitor.temperature_celsius,
        power_watts: monitor.power_watts,
        driver_version: &monitor.driver_version,
    }
}

/// The engines of the daemon, at this time.
pub(crate) fn engines(engines: &[Engine], now: SystemTime, out: &mut StyledText) {
    let mut table = TextTable::new(&["MODEL", "STATE", "DEVICES", "ACTIVE", "QUEUED", "MEMORY", "NOTES"]);
    for engine in engines {
        let state = match engine.state() {
            EngineState::Ready => (GOOD, "ready".to_owned()),
            EngineState::Failed => (BAD, "failed".to_owned()),
            EngineState::Loading => (WARN, format!("loading {:.0} %", engine.loaded_fraction * 100.0)),
            other => (WARN, other.enum_name()),
        };
        let memory = engine.memory.map(|memory| memory.weights_bytes + memory.kv_cache_bytes + memory.compute_bytes);
        table.row(vec![
            (BOLD, engine.id.clone()),
            state,
            cell(engine.devices.join(", ")),
            cell(format!("{}/{}", engine.active_sequences, engine.sequences)),
            cell(engine.queued_sequences.to_string()),
            cell(memory.map(bytes).unwrap_or_default()),
            (DIM, notes(engine, now)),
        ]);
    }
    table.render(out);
}

fn notes(engine: &Engine, now: SystemTime) -> String {
    let mut notes = Vec::new();
    notes.extend(stay(engine, now));
    if !engine.adapters.is_empty() {
        notes.push(format!("adapters {}", engine.adapters.join(", ")));
    }
    if let Some(totals) = &engine.totals {
        notes.push(format!(
            "{} sequences, {} tokens generated, {} prompt tokens cached",
            totals.sequences, totals.output_tokens, totals.cached_tokens
        ));
    }
    if let Some(stated) = &engine.sampling_defaults {
        notes.push(format!("its file states {}", stated_sampling(stated)));
    }
    if engine.restarts > 0 {
        notes.push(format!("unexpected exits: {}", engine.restarts));
    }
    if !engine.problem.is_empty() {
        notes.push(engine.problem.clone());
    }
    match &engine.retry_time {
        Some(time) => notes.push(format!("retried on demand after {time}")),
        None if engine.state() == EngineState::Failed => {
            notes.push(format!("not retried automatically: run `artel load {}`", engine.id));
        }
        None => {}
    }
    notes.join("; ")
}

/// How long the engine stays loaded, if its model says so.
fn stay(engine: &Engine, now: SystemTime) -> Option<String> {
    if engine.kept {
        return Some("kept".to_owned());
    }
    let unloads = SystemTime::try_from(*engine.unload_time.as_ref()?).ok()?;
    let idle = from_proto(engine.idle_time.as_ref());
    // The clock of the daemon's machine may be another one.
    let left = unloads.duration_since(now).unwrap_or_default();
    Some(format!("idle {}, unloads in {}", coarse(idle), coarse(left)))
}

/// A duration as people say it: `40 s`, `7 min`, `3 h 20 min`.
fn coarse(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// The fields that a model's file may state.
fn stated_sampling(stated: &v1::SamplingOptions) -> String {
    let xtc = stated.xtc.map(|xtc| XtcParams {
        probability: xtc.probability,
        threshold: xtc.threshold.unwrap_or_else(XtcParams::default_threshold),
    });
    let stated = SamplingOptions {
        temperature: stated.temperature,
        top_p: stated.top_p,
        top_k: stated.top_k,
        min_p: stated.min_p,
        typical_p: stated.typical_p,
        repeat_penalty: stated.repeat_penalty,
        penalty_last_n: stated.penalty_last_n,
        xtc,
        ..SamplingOptions::default()
    };
    stated.summary()
}

/// The placement of models, and the reasons and remedies for those that are not placed.
pub(crate) fn placement(placement: &Placement, out: &mut StyledText) {
    let Placement { placed, unplaced, changes, .. } = placement;
    if !placed.is_empty() {
        let mut table = TextTable::new(&["MODEL", "STATE", "DEVICE", "SHARE", "LAYERS", "MEMORY", "CACHE", "REASON"]);
        placed.iter().for_each(|model| placed_rows(model, &mut table));
        table.render(out);
    }
    if !placed.is_empty() && !unplaced.is_empty() {
        out.newline();
    }
    if !unplaced.is_empty() {
        let mut table = TextTable::new(&["NOT PLACED", "DEVICE", "MISSING", "REASON"]);
        unplaced.iter().for_each(|model| unplaced_rows(model, &mut table));
        table.render(out);
    }
    if placed.is_empty() && unplaced.is_empty() {
        out.push("no models").newline();
    }
    // Old changes do not explain the current placement.
    let skipped = changes.len().saturating_sub(MAX_CHANGES);
    if !changes.is_empty() {
        out.newline();
        let mut table = TextTable::new(&["TIME", "MODEL", "CHANGE", "REASON"]);
        changes.iter().skip(skipped).for_each(|change| change_row(change, &mut table));
        table.render(out);
    }
}

fn change_row(change: &PlacementChange, table: &mut TextTable) {
    let label = if change.loaded { (GOOD, "loaded".to_owned()) } else { (WARN, "unloaded".to_owned()) };
    let time = change.time.as_ref().map(ToString::to_string).unwrap_or_default();
    table.row(vec![(DIM, time), (BOLD, change.model.clone()), label, cell(change.reason.clone())]);
}

/// A row for each device; only the first has the columns of the model.
fn placed_rows(model: &PlacedModel, table: &mut TextTable) {
    let on = |at: usize, part: &DevicePart| {
        // The host memory beside a GPU holds layers or experts only if the GPU has too little memory for them; it comes last.
        let share = if part.share > 0.0 { format!("{:.0} %", part.share * 100.0) } else { String::new() };
        let has_experts = model.cpu_expert_layers > 0 && at + 1 == model.parts.len();
        let experts = format!("experts of {}", model.cpu_expert_layers);
        let layers = match (part.layers, has_experts) {
            (0, false) => String::new(),
            (0, true) => experts,
            (layers, false) => layers.to_string(),
            (layers, true) => format!("{layers}, {experts}"),
        };
        [cell(part.device.clone()), cell(share), cell(layers), cell(bytes(part.bytes))]
    };
    let state = if model.loaded { (GOOD, "loaded".to_owned()) } else { cell("") };
    let cache = match (model.sequences, model.context_tokens) {
        (0, _) | (_, 0) => String::new(),
        (sequences, tokens) => format!("{sequences} x {tokens}"),
    };
    let first = model.parts.first().map_or_else(|| [cell(""), cell(""), cell(""), cell("")], |part| on(0, part));
    let rest = [cell(cache), (DIM, model.reason.clone())];
    table.row([(BOLD, model.model.clone()), state].into_iter().chain(first).chain(rest).collect());
    for (at, part) in model.parts.iter().enumerate().skip(1) {
        table.row([cell(""), cell("")].into_iter().chain(on(at, part)).chain([cell(""), cell("")]).collect());
    }
}

/// A row for the reason, and one for each remedy.
fn unplaced_rows(model: &UnplacedModel, table: &mut TextTable) {
    let missing = if model.missing_bytes > 0 { bytes(model.missing_bytes) } else { String::new() };
    let name = (BAD, model.model.clone());
    table.row(vec![name, cell(model.device.clone()), cell(missing), cell(model.reason.clone())]);
    for remedy in &model.remedies {
        table.row(vec![cell(""), cell(""), cell(""), (WARN, format!("try {remedy}"))]);
    }
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::{DeviceKind, EngineMemory, EngineTotals};

    use super::*;
    use crate::render::sample;

    #[test]
    fn a_placement_shows_devices_reasons_and_remedies() {
        let mut out = StyledText::new(false);
        placement(&sample::placement(), &mut out);
        out.push("--").newline();
        placement(&Placement::default(), &mut out);
        insta::assert_snapshot!(out.take());
    }

    #[test]
    fn an_engine_says_how_long_it_stays() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let idle_time = Some(prost_types::Duration { seconds: 180, nanos: 999_000_000 });
        let unload_time = Some(SystemTime::into(now + Duration::from_secs(420)));
        let idle = Engine { idle_time, unload_time, ..Default::default() };
        assert_eq!(notes(&idle, now), "idle 3 min, unloads in 7 min");
        assert_eq!(notes(&idle, now + Duration::from_secs(500)), "idle 3 min, unloads in 0 s");
        assert_eq!(notes(&Engine { kept: true, ..Default::default() }, now), "kept");
        // What stays until its memory is needed is not worth a note.
        assert_eq!(notes(&Engine { idle_time, ..Default::default() }, now), "");
        assert_eq!([40, 12_000].map(|seconds| coarse(Duration::from_secs(seconds))), ["40 s", "3 h 20 min"]);
    }

    #[test]
    fn devices_and_engines_are_listed_in_columns() {
        let cpu = Device {
            name: "CPU".into(),
            description: "a CPU".into(),
            kind: DeviceKind::Cpu.into(),
            total_bytes: 8_000_000_000,
            free_bytes: 6_100_000_000,
            used_bytes: 150_000_000,
            available: true,
            ..Default::default()
        };
        let lost = Device { name: "RPC[127.0.0.1:9]".into(), problem: "it is gone".into(), ..Default::default() };
        let ready = Engine {
            id: "smollm2@CPU".into(),
            model: "smollm2".into(),
            state: EngineState::Ready.into(),
            devices: vec!["CPU".into()],
            sequences: 8,
            active_sequences: 3,
            memory: Some(EngineMemory { weights_bytes: 98_362_432, ..Default::default() }),
            adapters: vec!["zork".into()],
            totals: Some(EngineTotals { sequences: 12, output_tokens: 700, ..Default::default() }),
            ..Default::default()
        };
        let stated = v1::SamplingOptions { temperature: Some(0.6), top_k: Some(20), ..Default::default() };
        assert_eq!(
            notes(&Engine { sampling_defaults: Some(stated), ..Default::default() }, SystemTime::UNIX_EPOCH),
            "its file states temperature 0.6, top_k 20"
        );
        let problem = "the file is missing".into();
        let broken = Engine { id: "big".into(), state: EngineState::Failed.into(), problem, ..Default::default() };
        let mut out = StyledText::new(false);
        devices(&[cpu, lost], &mut out);
        out.newline();
        engines(&[ready, broken], SystemTime::UNIX_EPOCH, &mut out);
        insta::assert_snapshot!(out.take());
    }
}
