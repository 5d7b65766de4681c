//! What is refused, and with which words.

use std::fs;

use artel_gguf::MetadataValue;
use artel_peft::{AdapterRefusal, ConvertError, WEIGHTS_FILE};
use safetensors::Dtype;
use serde_json::json;

use crate::fixtures::{HeaderModel, TestAdapter, TestTensor, Workplace, refusal_of, tensor_name};

const Q: &str = "model.layers.0.self_attn.q_proj";

fn work() -> (Workplace, TestAdapter) {
    let work = Workplace::new(HeaderModel::new("llama"));
    let adapter = TestAdapter::of(&work.model.modules());
    (work, adapter)
}

/// The refusal of an adapter with another tensor.
fn with_tensor(name: &str, tensor: TestTensor) -> AdapterRefusal {
    let (work, mut adapter) = work();
    adapter.tensors.insert(name.to_owned(), tensor);
    work.refusal(&adapter)
}

#[test]
fn another_architecture_is_refused_with_those_that_are_converted() {
    let work = Workplace::new(HeaderModel::new("mamba"));
    let refusal = work.refusal(&TestAdapter::of(&HeaderModel::new("llama").modules()));
    assert_eq!(refusal, AdapterRefusal::Architecture("mamba".to_owned()));
    assert!(refusal.to_string().contains("llama, qwen2, qwen3, gemma2, gemma3 and phi3"));
}

#[test]
fn settings_that_gguf_cannot_have_are_refused() {
    let (work, mut adapter) = work();
    for (key, value) in [
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("bias", json!("lora_only")),
        ("lora_bias", json!(true)),
        ("trainable_token_indices", json!([1])),
        ("layer_replication", json!([[0, 1]])),
        ("target_parameters", json!(["x"])),
        ("alora_invocation_tokens", json!([1])),
        ("use_qalora", json!(true)),
        ("init_lora_weights", json!("pissa")),
    ] {
        let plain = adapter.settings.clone();
        adapter.settings[key] = value;
        assert!(
            matches!(work.refusal(&adapter), AdapterRefusal::Setting { key: refused, .. } if refused == key),
            "{key}"
        );
        adapter.settings = plain;
    }
    adapter.settings["peft_type"] = json!("LOHA");
    assert_eq!(work.refusal(&adapter), AdapterRefusal::Kind("LOHA".to_owned()));
}

#[test]
fn pickled_weights_are_refused_with_what_to_do() {
    let (work, adapter) = work();
    adapter.write(&work.path("peft"));
    fs::rename(work.path("peft").join(WEIGHTS_FILE), work.path("peft/adapter_model.bin")).unwrap();
    let convert = || artel_peft::peft_to_gguf(&work.path("peft"), &work.path("model.gguf"), &work.path("adapter.gguf"));
    assert_eq!(refusal_of(convert().unwrap_err()), AdapterRefusal::Pickled);
    fs::remove_file(work.path("peft/adapter_model.bin")).unwrap();
    assert!(matches!(convert(), Err(ConvertError::Read { path, .. }) if path.ends_with(WEIGHTS_FILE)));
}

#[test]
fn embeddings_heads_and_whole_tensors_are_refused() {
    for name in ["model.embed_tokens.lora_embedding_A", "model.embed_tokens.weight", "model.embed_tokens.lora_A.weight"]
    {
        let refusal = with_tensor(&format!("base_model.model.{name}"), TestTensor::f32(2, 20, 1));
        assert!(matches!(refusal, AdapterRefusal::Embedding(_)), "{refusal}");
    }
    let whole = ["norm.weight", "layers.0.self_attn.q_proj.lora_magnitude_vector", "layers.0.self_attn.q_proj.bias"];
    for name in whole.map(|name| format!("base_model.model.model.{name}")).into_iter().chain([
        "base_model.model.lm_head.weight".to_owned(),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight".to_owned(),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias".to_owned(),
    ]) {
        assert!(matches!(with_tensor(&name, TestTensor::f32(2, 8, 1)), AdapterRefusal::WholeTensor(_)), "{name}");
    }
    let shared = Workplace::new(HeaderModel { has_head: false, ..HeaderModel::new("llama") });
    let refusal = shared.refusal(&TestAdapter::of(&HeaderModel::new("llama").modules()));
    assert_eq!(refusal, AdapterRefusal::SharedHead("lm_head".to_owned()));
}

#[test]
fn modules_that_the_architecture_or_the_model_lacks_are_refused() {
    let unknown = [
        "base_model.model.model.vision.layers.0.q_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
    ];
    for name in unknown {
        let refusal = with_tensor(name, TestTensor::f32(2, 8, 1));
        assert!(matches!(refusal, AdapterRefusal::Module { architecture: "llama", .. }), "{refusal}");
        assert!(refusal.to_string().contains("q_proj, k_proj, v_proj"), "{refusal}");
    }
    let (work, mut adapter) = work();
    adapter.set("model.layers.2.mlp.up_proj", 2, 8, 12, 1);
    let (module, weight) = ("model.layers.2.mlp.up_proj".to_owned(), "blk.2.ffn_up.weight".to_owned());
    assert_eq!(work.refusal(&adapter), AdapterRefusal::NotInModel { module, weight });
}

#[test]
fn names_are_repeated_escaped_and_in_part() {
    let refusal = with_tensor(&format!("\u{1b}[31m{}", "x".repeat(500)), TestTensor::f32(2, 8, 1)).to_string();
    assert!(refusal.len() < 400 && refusal.contains("\\u{1b}[31mxxx") && refusal.contains('…'), "{refusal}");
}

#[test]
fn matrices_that_fit_neither_each_other_nor_the_model_are_refused() {
    for (side, rows, columns) in [("A", 2, 9), ("A", 3, 8), ("B", 15, 2), ("B", 16, 3), ("A", 8, 2), ("B", 2, 16)] {
        let refusal = with_tensor(&tensor_name(Q, side), TestTensor::f32(rows, columns, 1));
        let AdapterRefusal::Shape { module, weight, .. } = &refusal else { panic!("{refusal}") };
        assert_eq!((module.as_str(), *weight), (Q, [16, 8]));
        assert!(refusal.to_string().contains("the model's weight is 16 x 8"), "{refusal}");
    }
    let flat = TestTensor { shape: vec![16], ..TestTensor::f32(2, 8, 1) };
    assert!(matches!(with_tensor(&tensor_name(Q, "A"), flat), AdapterRefusal::WholeTensor(_)));
    let (work, mut adapter) = work();
    adapter.tensors.insert(tensor_name(Q, "A"), TestTensor::f32(0, 8, 1));
    adapter.tensors.insert(tensor_name(Q, "B"), TestTensor::f32(16, 0, 1));
    assert!(matches!(work.refusal(&adapter), AdapterRefusal::Shape { a: [0, 8], .. }));
}

#[test]
fn a_rank_above_the_limit_or_other_than_that_of_the_settings_is_refused() {
    let (work, mut adapter) = work();
    adapter.set(Q, 3, 8, 16, 1);
    assert_eq!(work.refusal(&adapter), AdapterRefusal::Rank { module: Q.to_owned(), found: 3, stated: 2 });
    adapter.set(Q, 4097, 8, 16, 1);
    assert!(matches!(work.refusal(&adapter), AdapterRefusal::TooLarge { rank: 4097, max_rank: 4096, .. }));
}

#[test]
fn a_missing_matrix_is_named() {
    for side in ["A", "B"] {
        let (work, mut adapter) = work();
        adapter.tensors.remove(&tensor_name(Q, side));
        assert_eq!(work.refusal(&adapter), AdapterRefusal::Unpaired { module: Q.to_owned(), missing: side });
    }
    let (work, mut adapter) = work();
    adapter.tensors.clear();
    assert_eq!(work.refusal(&adapter), AdapterRefusal::Empty);
}

#[test]
fn a_module_that_is_adapted_twice_is_refused() {
    let work = Workplace::new(HeaderModel { has_head: false, ..HeaderModel::new("gemma3") });
    let mut adapter = TestAdapter::of(&work.model.modules());
    adapter.set("model.language_model.layers.0.self_attn.q_proj", 2, 8, 16, 1);
    assert_eq!(work.refusal(&adapter), AdapterRefusal::Twice(Q.to_owned()));
}

#[test]
fn numbers_that_are_no_floats_or_not_finite_are_refused() {
    let eight = TestTensor { dtype: Dtype::F64, shape: vec![2, 8], data: vec![0; 128] };
    let refusal = with_tensor(&tensor_name(Q, "A"), eight);
    assert!(matches!(&refusal, AdapterRefusal::NumberType { number_type, .. } if number_type == "F64"), "{refusal}");
    for number in [f32::NAN, f32::INFINITY] {
        for (side, rows, columns) in [("A", 2, 8), ("B", 16, 2)] {
            let mut tensor = TestTensor::f32(rows, columns, 1);
            tensor.data[..4].copy_from_slice(&number.to_le_bytes());
            assert_eq!(with_tensor(&tensor_name(Q, side), tensor), AdapterRefusal::NotFinite(tensor_name(Q, side)));
        }
    }
    let (work, mut adapter) = work();
    adapter.settings["alpha_pattern"] = json!({"q_proj": 1e30});
    let name = tensor_name(Q, "B");
    adapter.tensors.get_mut(&name).unwrap().data[..4].copy_from_slice(&1e30f32.to_le_bytes());
    assert_eq!(work.refusal(&adapter), AdapterRefusal::NotFinite(name), "too large when the scale is multiplied in");
}

#[test]
fn a_scale_of_zero_is_refused_because_llama_cpp_takes_it_for_one() {
    for alpha in [json!(0), json!(0.0), json!(1e-60), json!(1e300)] {
        let (work, mut adapter) = work();
        adapter.settings["lora_alpha"] = alpha.clone();
        assert!(matches!(work.refusal(&adapter), AdapterRefusal::Scale(_)), "{alpha}");
    }
}

#[test]
fn rows_that_are_no_whole_heads_and_numbers_of_heads_that_are_none_are_refused() {
    let with = |metadata: &[(&str, MetadataValue)]| {
        let metadata = metadata.iter().map(|(key, value)| (format!("llama.attention.{key}"), value.clone())).collect();
        let work = Workplace::new(HeaderModel { metadata, ..HeaderModel::new("llama") });
        work.refusal(&TestAdapter::of(&work.model.modules()))
    };
    let heads = with(&[("head_count", MetadataValue::U32(3))]);
    assert_eq!(heads, AdapterRefusal::Heads { module: Q.to_owned(), rows: 16, heads: 3 });
    let missing = AdapterRefusal::HeadCount("llama.attention.head_count".to_owned());
    assert_eq!(with(&[]), missing);
    for value in
        [MetadataValue::U32(0), MetadataValue::U32(u32::MAX), MetadataValue::I32(-4), MetadataValue::U32s(vec![])]
    {
        assert_eq!(with(&[("head_count", value)]), missing);
    }
}

#[test]
fn patterns_that_cannot_be_read_are_refused() {
    for key in ["rank_pattern", "alpha_pattern"] {
        let (work, mut adapter) = work();
        adapter.settings[key] = json!({"(?<!x)q_proj": 2});
        assert!(matches!(work.refusal(&adapter), AdapterRefusal::Pattern { key: named, .. } if named == key));
    }
}
