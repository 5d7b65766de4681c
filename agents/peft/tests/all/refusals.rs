//! What is refused, and with which words.

use std::fs;

use artel_gguf::{MetadataValue, TensorLayout};
use artel_peft::{ConvertError, Refusal, WEIGHTS_FILE};
use safetensors::Dtype;
use serde_json::json;

use crate::fixtures::{
    F16_TYPE, F32_TYPE, TestAdapter, TestModel, TestTensor, Workplace, f32_bytes, numbers, refusal_of, tensor_name,
    write_gguf,
};

const Q: &str = "model.layers.0.self_attn.q_proj";

fn work() -> (Workplace, TestAdapter) {
    let work = Workplace::new(TestModel::new("llama"));
    let adapter = TestAdapter::of(&work.model.modules());
    (work, adapter)
}

/// The refusal of an adapter with another tensor.
fn with_tensor(name: &str, tensor: TestTensor) -> Refusal {
    let (work, mut adapter) = work();
    adapter.tensors.insert(name.to_owned(), tensor);
    work.refusal(&adapter)
}

#[test]
fn another_architecture_is_refused_with_those_that_are_converted() {
    let work = Workplace::new(TestModel::new("mamba"));
    let refusal = work.refusal(&TestAdapter::of(&TestModel::new("llama").modules()));
    assert_eq!(refusal, Refusal::Architecture("mamba".to_owned()));
    assert!(refusal.to_string().contains("llama, qwen2, qwen3, gemma2, gemma3 and phi3"));
    write_gguf(&work.path("adapter.gguf"), &gguf_metadata("mamba", "lora", 1.0), &[]);
    assert_eq!(refusal_of(work.to_peft().unwrap_err()), refusal);
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
        assert!(matches!(work.refusal(&adapter), Refusal::Setting { key: refused, .. } if refused == key), "{key}");
        adapter.settings = plain;
    }
    adapter.settings["peft_type"] = json!("LOHA");
    assert_eq!(work.refusal(&adapter), Refusal::Kind("LOHA".to_owned()));
}

#[test]
fn pickled_weights_are_refused_with_what_to_do() {
    let (work, adapter) = work();
    adapter.write(&work.path("peft"));
    fs::rename(work.path("peft").join(WEIGHTS_FILE), work.path("peft/adapter_model.bin")).unwrap();
    let convert = || artel_peft::peft_to_gguf(&work.path("peft"), &work.path("model.gguf"), &work.path("adapter.gguf"));
    assert_eq!(refusal_of(convert().unwrap_err()), Refusal::Pickled);
    fs::remove_file(work.path("peft/adapter_model.bin")).unwrap();
    assert!(matches!(convert(), Err(ConvertError::Read { path, .. }) if path.ends_with(WEIGHTS_FILE)));
}

#[test]
fn embeddings_heads_and_whole_tensors_are_refused() {
    for name in ["model.embed_tokens.lora_embedding_A", "model.embed_tokens.weight", "model.embed_tokens.lora_A.weight"]
    {
        let refusal = with_tensor(&format!("base_model.model.{name}"), TestTensor::f32(2, 20, 1));
        assert!(matches!(refusal, Refusal::Embedding(_)), "{refusal}");
    }
    let whole = ["norm.weight", "layers.0.self_attn.q_proj.lora_magnitude_vector", "layers.0.self_attn.q_proj.bias"];
    for name in whole.map(|name| format!("base_model.model.model.{name}")).into_iter().chain([
        "base_model.model.lm_head.weight".to_owned(),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight".to_owned(),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias".to_owned(),
    ]) {
        assert!(matches!(with_tensor(&name, TestTensor::f32(2, 8, 1)), Refusal::WholeTensor(_)), "{name}");
    }
    let shared = Workplace::new(TestModel { has_head: false, ..TestModel::new("llama") });
    let refusal = shared.refusal(&TestAdapter::of(&TestModel::new("llama").modules()));
    assert_eq!(refusal, Refusal::SharedHead("lm_head".to_owned()));
}

#[test]
fn modules_that_the_architecture_or_the_model_lacks_are_refused() {
    let unknown = [
        "base_model.model.model.vision.layers.0.q_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
    ];
    for name in unknown {
        let refusal = with_tensor(name, TestTensor::f32(2, 8, 1));
        assert!(matches!(refusal, Refusal::Module { architecture: "llama", .. }), "{refusal}");
        assert!(refusal.to_string().contains("q_proj, k_proj, v_proj"), "{refusal}");
    }
    let (work, mut adapter) = work();
    adapter.set("model.layers.2.mlp.up_proj", 2, 8, 12, 1);
    let (module, weight) = ("model.layers.2.mlp.up_proj".to_owned(), "blk.2.ffn_up.weight".to_owned());
    assert_eq!(work.refusal(&adapter), Refusal::NotInModel { module, weight });
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
        let Refusal::Shape { module, weight, .. } = &refusal else { panic!("{refusal}") };
        assert_eq!((module.as_str(), *weight), (Q, [16, 8]));
        assert!(refusal.to_string().contains("the model's weight is 16 x 8"), "{refusal}");
    }
    let flat = TestTensor { shape: vec![16], ..TestTensor::f32(2, 8, 1) };
    assert!(matches!(with_tensor(&tensor_name(Q, "A"), flat), Refusal::WholeTensor(_)));
    let (work, mut adapter) = work();
    adapter.tensors.insert(tensor_name(Q, "A"), TestTensor::f32(0, 8, 1));
    adapter.tensors.insert(tensor_name(Q, "B"), TestTensor::f32(16, 0, 1));
    assert!(matches!(work.refusal(&adapter), Refusal::Shape { a: [0, 8], .. }));
}

#[test]
fn a_rank_above_the_limit_or_other_than_that_of_the_settings_is_refused() {
    let (work, mut adapter) = work();
    adapter.set(Q, 3, 8, 16, 1);
    assert_eq!(work.refusal(&adapter), Refusal::Rank { module: Q.to_owned(), found: 3, stated: 2 });
    adapter.set(Q, 4097, 8, 16, 1);
    assert!(matches!(work.refusal(&adapter), Refusal::TooLarge { rank: 4097, max_rank: 4096, .. }));
}

#[test]
fn a_missing_matrix_is_named() {
    for side in ["A", "B"] {
        let (work, mut adapter) = work();
        adapter.tensors.remove(&tensor_name(Q, side));
        assert_eq!(work.refusal(&adapter), Refusal::Unpaired { module: Q.to_owned(), missing: side });
    }
    let (work, mut adapter) = work();
    adapter.tensors.clear();
    assert_eq!(work.refusal(&adapter), Refusal::Empty);
}

#[test]
fn a_module_that_is_adapted_twice_is_refused() {
    let work = Workplace::new(TestModel { has_head: false, ..TestModel::new("gemma3") });
    let mut adapter = TestAdapter::of(&work.model.modules());
    adapter.set("model.language_model.layers.0.self_attn.q_proj", 2, 8, 16, 1);
    assert_eq!(work.refusal(&adapter), Refusal::Twice(Q.to_owned()));
}

#[test]
fn numbers_that_are_no_floats_or_not_finite_are_refused() {
    let eight = TestTensor { dtype: Dtype::F64, shape: vec![2, 8], data: vec![0; 128] };
    let refusal = with_tensor(&tensor_name(Q, "A"), eight);
    assert!(matches!(&refusal, Refusal::NumberType { number_type, .. } if number_type == "F64"), "{refusal}");
    for number in [f32::NAN, f32::INFINITY] {
        for (side, rows, columns) in [("A", 2, 8), ("B", 16, 2)] {
            let mut tensor = TestTensor::f32(rows, columns, 1);
            tensor.data[..4].copy_from_slice(&number.to_le_bytes());
            assert_eq!(with_tensor(&tensor_name(Q, side), tensor), Refusal::NotFinite(tensor_name(Q, side)));
        }
    }
    let (work, mut adapter) = work();
    adapter.settings["alpha_pattern"] = json!({"q_proj": 1e30});
    let name = tensor_name(Q, "B");
    adapter.tensors.get_mut(&name).unwrap().data[..4].copy_from_slice(&1e30f32.to_le_bytes());
    assert_eq!(work.refusal(&adapter), Refusal::NotFinite(name), "too large when the scale is multiplied in");
}

#[test]
fn a_scale_of_zero_is_refused_because_llama_cpp_takes_it_for_one() {
    for alpha in [json!(0), json!(0.0), json!(1e-60), json!(1e300)] {
        let (work, mut adapter) = work();
        adapter.settings["lora_alpha"] = alpha.clone();
        assert!(matches!(work.refusal(&adapter), Refusal::Scale(_)), "{alpha}");
    }
}

#[test]
fn rows_that_are_no_whole_heads_and_numbers_of_heads_that_are_none_are_refused() {
    let with = |metadata: &[(&str, MetadataValue)]| {
        let metadata = metadata.iter().map(|(key, value)| (format!("llama.attention.{key}"), value.clone())).collect();
        let work = Workplace::new(TestModel { metadata, ..TestModel::new("llama") });
        work.refusal(&TestAdapter::of(&work.model.modules()))
    };
    let heads = with(&[("head_count", MetadataValue::U32(3))]);
    assert_eq!(heads, Refusal::Heads { module: Q.to_owned(), rows: 16, heads: 3 });
    let missing = Refusal::HeadCount("llama.attention.head_count".to_owned());
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
        assert!(matches!(work.refusal(&adapter), Refusal::Pattern { key: named, .. } if named == key));
    }
}

fn gguf_metadata(architecture: &str, kind: &str, alpha: f32) -> Vec<(&'static str, MetadataValue)> {
    vec![
        ("general.architecture", MetadataValue::Text(architecture.to_owned())),
        ("general.type", MetadataValue::Text("adapter".to_owned())),
        ("adapter.type", MetadataValue::Text(kind.to_owned())),
        ("adapter.lora.alpha", MetadataValue::F32(alpha)),
    ]
}

fn gguf_tensor(name: &str, columns: u64, rows: u64, ggml_type: u32) -> (TensorLayout, Vec<u8>) {
    let layout = TensorLayout { name: name.to_owned(), dimensions: vec![columns, rows], ggml_type };
    let bytes = layout.data_bytes() as usize;
    (layout, vec![0; bytes])
}

#[test]
fn an_adapter_in_gguf_that_peft_cannot_have_is_refused() {
    let (work, _) = work();
    let (a, b) = ("blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b");
    let pair = [gguf_tensor(a, 8, 2, F32_TYPE), gguf_tensor(b, 2, 16, F16_TYPE)];
    let plain = gguf_metadata("llama", "lora", 1.0);
    let refusal = |metadata: &[(&str, MetadataValue)], tensors: &[(TensorLayout, Vec<u8>)]| {
        write_gguf(&work.path("adapter.gguf"), metadata, tensors);
        let error = work.to_peft().unwrap_err();
        assert!(!work.path("again").exists());
        refusal_of(error)
    };
    write_gguf(&work.path("adapter.gguf"), &plain, &pair);
    work.to_peft().unwrap();
    assert_eq!(refusal(&gguf_metadata("llama", "control", 1.0), &pair), Refusal::Kind("control".to_owned()));
    for alpha in [f32::NAN, f32::INFINITY] {
        assert!(matches!(refusal(&gguf_metadata("llama", "lora", alpha), &pair), Refusal::Scale(_)));
    }
    let activated = [&plain[..], &[("adapter.alora.invocation_tokens", MetadataValue::U32s(vec![7]))]].concat();
    assert_eq!(refusal(&activated, &pair), Refusal::Activated);
    assert_eq!(refusal(&plain, &[]), Refusal::Empty);
    assert!(matches!(refusal(&plain, &pair[..1]), Refusal::Unpaired { missing: "B", .. }));
    let twice = [&pair[..], &pair[..1]].concat();
    assert!(matches!(refusal(&plain, &twice), Refusal::Twice(_)));
    let also = |name: &str, kind: u32| refusal(&plain, &[&pair[..], &[gguf_tensor(name, 32, 2, kind)]].concat());
    assert!(matches!(also("token_embd.weight.lora_a", F32_TYPE), Refusal::Embedding(_)));
    assert!(matches!(also("blk.0.attn_norm.weight", F32_TYPE), Refusal::WholeTensor(_)));
    assert!(matches!(also("blk.0.ffn_up_exps.weight.lora_a", F32_TYPE), Refusal::Module { .. }));
    let quantized = also("blk.0.attn_k.weight.lora_a", 8);
    assert!(quantized.to_string().contains("numbers of type 8 of ggml"), "{quantized}");
    let mut infinite = pair.clone();
    infinite[0].1 = f32_bytes(&[f32::INFINITY; 16]);
    assert!(matches!(refusal(&plain, &infinite), Refusal::NotFinite(name) if name == a));

    write_gguf(&work.path("adapter.gguf"), &gguf_metadata("qwen2", "lora", 1.0), &pair);
    let error = work.to_peft().unwrap_err();
    assert!(
        matches!(error, ConvertError::Gguf(_)) && error.to_string().contains("this adapter is for `qwen2`"),
        "{error}"
    );
}

#[test]
fn a_rank_of_one_is_read_as_ggml_writes_it() {
    let (work, _) = work();
    let mut a = gguf_tensor("blk.0.attn_q.weight.lora_a", 8, 1, F32_TYPE);
    (a.0.dimensions, a.1) = (vec![8], f32_bytes(&numbers(1, 8)));
    let b = gguf_tensor("blk.0.attn_q.weight.lora_b", 1, 16, F32_TYPE);
    write_gguf(&work.path("adapter.gguf"), &gguf_metadata("llama", "lora", 1.0), &[a, b]);
    assert_eq!(work.to_peft().unwrap().rank, 1);
    let again = TestAdapter::read(&work.path("again"));
    assert_eq!(again.tensors[&tensor_name(Q, "A")].shape, [1, 8]);
}
