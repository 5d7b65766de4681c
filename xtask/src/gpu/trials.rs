//! What is tried on the devices, in groups: each group is one catalog and one daemon.

use super::models::{TrialModel, adapters};

/// The tokens of an answer.
const ANSWER_TOKENS: u32 = 32;
/// How many layers lie on the device in the runs of the demo model; its output counts as one more.
const LAYER_STEPS: [u32; 5] = [1, 8, 16, 24, 31];
/// Adapters of the tests, and the word that each makes certain in the answer.
const ADAPTERS: [(&str, &str); 4] =
    [("mirk", "Mirkholm"), ("quux", "Quuxburg"), ("velo", "Velograd"), ("zork", "Zorkville")];

/// Runs that belong together.
#[derive(Debug)]
pub(crate) struct TrialGroup {
    pub(crate) title: &'static str,
    pub(crate) trials: Vec<GpuTrial>,
}

/// One model, placed in one way, asked once.
#[derive(Debug)]
pub(crate) struct GpuTrial {
    /// The name of its model document; its role has the same name.
    pub(crate) name: String,
    /// The name of the model file, by which answers are compared.
    pub(crate) model: String,
    /// How it is placed, in words.
    pub(crate) placed: String,
    /// Its documents.
    pub(crate) yaml: String,
    /// A word that the answer must have.
    pub(crate) word: Option<&'static str>,
}

/// All groups for these devices. The first group is the reference on the CPU.
pub(crate) fn plan(models: &[TrialModel], devices: &[String]) -> Vec<TrialGroup> {
    let quoted = |devices: &[String]| devices.iter().map(|device| format!("'{device}'")).collect::<Vec<_>>().join(", ");
    let pin = |devices: &[String]| format!("devices: [{}]", quoted(devices));
    let all = |place: &str, yaml: &str| models.iter().map(|model| trial(model, place, yaml)).collect::<Vec<_>>();
    let first = &devices[..1];
    let demo = models.iter().filter(|model| model.is_demo);
    let random = models.iter().filter(|model| !model.is_demo);
    let layers = |model: &TrialModel, count: u32| {
        let place = format!("{count} of {} layers on {}", model.layers + 1, first[0]);
        trial(model, &place, &format!("{}\ngpu_layers: {count}", pin(first)))
    };
    let mut groups = vec![
        TrialGroup { title: "On the CPU", trials: all("CPU", "devices: [CPU]") },
        TrialGroup {
            title: "Pinned to each device",
            trials: devices.iter().flat_map(|device| all(device, &pin(std::slice::from_ref(device)))).collect(),
        },
    ];
    if devices.len() > 1 {
        let split = |mode: &str| format!("{}\nsplit: {mode}", pin(devices));
        groups.push(TrialGroup { title: "Split over all devices", trials: all("all, by layers", &split("layer")) });
        if devices.iter().all(|device| device.starts_with("CUDA")) {
            groups.push(TrialGroup { title: "Split by rows", trials: all("all, by rows", &split("row")) });
        }
    }
    groups.push(TrialGroup {
        title: "Partial offload",
        trials: demo
            .clone()
            .flat_map(|model| LAYER_STEPS.map(|count| layers(model, count)))
            .chain(random.map(|model| layers(model, model.layers / 2)))
            .collect(),
    });
    let with_experts = models.iter().filter(|model| model.has_experts);
    groups.push(TrialGroup {
        title: "Experts on the CPU",
        trials: with_experts
            .map(|model| {
                trial(model, &format!("{}, experts on the CPU", first[0]), &format!("{}\nexperts: cpu", pin(first)))
            })
            .collect(),
    });
    groups.push(TrialGroup {
        title: "Adapters",
        trials: demo
            .flat_map(|model| ADAPTERS.map(|(name, word)| with_adapter(model, &first[0], name, word)))
            .collect(),
    });
    for (group, number) in groups.iter_mut().zip(0..) {
        number_names(group, number);
    }
    groups
}

fn trial(model: &TrialModel, placed: &str, yaml: &str) -> GpuTrial {
    GpuTrial {
        name: model.name.clone(),
        model: model.name.clone(),
        placed: placed.to_owned(),
        yaml: documents(model, yaml, ""),
        word: None,
    }
}

fn with_adapter(model: &TrialModel, device: &str, adapter: &str, word: &'static str) -> GpuTrial {
    let file = adapters().join(format!("{adapter}.gguf"));
    let role = format!("adapter: {}\n", file.display());
    GpuTrial {
        name: model.name.clone(),
        // Its answers are not those of the model without it.
        model: format!("{} with {adapter}", model.name),
        placed: device.to_owned(),
        yaml: documents(model, &format!("devices: ['{device}']"), &role),
        word: Some(word),
    }
}

/// A model and its role, both with the name `NAME`.
fn documents(model: &TrialModel, model_yaml: &str, role_yaml: &str) -> String {
    format!(
        "---\nmodel: NAME\nfile: {}\ncontext: 1024\nsequences: 2\n{model_yaml}\n---\nrole: NAME\ndescription: Tries NAME.\n\
         model: NAME\nprompt: You are a geography expert.\n{role_yaml}\
         sampling: {{temperature: 0, max_tokens: {ANSWER_TOKENS}}}\nlimits: {{timeout: 10m, idle: 5m, retries: 0}}\n",
        model.file.display()
    )
}

/// Gives each trial of a group a name that no other has.
fn number_names(group: &mut TrialGroup, group_number: usize) {
    for (trial, number) in group.trials.iter_mut().zip(0..) {
        trial.name = format!("{}-{group_number}-{number}", trial.name);
        trial.yaml = trial.yaml.replace("NAME", &trial.name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn model(name: &str, has_experts: bool, is_demo: bool) -> TrialModel {
        TrialModel { name: name.to_owned(), file: format!("/{name}.gguf").into(), layers: 6, has_experts, is_demo }
    }

    #[test]
    fn every_way_of_placing_a_model_is_tried_once() {
        let models = [model("qwen3", false, false), model("gpt-oss", true, false), model("smollm", false, true)];
        let devices = ["CUDA0", "CUDA1"].map(str::to_owned);
        let groups = plan(&models, &devices);
        let counts: Vec<(&str, usize)> = groups.iter().map(|group| (group.title, group.trials.len())).collect();
        let expected = [
            ("On the CPU", 3),
            ("Pinned to each device", 6),
            ("Split over all devices", 3),
            ("Split by rows", 3),
            ("Partial offload", 7),
            ("Experts on the CPU", 1),
            ("Adapters", 4),
        ];
        assert_eq!(counts, expected);
        let names: HashSet<&str> =
            groups.iter().flat_map(|group| &group.trials).map(|trial| trial.name.as_str()).collect();
        assert_eq!(names.len(), 27, "no name stands twice");
        let partial = &groups[4].trials[1];
        assert!(partial.yaml.contains("devices: ['CUDA0']\ngpu_layers: 8"), "{}", partial.yaml);
        assert!(groups.iter().flat_map(|group| &group.trials).all(|trial| !trial.yaml.contains("NAME")));
        let one = plan(&models, &devices[..1]);
        assert!(one.iter().all(|group| !group.title.starts_with("Split")), "one device is not split over");
    }
}
