//! The scale of each module: that of PEFT, computed here as PEFT does, against that of llama.cpp.

use artel_gguf::inspect_any_adapter;
use proptest::prelude::*;
use serde_json::json;

use crate::fixtures::{HeaderModel, TestAdapter, Workplace, tensor_name};

/// A model of architecture `qwen2`, whose rows keep their order.
fn work() -> Workplace {
    Workplace::new(HeaderModel::new("qwen2"))
}

/// By llama.cpp: alpha over the rank, the first dimension of B. Times B of a module.
fn scaled_in_gguf(work: &Workplace, weight: &str) -> Vec<f64> {
    let alpha = &inspect_any_adapter(&work.path("adapter.gguf")).unwrap().metadata["adapter.lora.alpha"];
    let alpha: f32 = alpha.parse().unwrap();
    let (dimensions, numbers) = &work.gguf_tensors()[&format!("{weight}.lora_b")];
    let scale = f64::from(alpha) / dimensions[0] as f64;
    numbers.iter().map(|number| f64::from(*number) * scale).collect()
}

fn scaled_in_peft(adapter: &TestAdapter, path: &str, scale: f64) -> Vec<f64> {
    adapter.tensors[&tensor_name(path, "B")].values().iter().map(|number| f64::from(*number) * scale).collect()
}

fn are_close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs().max(b.abs()))
}

#[test]
fn a_module_of_another_alpha_keeps_its_scale_and_the_others_their_numbers() {
    let work = work();
    let mut adapter = TestAdapter::of(&work.model.modules());
    work.to_gguf(&adapter).unwrap();
    let plain = work.gguf_tensors();
    adapter.settings["alpha_pattern"] = json!({"layers.0.mlp.up_proj": 10});
    assert_eq!(work.to_gguf(&adapter).unwrap().alpha, 4.0);
    let patterned = work.gguf_tensors();
    let differing: Vec<&String> = plain.keys().filter(|name| plain[*name] != patterned[*name]).collect();
    assert_eq!(differing, ["blk.0.ffn_up.weight.lora_b"]);
    let path = "model.layers.0.mlp.up_proj";
    assert!(are_close(&scaled_in_gguf(&work, "blk.0.ffn_up.weight"), &scaled_in_peft(&adapter, path, 10.0 / 2.0)));
}

#[test]
fn an_alpha_that_most_modules_have_by_a_pattern_is_that_of_the_adapter() {
    let work = work();
    let mut adapter = TestAdapter::of(&work.model.modules());
    adapter.settings["alpha_pattern"] = json!({"lm_head": 1, ".*": 16});
    assert_eq!(work.to_gguf(&adapter).unwrap().alpha, 16.0);
    assert!(are_close(&scaled_in_gguf(&work, "output.weight"), &scaled_in_peft(&adapter, "lm_head", 1.0 / 2.0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `lora_alpha / r`, or over the root of `r`, with values for single modules.
    #[test]
    fn each_module_has_the_scale_of_peft(
        ranks in prop::collection::vec(1..6u64, 15),
        alphas in prop::collection::vec(prop_oneof![2 => Just(None), 1 => (1..200u32).prop_map(Some)], 15),
        alpha in 1..64u32,
        is_rank_stabilized: bool,
    ) {
        let work = work();
        let modules = work.model.modules();
        let mut adapter = TestAdapter::of(&modules);
        adapter.settings["lora_alpha"] = json!(alpha);
        adapter.settings["use_rslora"] = json!(is_rank_stabilized);
        (adapter.settings["rank_pattern"], adapter.settings["alpha_pattern"]) = (json!({}), json!({}));
        for (at, (path, _, inputs, outputs)) in modules.iter().enumerate() {
            adapter.set(path, ranks[at], *inputs, *outputs, at as u64);
            adapter.settings["rank_pattern"][path] = json!(ranks[at]);
            if let Some(own) = alphas[at] {
                adapter.settings["alpha_pattern"][path] = json!(own);
            }
        }
        work.to_gguf(&adapter).unwrap();
        for (at, (path, weight, ..)) in modules.iter().enumerate() {
            let rank = ranks[at] as f64;
            let scale = f64::from(alphas[at].unwrap_or(alpha)) / if is_rank_stabilized { rank.sqrt() } else { rank };
            let (ours, theirs) = (scaled_in_gguf(&work, weight), scaled_in_peft(&adapter, path, scale));
            prop_assert!(are_close(&ours, &theirs), "{path}: {ours:?} {theirs:?}");
        }
    }
}
