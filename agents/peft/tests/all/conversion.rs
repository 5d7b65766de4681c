//! What is converted has the numbers that it had, under other names.

use std::collections::BTreeMap;
use std::fs;

use artel_gguf::MetadataValue;
use artel_peft::{AdapterRefusal, peft_to_gguf};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::json;

use crate::fixtures::{
    ARCHITECTURES, HEAD_ROWS, HEADS, HeaderModel, KEY_HEADS, TestAdapter, TestTensor, Workplace, refusal_of,
    tensor_name,
};

#[test]
fn the_matrices_of_each_architecture_have_its_names_and_no_other_numbers() {
    for architecture in ARCHITECTURES {
        let work = Workplace::new(HeaderModel::new(architecture));
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
    let work = Workplace::new(HeaderModel::new("llama"));
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
    let same = Workplace::new(HeaderModel::new("llama"));
    let adapter = TestAdapter::of(&same.model.modules());
    same.to_gguf(&adapter).unwrap();
    let each = vec![
        counts("head_count", MetadataValue::U32s(vec![HEADS; 2])),
        counts("head_count_kv", MetadataValue::U32s(vec![KEY_HEADS, 4])),
    ];
    let each = Workplace::new(HeaderModel { metadata: each, ..HeaderModel::new("llama") });
    each.to_gguf(&adapter).unwrap();
    let (same, each) = (same.gguf_tensors(), each.gguf_tensors());
    let differing: Vec<&String> = same.keys().filter(|name| same[*name] != each[*name]).collect();
    assert_eq!(differing, ["blk.1.attn_k.weight.lora_b"], "the one layer that has another number");

    let queries_alone = vec![counts("head_count", MetadataValue::U32(2))];
    let queries_alone = Workplace::new(HeaderModel { metadata: queries_alone, ..HeaderModel::new("llama") });
    queries_alone.to_gguf(&adapter).unwrap();
    let name = "blk.1.attn_k.weight.lora_b";
    assert_eq!(queries_alone.gguf_tensors()[name], same[name], "two heads of keys, as of queries");
}

#[test]
fn half_precision_becomes_the_same_f32() {
    let work = Workplace::new(HeaderModel::new("llama"));
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
    let work = Workplace::new(HeaderModel::new("qwen3"));
    let mut adapter = TestAdapter::of(&work.model.modules());
    work.to_gguf(&adapter).unwrap();
    let expected = work.gguf_tensors();
    adapter.tensors.insert("base_model.model.lm_head.base_layer.weight".to_owned(), TestTensor::f32(20, 8, 1));
    work.to_gguf(&adapter).unwrap();
    assert_eq!(work.gguf_tensors(), expected);
}

#[test]
fn models_that_read_images_name_their_text_layers_otherwise() {
    let work = Workplace::new(HeaderModel { has_head: false, ..HeaderModel::new("gemma3") });
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
fn a_file_that_is_there_is_replaced_by_a_whole_one() {
    let work = Workplace::new(HeaderModel::new("llama"));
    let adapter = TestAdapter::of(&work.model.modules());
    fs::write(work.path("adapter.gguf"), "an older one").unwrap();
    work.to_gguf(&adapter).unwrap();
    let whole = fs::read(work.path("adapter.gguf")).unwrap();
    let mut names: Vec<_> = fs::read_dir(work.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["adapter.gguf", "model.gguf", "peft"]);
    // Its numbers are found to be none while the file is written.
    let mut diverged = adapter;
    let last = diverged.tensors.values_mut().last().unwrap();
    last.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(refusal_of(work.to_gguf(&diverged).unwrap_err()), AdapterRefusal::NotFinite(_)));
    assert_eq!(fs::read(work.path("adapter.gguf")).unwrap(), whole);
    assert_eq!(fs::read_dir(work.dir.path()).unwrap().count(), names.len());
    let nowhere = peft_to_gguf(&work.path("peft"), &work.path("model.gguf"), &work.path("no/where.gguf"));
    assert!(nowhere.unwrap_err().to_string().contains("no/where.gguf: cannot be written"));
}

/// The rows of queries and keys as GGUF has them, where rotary embedding is applied to neighbours: the halves of each head are
/// interleaved.
fn interleaved(rows: &[f32], rank: usize) -> Vec<f32> {
    let heads = rows.chunks(HEAD_ROWS as usize * rank);
    heads.flat_map(|head| [0, 2, 1, 3].map(|row| &head[row * rank..][..rank]).concat()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_number_of_an_adapter_has_its_place_in_gguf(
        architecture in prop::sample::select(ARCHITECTURES.to_vec()),
        ranks in prop::collection::vec(prop_oneof![3 => Just(0u64), 1 => 1..5u64], 15),
        alpha in prop_oneof![1..64i32, -8..-1i32].prop_map(|eighths| f64::from(eighths) / 8.0),
        seed in 0..1000u64,
    ) {
        let work = Workplace::new(HeaderModel::new(architecture));
        let modules = work.model.modules();
        // A rank of zero leaves a module out; one module is there in any case.
        let ranks: Vec<u64> = ranks.iter().enumerate().map(|(at, rank)| if at == 0 { (*rank).max(1) } else { *rank }).collect();
        let adapted: Vec<_> = modules.iter().zip(&ranks).filter(|(_, rank)| **rank > 0).collect();
        let mut adapter = TestAdapter::of(&[]);
        let mut rank_pattern = BTreeMap::new();
        for (at, ((path, _, inputs, outputs), rank)) in adapted.iter().enumerate() {
            adapter.set(path, **rank, *inputs, *outputs, seed + at as u64);
            rank_pattern.insert(path.clone(), **rank);
        }
        adapter.settings["rank_pattern"] = json!(rank_pattern);
        adapter.settings["lora_alpha"] = json!(alpha);
        let written = work.to_gguf(&adapter).unwrap();
        prop_assert_eq!((f64::from(written.alpha), written.layer_count), (alpha, adapted.len()));
        let mut expected = BTreeMap::new();
        for ((path, weight, inputs, outputs), rank) in adapted {
            let [a, b] = ["A", "B"].map(|side| adapter.tensors[&tensor_name(path, side)].values());
            let is_rotated = architecture == "llama" && (weight.contains("attn_q.") || weight.contains("attn_k."));
            let b = if is_rotated { interleaved(&b, *rank as usize) } else { b };
            expected.insert(format!("{weight}.lora_a"), (vec![*inputs, *rank], a));
            expected.insert(format!("{weight}.lora_b"), (vec![*rank, *outputs], b));
        }
        prop_assert_eq!(work.gguf_tensors(), expected);
    }
}
