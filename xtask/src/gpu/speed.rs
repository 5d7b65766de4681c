//! Tokens per second of the demo model as its layers move from the CPU to the devices.

use super::models::TrialModel;

/// Layers on the devices, the last ones of the model; all of them, with the output, come after these.
const LAYER_STEPS: [u32; 4] = [0, 8, 16, 24];
/// Tokens of an answer: seconds of decoding on a slow device.
const ANSWER_TOKENS: u32 = 48;
/// Sentences of a prompt, some five hundred tokens: one large batch.
const PROMPT_LINES: u32 = 36;

/// The demo model with so many layers on these devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpeedTrial {
    /// The name of its model document; its role has the same name.
    pub(crate) name: String,
    /// The devices, in words.
    pub(crate) devices: String,
    /// The layers on them, and the output as one of them.
    pub(crate) layers: u32,
    /// Its documents.
    pub(crate) yaml: String,
}

/// Tokens per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TokenSpeeds {
    pub(crate) prompt: f64,
    pub(crate) decode: f64,
}

impl TokenSpeeds {
    /// The greater one of each: what else runs on the machine only slows a run down.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { prompt: self.prompt.max(other.prompt), decode: self.decode.max(other.decode) }
    }
}

/// The trials: each device alone, and all together if there are several. Without a layer on a device, all rows are the same.
pub(crate) fn plan(model: &TrialModel, devices: &[String]) -> Vec<SpeedTrial> {
    let mut sets: Vec<&[String]> = devices.chunks(1).collect();
    if devices.len() > 1 {
        sets.push(devices);
    }
    let steps = |set| LAYER_STEPS.into_iter().chain([model.layers + 1]).map(move |layers| (set, layers));
    let rows = sets.into_iter().enumerate().flat_map(|(index, set)| steps(set).skip(usize::from(index > 0)));
    rows.zip(0..).map(|((set, layers), number)| trial(model, set, layers, number)).collect()
}

fn trial(model: &TrialModel, devices: &[String], layers: u32, number: u32) -> SpeedTrial {
    let name = format!("speed-{number}");
    let quoted: Vec<String> = devices.iter().map(|device| format!("'{device}'")).collect();
    // A model without layers on a device is pinned to none.
    let pin = if layers == 0 { String::new() } else { format!("devices: [{}]\n", quoted.join(", ")) };
    let split = if devices.len() > 1 && layers > 0 { "split: layer\n" } else { "" };
    SpeedTrial {
        devices: if layers == 0 { "none".to_owned() } else { devices.join(" and ") },
        layers,
        // All rows compute with the same weights.
        yaml: format!(
            "---\nmodel: {name}\nfile: {}\ncontext: 1024\nsequences: 1\nweights: file\ngpu_layers: {layers}\n{pin}{split}---\n\
             role: {name}\ndescription: Tries {name}.\nmodel: {name}\nprompt: You go on with a story.\n\
             sampling: {{temperature: 0, max_tokens: {ANSWER_TOKENS}}}\nlimits: {{timeout: 10m, idle: 5m, retries: 0}}\n",
            model.file.display()
        ),
        name,
    }
}

/// A text that no other number's begins as: nothing of it is in a cache.
pub(crate) fn prompt(number: u32) -> String {
    let line = |at: u32| format!("In year {} of the log, ship {at} brought salt and wool. ", 100 * number + at);
    (0..PROMPT_LINES).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> TrialModel {
        TrialModel {
            name: "smollm".to_owned(),
            file: "/demo.gguf".into(),
            layers: 30,
            has_experts: false,
            is_demo: true,
        }
    }

    #[test]
    fn layers_move_to_each_device_and_to_all() {
        let devices = ["RPC[a:1]", "RPC[b:1]"].map(str::to_owned);
        let trials = plan(&demo(), &devices);
        let rows: Vec<(&str, u32)> = trials.iter().map(|trial| (trial.devices.as_str(), trial.layers)).collect();
        assert_eq!(rows[..5], [("none", 0), ("RPC[a:1]", 8), ("RPC[a:1]", 16), ("RPC[a:1]", 24), ("RPC[a:1]", 31)]);
        assert_eq!(rows[9..], [8, 16, 24, 31].map(|layers| ("RPC[a:1] and RPC[b:1]", layers)));
        assert!(trials[0].yaml.contains("gpu_layers: 0\n---"), "{}", trials[0].yaml);
        assert!(trials[9].yaml.contains("gpu_layers: 8\ndevices: ['RPC[a:1]', 'RPC[b:1]']\nsplit: layer\n"));
        assert_eq!(plan(&demo(), &devices[..1]).len(), 5);
    }

    #[test]
    fn prompts_differ_from_their_first_sentence_on() {
        assert!(prompt(0).starts_with("In year 0 ") && prompt(1).starts_with("In year 100 "));
        assert_eq!(prompt(2).matches("ship").count(), 36);
    }
}
