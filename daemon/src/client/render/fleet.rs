//! Devices, engines, and which model belongs where.

use artel_proto::v1::{
    Device, DeviceMonitor, DeviceShare, Engine, EngineState, Move, PlacedModel, Placement, UnplacedModel,
};

use super::page::{BAD, BOLD, DIM, GOOD, Page, WARN};
use super::table::{Table, cell};
use super::time::bytes;
use crate::client::json::Word;

/// Loads and unloads that are shown.
const SHOWN: usize = 20;

/// The devices that the daemon knows.
pub(crate) fn devices(devices: &[Device], page: &mut Page) {
    let mut table = Table::new(&["DEVICE", "KIND", "TOTAL", "FREE", "USED", "DESCRIPTION"]);
    for device in devices {
        let about = match (&device.monitor, device.available) {
            (_, false) => (BAD, device.problem.clone()),
            (Some(monitor), true) => (DIM, format!("{}; {}", device.description, monitored(monitor))),
            (None, true) => (DIM, device.description.clone()),
        };
        table.row(vec![
            (BOLD, device.name.clone()),
            cell(device.kind().word()),
            cell(bytes(device.total_bytes)),
            cell(bytes(device.free_bytes)),
            cell(bytes(device.used_bytes)),
            about,
        ]);
    }
    table.render(page);
}

/// What a monitor says, as far as it does: `3.0 GB in use, 12 % busy, 43 °C, 61 W, driver 550.54`.
pub(crate) fn monitored(monitor: &DeviceMonitor) -> String {
    let driver = Some(&monitor.driver_version).filter(|version| !version.is_empty());
    let figures = [
        monitor.used_bytes.map(|used| format!("{} in use", bytes(used))),
        monitor.utilization.map(|share| format!("{:.0} % busy", share * 100.0)),
        monitor.temperature_celsius.map(|celsius| format!("{celsius:.0} °C")),
        monitor.power_watts.map(|watts| format!("{watts:.0} W")),
        driver.map(|version| format!("driver {version}")),
    ];
    figures.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The engines that run.
pub(crate) fn engines(engines: &[Engine], page: &mut Page) {
    let mut table = Table::new(&["MODEL", "STATE", "DEVICES", "ACTIVE", "QUEUED", "MEMORY", "NOTES"]);
    for engine in engines {
        let state = match engine.state() {
            EngineState::Ready => (GOOD, "ready".to_owned()),
            EngineState::Failed => (BAD, "failed".to_owned()),
            EngineState::Loading => (WARN, format!("loading {:.0} %", engine.loaded_fraction * 100.0)),
            other => (WARN, other.word()),
        };
        let memory = engine.memory.map(|memory| memory.weights_bytes + memory.cache_bytes + memory.compute_bytes);
        table.row(vec![
            (BOLD, engine.id.clone()),
            state,
            cell(engine.devices.join(", ")),
            cell(format!("{}/{}", engine.active_sequences, engine.sequences)),
            cell(engine.queued_sequences.to_string()),
            cell(memory.map(bytes).unwrap_or_default()),
            (DIM, notes(engine)),
        ]);
    }
    table.render(page);
}

fn notes(engine: &Engine) -> String {
    let mut notes = Vec::new();
    if !engine.adapters.is_empty() {
        notes.push(format!("adapters {}", engine.adapters.join(", ")));
    }
    if let Some(totals) = &engine.totals {
        notes.push(format!(
            "{} sequences, {} tokens written, {} shared",
            totals.sequences, totals.output_tokens, totals.shared_tokens
        ));
    }
    if engine.restarts > 0 {
        notes.push(format!("ended by itself, times: {}", engine.restarts));
    }
    if !engine.problem.is_empty() {
        notes.push(engine.problem.clone());
    }
    match &engine.retry_time {
        Some(time) => notes.push(format!("loaded again from {time} on, if it is needed")),
        None if engine.state() == EngineState::Failed => {
            notes.push(format!("given up: `artel load {}` tries again", engine.id));
        }
        None => {}
    }
    notes.join("; ")
}

/// Which model belongs where, and what those without a place lack.
pub(crate) fn placement(placement: &Placement, page: &mut Page) {
    let Placement { placed, unplaced, moves, .. } = placement;
    if !placed.is_empty() {
        let mut table = Table::new(&["MODEL", "STATE", "DEVICE", "SHARE", "MEMORY", "WHY"]);
        placed.iter().for_each(|model| place(model, &mut table));
        table.render(page);
    }
    if !placed.is_empty() && !unplaced.is_empty() {
        page.end();
    }
    if !unplaced.is_empty() {
        let mut table = Table::new(&["NO PLACE", "DEVICE", "MISSING", "WHY"]);
        unplaced.iter().for_each(|model| lack(model, &mut table));
        table.render(page);
    }
    if placed.is_empty() && unplaced.is_empty() {
        page.put("there are no models").end();
    }
    // What happened long ago explains nothing any more.
    let lately = moves.len().saturating_sub(SHOWN);
    if !moves.is_empty() {
        page.end();
        let mut table = Table::new(&["WHEN", "MODEL", "WHAT", "WHY"]);
        moves.iter().skip(lately).for_each(|moved| row(moved, &mut table));
        table.render(page);
    }
}

fn row(moved: &Move, table: &mut Table) {
    let what = if moved.loaded { (GOOD, "loaded".to_owned()) } else { (WARN, "gone".to_owned()) };
    let time = moved.time.as_ref().map(ToString::to_string).unwrap_or_default();
    table.row(vec![(DIM, time), (BOLD, moved.model.clone()), what, cell(moved.reason.clone())]);
}

/// A row for each device; the first says the rest too.
fn place(model: &PlacedModel, table: &mut Table) {
    let on = |share: &DeviceShare| {
        // Machine memory beside a GPU has no share of the model.
        let part = if share.share > 0.0 { format!("{:.0} %", share.share * 100.0) } else { String::new() };
        [cell(share.device.clone()), cell(part), cell(bytes(share.bytes))]
    };
    let state = if model.loaded { (GOOD, "loaded".to_owned()) } else { cell("") };
    let first = model.shares.first().map_or_else(|| [cell(""), cell(""), cell("")], on);
    let row = [(BOLD, model.model.clone()), state].into_iter().chain(first).chain([(DIM, model.reason.clone())]);
    table.row(row.collect());
    for share in model.shares.iter().skip(1) {
        table.row([cell(""), cell("")].into_iter().chain(on(share)).chain([cell("")]).collect());
    }
}

/// A row for the lack, and one for each remedy.
fn lack(model: &UnplacedModel, table: &mut Table) {
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
    use crate::client::render::sample;

    #[test]
    fn a_placement_says_where_why_and_what_helps() {
        let mut page = Page::new(false);
        placement(&sample::placement(), &mut page);
        page.put("--").end();
        placement(&Placement::default(), &mut page);
        insta::assert_snapshot!(page.take());
    }

    #[test]
    fn devices_and_engines_are_listed_in_columns() {
        let cpu = Device {
            name: "CPU".into(),
            description: "a processor".into(),
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
        let problem = "the file is missing".into();
        let broken = Engine { id: "big".into(), state: EngineState::Failed.into(), problem, ..Default::default() };
        let mut page = Page::new(false);
        devices(&[cpu, lost], &mut page);
        page.end();
        engines(&[ready, broken], &mut page);
        insta::assert_snapshot!(page.take());
    }
}
