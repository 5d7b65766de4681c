//! What a model's file states of its sampling.
//!
//! Source: llama.cpp's converter writes `general.sampling.*` from the `generation_config.json` of the hub; where a file has none
//! of these, a `generation_config.json` beside it is read in their place.

use std::io::Read;
use std::path::Path;

use artel_model::open_regular_file;
use artel_model::sampling::{SamplingOptions, XtcParams};
use serde_json::{Map, Value};

use crate::header::GgufHeader;

/// The file beside a model; the hub has it beside the weights.
const CONFIG_FILE: &str = "generation_config.json";
/// The largest one that is read; those of the hub have some hundred bytes.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;

/// What the file at `path`, whose header this is, states of its sampling. What is beyond the limits of a role is left out.
pub fn stated_sampling(path: &Path, header: &GgufHeader) -> SamplingOptions {
    let of_file = from_metadata(header);
    let beside = || path.parent().and_then(|dir| read_config(&dir.join(CONFIG_FILE)));
    if of_file.is_empty() { beside().map(|config| from_config(&config)).unwrap_or_default() } else { of_file }
}

fn from_metadata(header: &GgufHeader) -> SamplingOptions {
    let text = |key: &str| header.metadata.get(&format!("general.sampling.{key}"));
    let float = |key: &str| text(key).and_then(|text| text.parse::<f32>().ok());
    let whole = |key: &str| text(key).and_then(|text| text.parse::<u32>().ok());
    let xtc = float("xtc_probability").map(|probability| XtcParams {
        probability,
        threshold: float("xtc_threshold").unwrap_or_else(XtcParams::default_threshold),
    });
    within_limits(&[
        SamplingOptions { temperature: float("temp"), ..SamplingOptions::default() },
        SamplingOptions { top_k: whole("top_k"), ..SamplingOptions::default() },
        SamplingOptions { top_p: float("top_p"), ..SamplingOptions::default() },
        SamplingOptions { min_p: float("min_p"), ..SamplingOptions::default() },
        SamplingOptions { xtc, ..SamplingOptions::default() },
        SamplingOptions { penalty_last_n: whole("penalty_last_n"), ..SamplingOptions::default() },
        SamplingOptions { repeat_penalty: float("penalty_repeat"), ..SamplingOptions::default() },
    ])
}

fn from_config(config: &Map<String, Value>) -> SamplingOptions {
    let float = |key: &str| config.get(key).and_then(Value::as_f64).map(|value| value as f32);
    let whole = |key: &str| config.get(key).and_then(Value::as_u64).and_then(|value| u32::try_from(value).ok());
    // Transformers ignores the temperature then.
    let is_greedy = config.get("do_sample") == Some(&Value::Bool(false));
    let temperature = if is_greedy { Some(0.0) } else { float("temperature") };
    within_limits(&[
        SamplingOptions { temperature, ..SamplingOptions::default() },
        SamplingOptions { top_k: whole("top_k"), ..SamplingOptions::default() },
        SamplingOptions { top_p: float("top_p"), ..SamplingOptions::default() },
        SamplingOptions { min_p: float("min_p"), ..SamplingOptions::default() },
        SamplingOptions { typical_p: float("typical_p"), ..SamplingOptions::default() },
        SamplingOptions { repeat_penalty: float("repetition_penalty"), ..SamplingOptions::default() },
    ])
}

/// All of these that are within the limits of their fields.
fn within_limits(stated: &[SamplingOptions]) -> SamplingOptions {
    let valid = stated.iter().filter(|options| options.faults().is_empty());
    valid.fold(SamplingOptions::default(), |all, one| all.or(one))
}

/// The object in a file; none if there is no such file, or it is nothing of the kind.
fn read_config(path: &Path) -> Option<Map<String, Value>> {
    let mut bytes = Vec::new();
    open_regular_file(path).ok()?.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(entries: &[(&str, &str)]) -> GgufHeader {
        let metadata = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        GgufHeader { metadata, ..GgufHeader::default() }
    }

    #[test]
    fn the_metadata_is_read_as_the_converter_writes_it() {
        let header = header(&[
            ("general.sampling.temp", "0.6"),
            ("general.sampling.top_k", "20"),
            ("general.sampling.top_p", "0.95"),
            ("general.sampling.penalty_repeat", "1.05"),
            ("general.sampling.xtc_probability", "0.5"),
            ("general.sampling.min_p", "7"),
            ("general.sampling.mirostat", "2"),
        ]);
        let expected = SamplingOptions {
            temperature: Some(0.6),
            top_k: Some(20),
            top_p: Some(0.95),
            repeat_penalty: Some(1.05),
            xtc: Some(XtcParams { probability: 0.5, threshold: 0.1 }),
            ..SamplingOptions::default()
        };
        assert_eq!(stated_sampling(Path::new("/nowhere/m.gguf"), &header), expected, "min_p of 7 is none");
    }

    #[test]
    fn the_config_of_the_hub_is_read_where_the_file_states_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let stated = |config: &str, entries: &[(&str, &str)]| {
            std::fs::write(dir.path().join(CONFIG_FILE), config).unwrap();
            stated_sampling(&path, &header(entries))
        };
        let qwen = r#"{"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05, "eos_token_id": [1]}"#;
        assert_eq!(stated(qwen, &[]).summary(), "temperature 0.7, top_p 0.8, top_k 20, repeat_penalty 1.05");
        assert_eq!(stated(qwen, &[("general.sampling.temp", "0.6")]).summary(), "temperature 0.6");
        assert_eq!(stated(r#"{"do_sample": false, "temperature": 0.7}"#, &[]).summary(), "temperature 0");
        for nothing in ["", "[]", "{", r#"{"temperature": "hot", "top_p": 17}"#] {
            assert!(stated(nothing, &[]).is_empty(), "{nothing}");
        }
        std::fs::remove_file(dir.path().join(CONFIG_FILE)).unwrap();
        assert!(stated_sampling(&path, &header(&[])).is_empty());
    }
}
