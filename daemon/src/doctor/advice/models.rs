//! The catalog, the files of its models and adapters, and whether the models fit into memory.

use std::collections::BTreeMap;

use artel_check::files::FileProblem;
use artel_placement::{DeviceBytes, PlacementError, UnplacedModel};
use artel_terminal::bytes;
use serde_json::{Value, json};

use crate::doctor::diagnosis::Diagnosis;
use crate::doctor::findings::Findings;

pub(super) fn diagnose(findings: &Findings) -> Vec<Diagnosis> {
    if let Some(error) = &findings.catalog {
        let help = "`artel check DIR` shows every problem with its location";
        return vec![Diagnosis::error("catalog", error, help)];
    }
    let models = findings.models.iter().map(|(name, checked)| match checked {
        Ok(()) => Diagnosis::ok("model", format!("{name}: file found")),
        Err(problem) => file_problem("model", name, problem, findings.offline),
    });
    let adapters = findings.adapters.iter().filter_map(|(adapter, checked)| {
        let problem = checked.as_ref().err()?;
        Some(file_problem("adapter", adapter, problem, findings.offline))
    });
    models.chain(adapters).chain(placement(findings)).collect()
}

pub(super) fn json(models: &[(String, Result<(), FileProblem>)]) -> Vec<Value> {
    let model = |(name, checked): &(String, Result<(), FileProblem>)| match checked {
        Ok(()) => json!({"model": name, "error": null}),
        Err(problem @ FileProblem::NotFetched { .. }) => {
            json!({"model": name, "error": null, "not_fetched": problem.to_string()})
        }
        Err(problem) => json!({"model": name, "error": problem.to_string()}),
    };
    models.iter().map(model).collect()
}

fn file_problem(subject: &'static str, name: &str, problem: &FileProblem, offline: bool) -> Diagnosis {
    let message = format!("{name}: {problem}");
    match problem {
        FileProblem::NotFetched { .. } if offline => Diagnosis::error(
            subject,
            message,
            "the settings say `offline`: run `artel fetch` on a machine with a network, and copy the file to this path",
        ),
        FileProblem::NotFetched { .. } => Diagnosis::warning(
            subject,
            message,
            "it is downloaded when first needed, while steps wait; `artel fetch` downloads it now",
        ),
        FileProblem::Missing(_) => Diagnosis::error(
            subject,
            message,
            "put the GGUF file there, set `models` in the settings to the directory of your files, or name a file on \
             Hugging Face: `file: hf:org/repo/file.gguf`",
        ),
        FileProblem::NoAdapter { .. } => Diagnosis::error(
            subject,
            message,
            "put the GGUF file there, or write a document `adapter: NAME` with its `file`",
        ),
        FileProblem::Invalid(_) => Diagnosis::error(
            subject,
            message,
            "the file must be readable (`ls -l` shows its permissions) and a complete GGUF file: download it again if it is not",
        ),
    }
}

/// Whether the models fit into the memory that is free now.
fn placement(findings: &Findings) -> Vec<Diagnosis> {
    let plan = &findings.plan;
    let mut diagnoses = Vec::new();
    if !plan.placed.is_empty() {
        let mut used: DeviceBytes = BTreeMap::new();
        for (device, size) in plan.placed.iter().flat_map(|place| place.bytes()) {
            *used.entry(device).or_default() += size;
        }
        let used: Vec<String> = used.iter().map(|(device, size)| format!("{} of {device}", bytes(*size))).collect();
        let names: Vec<&str> = plan.placed.iter().map(|place| place.model.as_str()).collect();
        let (names, used) = (names.join(", "), used.join(", "));
        diagnoses.push(Diagnosis::ok("placement", format!("these models fit together: {names}; they take {used}")));
    }
    diagnoses.extend(plan.unplaced.iter().map(unplaced));
    diagnoses
}

fn unplaced(unplaced: &UnplacedModel) -> Diagnosis {
    let remedies: Vec<String> = PlacementError::remedies(&unplaced.error).iter().map(ToString::to_string).collect();
    let remedies = remedies.join("; or ");
    if unplaced.kept_out.is_some() {
        let or = if remedies.is_empty() { String::new() } else { format!("; other remedies: {remedies}") };
        let help = format!("with a duration in place of `keep: forever`, models take turns{or}");
        return Diagnosis::error("placement", &unplaced.reason, help);
    }
    match (&unplaced.alone, remedies.is_empty()) {
        (Some(_), true) => {
            Diagnosis::warning("placement", &unplaced.reason, "models that take turns are loaded anew at every swap")
        }
        (Some(_), false) => {
            let help = format!("models that take turns are loaded anew at every swap; possible remedies: {remedies}");
            Diagnosis::warning("placement", &unplaced.reason, help)
        }
        (None, true) => Diagnosis::error(
            "placement",
            &unplaced.reason,
            "end other programs that use memory, including a running daemon, or choose a smaller model",
        ),
        (None, false) => Diagnosis::error("placement", &unplaced.reason, format!("possible remedies: {remedies}")),
    }
}
