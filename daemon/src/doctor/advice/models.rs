//! The catalog, the files of its models and adapters, and whether they fit.

use std::collections::BTreeMap;

use artel_placement::{DeviceBytes, PlacementError, UnplacedModel};
use serde_json::{Value, json};

use super::super::findings::Findings;
use super::Line;
use crate::client::render::time::bytes;
use crate::serve::files::Fault;

pub(super) fn lines(found: &Findings) -> Vec<Line> {
    if let Some(error) = &found.catalog {
        let help = "`artel check DIR` shows every mistake with its place";
        return vec![Line::bad("catalog", error, help)];
    }
    let models = found.models.iter().map(|(name, looked)| match looked {
        Ok(()) => Line::good("model", format!("{name}: its file is here")),
        Err(fault) => trouble("model", name, fault, found.offline),
    });
    let adapters = found.adapters.iter().filter_map(|(role, looked)| {
        let fault = looked.as_ref().err()?;
        Some(trouble("adapter", &format!("of role {role}"), fault, found.offline))
    });
    models.chain(adapters).chain(room(found)).collect()
}

pub(super) fn json(models: &[(String, Result<(), Fault>)]) -> Vec<Value> {
    let model = |(name, looked): &(String, Result<(), Fault>)| match looked {
        Ok(()) => json!({"model": name, "error": null}),
        Err(fault @ Fault::Awaited { .. }) => json!({"model": name, "error": null, "awaited": fault.to_string()}),
        Err(fault) => json!({"model": name, "error": fault.to_string()}),
    };
    models.iter().map(model).collect()
}

fn trouble(what: &'static str, name: &str, fault: &Fault, offline: bool) -> Line {
    let says = format!("{name}: {fault}");
    match fault {
        Fault::Awaited { .. } if offline => Line::bad(
            what,
            says,
            "and the settings say `offline`: run `artel fetch` where there is a network, and copy the file to this place",
        ),
        Fault::Awaited { .. } => Line::doubtful(
            what,
            says,
            "it is fetched when it is first needed, while steps wait; `artel fetch` does it now",
        ),
        Fault::Missing(_) => Line::bad(
            what,
            says,
            "put the GGUF file there, say with `models` in the settings where your files are, or name one on the hub: \
             `file: hf:org/repo/file.gguf`",
        ),
        Fault::Wrong(_) => Line::bad(
            what,
            says,
            "you must be able to read the file (`ls -l` shows who may), and it must be a whole GGUF file: fetch it again if not",
        ),
    }
}

/// Whether the models have room, going by what is free now.
fn room(found: &Findings) -> Vec<Line> {
    let plan = &found.plan;
    let mut lines = Vec::new();
    if !plan.placed.is_empty() {
        let mut taken: DeviceBytes = BTreeMap::new();
        for (device, size) in plan.placed.iter().flat_map(|place| place.bytes()) {
            *taken.entry(device).or_default() += size;
        }
        let taken: Vec<String> = taken.iter().map(|(device, size)| format!("{} of {device}", bytes(*size))).collect();
        let names: Vec<&str> = plan.placed.iter().map(|place| place.model.as_str()).collect();
        let (names, taken) = (names.join(", "), taken.join(", "));
        lines.push(Line::good("room", format!("side by side there is room for {names}; that takes {taken}")));
    }
    lines.extend(plan.unplaced.iter().map(unplaced));
    lines
}

fn unplaced(unplaced: &UnplacedModel) -> Line {
    let remedies: Vec<String> = PlacementError::remedies(&unplaced.error).iter().map(ToString::to_string).collect();
    let remedies = remedies.join("; or ");
    match (&unplaced.alone, remedies.is_empty()) {
        (Some(_), true) => Line::doubtful("room", &unplaced.reason, "taking turns costs the time of loading each time"),
        (Some(_), false) => {
            let help = format!("taking turns costs the time of loading each time; what would help: {remedies}");
            Line::doubtful("room", &unplaced.reason, help)
        }
        (None, true) => Line::bad(
            "room",
            &unplaced.reason,
            "end other programs that take memory, a daemon that runs already among them, or choose a smaller model",
        ),
        (None, false) => Line::bad("room", &unplaced.reason, format!("what would help: {remedies}")),
    }
}
