//! PEFT's settings of an adapter: what is used of them, what does not matter, and what is refused.

use std::io::Read;
use std::path::Path;

use artel_model::open_regular_file;
use serde_json::{Map, Value};

use crate::error::{AdapterRefusal, ConvertError, shown};
use crate::module_patterns::ModulePatterns;

/// The largest file; those of PEFT have about a kilobyte, with a pattern for each module some hundred.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// Settings that say how an adapter was trained or for what, and nothing of what it does: which modules it has is said
/// by its matrices, whose shapes are the same whichever way a module stores its weight (`fan_in_fan_out`).
const IRRELEVANT: [&str; 21] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "unsloth_fixed",
];
/// Settings that are read.
const READ: [&str; 8] =
    ["peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "init_lora_weights"];
/// Settings that make an adapter more than a LoRA when they are set.
const REFUSED: [(&str, &str); 8] = [
    ("use_dora", "DoRA scales each output by a learned magnitude, which GGUF cannot say; train without it"),
    ("modules_to_save", "modules trained whole are no LoRA; train without them, or merge the adapter into its model"),
    ("lora_bias", "a bias of lora_B has no place in GGUF; train without it"),
    ("trainable_token_indices", "trained tokens are rows of the embedding and no LoRA; train without them"),
    ("layer_replication", "it makes a model of other layers than the base; train on a model that has them"),
    ("target_parameters", "parameters of experts are not converted; train linear layers"),
    ("alora_invocation_tokens", "an aLoRA applies after certain tokens only, which is not converted; train a LoRA"),
    ("use_qalora", "QA-LoRA groups its inputs, which GGUF cannot say; train without it"),
];
/// Initializations after which the model is the one that is named; the others have changed it, and the adapter fits the
/// changed one.
const PLAIN_INITIALIZATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// The settings on which the effect of an adapter depends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PeftSettings {
    rank: u64,
    alpha: f64,
    rank_pattern: ModulePatterns<u64>,
    alpha_pattern: ModulePatterns<f64>,
    /// Whether the scale is alpha over the root of the rank, and not over the rank.
    is_rank_stabilized: bool,
}

/// What the settings say of a module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ModuleScale {
    pub(crate) rank: u64,
    /// The scale of B A times the rank: alpha as llama.cpp takes it.
    pub(crate) alpha: f64,
}

impl PeftSettings {
    /// Reads the settings of an adapter.
    pub(crate) fn open(path: &Path) -> Result<Self, ConvertError> {
        let file = open_regular_file(path).map_err(ConvertError::read(path))?;
        let mut text = Vec::new();
        file.take(MAX_SETTINGS_BYTES + 1).read_to_end(&mut text).map_err(ConvertError::read(path))?;
        if text.len() as u64 > MAX_SETTINGS_BYTES {
            return Err(ConvertError::damaged(path, format!("it has more than {MAX_SETTINGS_BYTES} bytes")));
        }
        let settings: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|error| ConvertError::damaged(path, format!("it is no JSON object: {error}")))?;
        refuse_settings(&settings).map_err(ConvertError::refused(path))?;
        parse(&settings, path)
    }

    /// The rank and the alpha of each of these modules.
    pub(crate) fn of_each(&self, paths: &[String]) -> Result<Vec<ModuleScale>, AdapterRefusal> {
        let ranks = self.rank_pattern.of_each(paths, self.rank)?;
        let alphas = self.alpha_pattern.of_each(paths, self.alpha)?;
        let scale = |(rank, alpha): (u64, f64)| match self.is_rank_stabilized {
            true => ModuleScale { rank, alpha: alpha * (rank as f64).sqrt() },
            false => ModuleScale { rank, alpha },
        };
        Ok(ranks.into_iter().zip(alphas).map(scale).collect())
    }
}

/// Refuses settings whose effect an adapter in GGUF cannot have, and those that are not known.
fn refuse_settings(settings: &Map<String, Value>) -> Result<(), AdapterRefusal> {
    for (key, value) in settings.iter().filter(|(_, value)| is_set(value)) {
        if let Some((key, reason)) = REFUSED.iter().find(|(refused, _)| refused == key) {
            return Err(AdapterRefusal::Setting { key, reason });
        }
        match (key.as_str(), value) {
            ("peft_type", kind) if kind.as_str().is_none_or(|kind| kind != "LORA") => {
                return Err(AdapterRefusal::Kind(shown(&text_of(kind))));
            }
            ("bias", bias) if bias.as_str() != Some("none") => {
                let reason = "trained biases are no LoRA; train with `bias: none`";
                return Err(AdapterRefusal::Setting { key: "bias", reason });
            }
            ("init_lora_weights", Value::String(name)) if !PLAIN_INITIALIZATIONS.contains(&name.as_str()) => {
                let reason = "this initialization may change the model's weights, and the adapter fits the changed ones; \
                              save it with `path_initial_model_for_weight_conversion`, or train with another one";
                return Err(AdapterRefusal::Setting { key: "init_lora_weights", reason });
            }
            (key, _) if READ.contains(&key) || IRRELEVANT.contains(&key) => {}
            (key, _) => return Err(AdapterRefusal::UnknownSetting(shown(key))),
        }
    }
    match settings.get("peft_type") {
        Some(_) => Ok(()),
        None => Err(AdapterRefusal::Kind("unknown".to_owned())),
    }
}

/// Whether a setting is anything but off.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => true,
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn parse(settings: &Map<String, Value>, path: &Path) -> Result<PeftSettings, ConvertError> {
    let damaged = |key: &str, what: &str| ConvertError::damaged(path, format!("`{key}` is {what}"));
    let rank_of = |key: &str, value: &Value| {
        value.as_u64().filter(|rank| *rank > 0).ok_or_else(|| damaged(key, "no number of at least 1"))
    };
    let alpha_of = |key: &str, value: &Value| value.as_f64().ok_or_else(|| damaged(key, "no number"));
    let get = |key: &str| settings.get(key).ok_or_else(|| damaged(key, "missing"));
    let entries = |key: &str| match settings.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(entries)) => Ok(entries.iter().collect::<Vec<_>>()),
        Some(_) => Err(damaged(key, "no object")),
    };
    let ranks = entries("rank_pattern")?.into_iter();
    let ranks = ranks.map(|(pattern, rank)| Ok((pattern.clone(), rank_of("rank_pattern", rank)?)));
    let alphas = entries("alpha_pattern")?.into_iter();
    let alphas = alphas.map(|(pattern, alpha)| Ok((pattern.clone(), alpha_of("alpha_pattern", alpha)?)));
    let refused = ConvertError::refused(path);
    Ok(PeftSettings {
        rank: rank_of("r", get("r")?)?,
        alpha: alpha_of("lora_alpha", get("lora_alpha")?)?,
        rank_pattern: ModulePatterns::new("rank_pattern", ranks.collect::<Result<_, ConvertError>>()?)
            .map_err(&refused)?,
        alpha_pattern: ModulePatterns::new("alpha_pattern", alphas.collect::<Result<_, ConvertError>>()?)
            .map_err(&refused)?,
        is_rank_stabilized: match settings.get("use_rslora") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(is_on)) => *is_on,
            Some(_) => return Err(damaged("use_rslora", "neither true nor false")),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn open(settings: &Value) -> Result<PeftSettings, ConvertError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter_config.json");
        fs::write(&path, settings.to_string()).unwrap();
        PeftSettings::open(&path)
    }

    fn with(key: &str, value: &Value) -> Value {
        let mut settings = json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none"});
        settings[key] = value.clone();
        settings
    }

    fn refusal(key: &str, value: &Value) -> AdapterRefusal {
        match open(&with(key, value)).unwrap_err() {
            ConvertError::Refused { refusal, .. } => refusal,
            other => panic!("{key} {value}: {other}"),
        }
    }

    #[test]
    fn the_scale_of_a_module_is_that_of_peft() {
        let paths = ["model.layers.0.self_attn.q_proj".to_owned(), "model.layers.0.mlp.up_proj".to_owned()];
        let scales = |settings: &Value| open(settings).unwrap().of_each(&paths).unwrap();
        let plain = ModuleScale { rank: 8, alpha: 16.0 };
        assert_eq!(scales(&with("use_rslora", &json!(false))), [plain; 2]);
        let mut settings = with("alpha_pattern", &json!({"q_proj": 4.5}));
        settings["rank_pattern"] = json!({"up_proj": 16});
        assert_eq!(scales(&settings), [ModuleScale { rank: 8, alpha: 4.5 }, ModuleScale { rank: 16, alpha: 16.0 }]);
        settings["use_rslora"] = json!(true);
        let alphas: Vec<f64> = scales(&settings).iter().map(|scale| scale.alpha).collect();
        assert_eq!(alphas, [4.5 * 8f64.sqrt(), 16.0 * 4.0]);
    }

    #[test]
    fn what_concerns_training_alone_does_not_matter() {
        for key in IRRELEVANT {
            for value in [json!(null), json!(true), json!("x"), json!(0.1), json!({"x": 1})] {
                assert_eq!(open(&with(key, &value)).unwrap(), open(&with("r", &json!(8))).unwrap(), "{key} {value}");
            }
        }
        for value in [json!(true), json!(false), json!(null), json!("gaussian"), json!("eva"), json!("orthogonal")] {
            open(&with("init_lora_weights", &value)).unwrap();
        }
    }

    #[test]
    fn what_is_more_than_a_lora_is_refused_by_its_key_and_off_is_not() {
        for (key, _) in REFUSED {
            for value in [json!(true), json!(["lm_head"]), json!({"a": [1]}), json!(1)] {
                let refusal = refusal(key, &value);
                assert!(matches!(refusal, AdapterRefusal::Setting { key: named, .. } if named == key), "{refusal}");
            }
            for value in [json!(null), json!(false), json!([]), json!({})] {
                open(&with(key, &value)).unwrap();
            }
        }
        for value in ["all", "lora_only"] {
            assert!(matches!(refusal("bias", &json!(value)), AdapterRefusal::Setting { key: "bias", .. }));
        }
        for value in ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "mica"] {
            let refusal = refusal("init_lora_weights", &json!(value));
            assert!(matches!(refusal, AdapterRefusal::Setting { key: "init_lora_weights", .. }), "{refusal}");
        }
    }

    #[test]
    fn another_kind_of_adapter_and_unknown_settings_are_refused() {
        assert_eq!(refusal("peft_type", &json!("IA3")), AdapterRefusal::Kind("IA3".to_owned()));
        assert_eq!(refusal("peft_type", &json!(7)), AdapterRefusal::Kind("7".to_owned()));
        assert_eq!(
            refusal("use_novel_scale", &json!(true)),
            AdapterRefusal::UnknownSetting("use_novel_scale".to_owned())
        );
        open(&with("use_novel_scale", &json!(false))).unwrap();
        let no_kind = open(&json!({"r": 8, "lora_alpha": 16})).unwrap_err();
        assert!(no_kind.to_string().contains("of type `unknown`"), "{no_kind}");
    }

    #[test]
    fn values_of_another_type_are_refused_by_their_key() {
        let wrong = [
            ("r", json!(0)),
            ("r", json!("8")),
            ("r", json!(1.5)),
            ("lora_alpha", json!("16")),
            ("lora_alpha", json!(null)),
            ("rank_pattern", json!([1])),
            ("rank_pattern", json!({"q_proj": 0})),
            ("alpha_pattern", json!({"q_proj": "x"})),
            ("use_rslora", json!("yes")),
        ];
        for (key, value) in wrong {
            let error = open(&with(key, &value)).unwrap_err();
            assert!(matches!(error, ConvertError::Damaged { .. }) && error.to_string().contains(key), "{error}");
        }
        let missing = open(&json!({"peft_type": "LORA", "lora_alpha": 16})).unwrap_err();
        assert!(missing.to_string().contains("`r` is missing"), "{missing}");
    }

    #[test]
    fn a_file_that_is_no_object_or_too_large_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter_config.json");
        for text in ["", "[]", "{", "7", &format!("{{\"x\": \"{}\"}}", "a".repeat(1 << 20))] {
            fs::write(&path, text).unwrap();
            assert!(matches!(PeftSettings::open(&path), Err(ConvertError::Damaged { .. })));
        }
        assert!(matches!(PeftSettings::open(&dir.path().join("x")), Err(ConvertError::Read { .. })));
    }
}
