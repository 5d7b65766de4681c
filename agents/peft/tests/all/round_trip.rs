//! What is converted and converted back is what it was.

use std::collections::BTreeMap;
use std::fs;

use artel_gguf::MetadataValue;
use artel_peft::peft_to_gguf;
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::json;

use crate::fixtures::{ARCHITECTURES, HEADS, KEY_HEADS, TestAdapter, TestModel, TestTensor, Workplace, tensor_name};

#[test]
fn the_matrices_of_each_architecture_have_its_names_and_no_other_numbers() {
    for architecture in ARCHITECTURES {
        let work = Workplace::new(TestModel::new(architecture));
        let modules = work.model.modules();
        let adapter = TestAdapter::of(&modules);
        let written = work.to_gguf(&adapter).unwrap();
        assert_eq!((written.architecture.as_str(), written.alpha), (architecture, 4.0));
        assert_eq!((written.layer_count, written.max_rank), (modules.len(), 2));
        let tensors = work.gguf_tensors();
        assert_eq!(tensors.len(), 2 * modules.len());
        for (peft, gguf, inputs, outputs) in &modules {
            let (a, b) = (&tensors[&format!("{gguf}.lora_a")], &tensors[&format!("{gguf}.lora_b")]);
            assert_eq!((&a.0, &b.0), (&vec![*inputs, 2], &vec![2, *outputs]), "{architecture} {gguf}");
            assert_eq!(a.1, adapter.tensors[&tensor_name(peft, "A")].values(), "{architecture} {gguf}");
            let (mut ours, mut theirs) = (b.1.clone(), adapter.tensors[&tensor_name(peft, "B")].values());
            let is_reordered = architecture == "llama" && (gguf.contains("attn_q.") || gguf.contains("attn_k."));
            assert_eq!(ours != theirs, is_reordered, "{architecture} {gguf}");
            ours.sort_by(f32::total_cmp);
            theirs.sort_by(f32::total_cmp);
            assert_eq!(ours, theirs, "the same numbers in another order");
        }
    }
}

#[test]
fn the_rows_of_queries_and_keys_are_ordered_by_their_own_heads() {
    let work = Workplace::new(TestModel::new("llama"));
    let adapter = TestAdapter::of(&work.model.modules());
    work.to_gguf(&adapter).unwrap();
    for (module, weight, heads) in [("q_proj", "attn_q", HEADS), ("k_proj", "attn_k", KEY_HEADS)] {
        let rows = adapter.tensors[&tensor_name(&format!("model.layers.1.self_attn.{module}"), "B")].values();
        let rows: Vec<&[f32]> = rows.chunks(2).collect();
        // Four rows of a head: the halves are interleaved.
        let expected = (0..heads as usize).flat_map(|head| [0, 2, 1, 3].map(|row| rows[head * 4 + row]));
        let found = &work.gguf_tensors()[&format!("blk.1.{weight}.weight.lora_b")].1;
        assert_eq!(*found, expected.collect::<Vec<_>>().concat(), "{module}");
    }
}

#[test]
fn a_model_may_say_its_heads_for_each_layer_or_leave_out_those_of_keys() {
    let counts = |key: &str, value: MetadataValue| (format!("llama.attention.{key}"), value);
    let same = Workplace::new(TestModel::new("llama"));
    let adapter = TestAdapter::of(&same.model.modules());
    same.to_gguf(&adapter).unwrap();
    let each = vec![
        counts("head_count", MetadataValue::U32s(vec![HEADS; 2])),
        counts("head_count_kv", MetadataValue::U32s(vec![KEY_HEADS, 4])),
    ];
    let each = Workplace::new(TestModel { metadata: each, ..TestModel::new("llama") });
    each.to_gguf(&adapter).unwrap();
    let (same, each) = (same.gguf_tensors(), each.gguf_tensors());
    let differing: Vec<&String> = same.keys().filter(|name| same[*name] != each[*name]).collect();
    assert_eq!(differing, ["blk.1.attn_k.weight.lora_b"], "the one layer that has another number");

    let queries_alone = vec![counts("head_count", MetadataValue::U32(2))];
    let queries_alone = Workplace::new(TestModel { metadata: queries_alone, ..TestModel::new("llama") });
    queries_alone.to_gguf(&adapter).unwrap();
    let name = "blk.1.attn_k.weight.lora_b";
    assert_eq!(queries_alone.gguf_tensors()[name], same[name], "two heads of keys, as of queries");
}

#[test]
fn half_precision_becomes_the_same_f32() {
    let work = Workplace::new(TestModel::new("llama"));
    let adapter = TestAdapter::of(&work.model.modules());
    work.to_gguf(&adapter).unwrap();
    let expected = work.gguf_tensors();
    for dtype in [Dtype::F16, Dtype::BF16] {
        let tensors = adapter.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.converted(dtype)));
        work.to_gguf(&TestAdapter { tensors: tensors.collect(), ..adapter.clone() }).unwrap();
        assert_eq!(work.gguf_tensors(), expected, "{dtype:?}");
    }
}

#[test]
fn a_copy_of_the_head_that_peft_saves_is_passed_over() {
    let work = Workplace::new(TestModel::new("qwen3"));
    let mut adapter = TestAdapter::of(&work.model.modules());
    work.to_gguf(&adapter).unwrap();
    let expected = work.gguf_tensors();
    adapter.tensors.insert("base_model.model.lm_head.base_layer.weight".to_owned(), TestTensor::f32(20, 8, 1));
    work.to_gguf(&adapter).unwrap();
    assert_eq!(work.gguf_tensors(), expected);
}

#[test]
fn models_that_read_images_name_their_text_layers_otherwise() {
    let work = Workplace::new(TestModel { has_head: false, ..TestModel::new("gemma3") });
    let adapter = TestAdapter::of(&work.model.modules());
    work.to_gguf(&adapter).unwrap();
    let expected = work.gguf_tensors();
    for prefix in ["model.language_model.layers.", "language_model.model.layers."] {
        let renamed =
            adapter.tensors.iter().map(|(name, tensor)| (name.replace("model.layers.", prefix), tensor.clone()));
        work.to_gguf(&TestAdapter { tensors: renamed.collect(), ..adapter.clone() }).unwrap();
        assert_eq!(work.gguf_tensors(), expected, "{prefix}");
    }
}

#[test]
fn modules_are_named_in_full_where_some_layers_lack_them() {
    let work = Workplace::new(TestModel::new("llama"));
    let modules = work.model.modules();
    let some: Vec<_> = modules
        .into_iter()
        .filter(|(peft, ..)| peft.ends_with("q_proj") || peft == "model.layers.1.mlp.up_proj")
        .collect();
    work.to_gguf(&TestAdapter::of(&some)).unwrap();
    let written = work.to_peft().unwrap();
    assert_eq!(written.target_modules, ["q_proj", "model.layers.1.mlp.up_proj"]);
    assert_eq!((written.rank, written.alpha, written.layer_count), (2, 4.0, 3));
    let settings = TestAdapter::read(&work.path("again")).settings;
    assert_eq!(settings["target_modules"], json!(written.target_modules));
    assert_eq!(
        (&settings["r"], &settings["lora_alpha"], &settings["peft_type"]),
        (&json!(2), &json!(4), &json!("LORA"))
    );
}

#[test]
fn a_file_that_is_there_is_replaced_and_a_directory_is_not() {
    let work = Workplace::new(TestModel::new("llama"));
    let adapter = TestAdapter::of(&work.model.modules());
    fs::write(work.path("adapter.gguf"), "an older one").unwrap();
    work.to_gguf(&adapter).unwrap();
    work.to_peft().unwrap();
    let again = artel_peft::gguf_to_peft(&work.path("adapter.gguf"), &work.path("model.gguf"), &work.path("again"));
    assert!(again.unwrap_err().to_string().contains("exists already"));
    let names = fs::read_dir(work.dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|name| name.starts_with('.')).collect();
    assert_eq!(left, [""; 0]);
    let nowhere = peft_to_gguf(&work.path("peft"), &work.path("model.gguf"), &work.path("no/where.gguf"));
    assert!(nowhere.unwrap_err().to_string().contains("no/where.gguf: cannot be written"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn to_gguf_and_back_is_the_identity(
        architecture in prop::sample::select(ARCHITECTURES.to_vec()),
        ranks in prop::collection::vec(prop_oneof![3 => Just(0u64), 1 => 1..5u64], 15),
        alpha in prop_oneof![1..64i32, -8..-1i32].prop_map(|eighths| f64::from(eighths) / 8.0),
        seed in 0..1000u64,
    ) {
        let work = Workplace::new(TestModel::new(architecture));
        let modules = work.model.modules();
        // A rank of zero leaves a module out; one module is there in any case.
        let adapted: Vec<_> = modules.iter().zip(&ranks).filter(|(_, rank)| **rank > 0).collect();
        let mut adapter = TestAdapter::of(&modules[..1]);
        let mut rank_pattern = BTreeMap::new();
        for (at, ((path, _, inputs, outputs), rank)) in adapted.iter().enumerate() {
            adapter.set(path, **rank, *inputs, *outputs, seed + at as u64);
            rank_pattern.insert(path.clone(), **rank);
        }
        adapter.settings["rank_pattern"] = json!(rank_pattern);
        adapter.settings["lora_alpha"] = json!(alpha);
        work.to_gguf(&adapter).unwrap();
        let written = work.to_peft().unwrap();
        prop_assert_eq!(written.alpha, alpha);
        let again = TestAdapter::read(&work.path("again"));
        prop_assert_eq!(&again.tensors, &adapter.tensors);
        // The settings give each module the rank it has: they are refused otherwise.
        let first = fs::read(work.path("adapter.gguf")).unwrap();
        work.to_gguf(&again).unwrap();
        prop_assert_eq!(fs::read(work.path("adapter.gguf")).unwrap(), first);
    }
}
