//! What a constraint takes: compiling it, and each masked token: `cargo bench -p artel-constraint`.
#![allow(clippy::unwrap_used)]

mod model_vocabulary;

use std::time::{Duration, Instant};

use artel_constraint::{Compiler, check_output};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::model_vocabulary::model_vocabulary;

/// How many outputs of each schema are timed, and how long they are at most.
const TIMED_RUNS: u64 = 40;
const MAX_OUTPUT_TOKENS: usize = 200;

fn schemas() -> Vec<(&'static str, Value)> {
    let record = json!({
        "type": "object",
        "required": ["order", "amount", "reason"],
        "properties": {
            "order": {"type": "string", "maxLength": 12}, "amount": {"type": "number"}, "count": {"type": "integer"},
            "reason": {"type": "string"}, "kind": {"enum": ["refund", "exchange", "other"]},
        },
    });
    let closed = {
        let mut closed = record.clone();
        closed["additionalProperties"] = json!(false);
        closed
    };
    let many: serde_json::Map<String, Value> =
        (0..100).map(|at| (format!("field_{at}"), json!({"type": ["string", "null"]}))).collect();
    vec![
        ("a record", record.clone()),
        ("a closed record", closed),
        (
            "a list of records",
            json!({"type": "object", "required": ["list"], "properties": {"list": {"type": "array", "items": record}}}),
        ),
        ("a hundred fields", json!({"type": "object", "properties": many})),
        ("any object", json!({"type": "object"})),
        ("a label", json!({"enum": ["returns", "delivery", "billing", "account"]})),
    ]
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() - 1) * percent / 100]
}

fn main() {
    let vocabulary = model_vocabulary();
    let trie = vocabulary.tok_trie();
    let compiler = Compiler::new(&vocabulary).unwrap();
    for (name, schema) in schemas() {
        let begin = Instant::now();
        check_output(&schema, Duration::from_secs(5)).unwrap();
        let check = begin.elapsed();
        let begin = Instant::now();
        drop(compiler.compile(&schema).unwrap());
        let first = begin.elapsed();
        let begin = Instant::now();
        drop(compiler.compile(&schema).unwrap());
        let again = begin.elapsed();
        let mut times = Vec::new();
        for seed in 0..TIMED_RUNS {
            let mut random = StdRng::seed_from_u64(seed);
            let mut constraint = compiler.compile(&schema).unwrap();
            for _ in 0..MAX_OUTPUT_TOKENS {
                let begin = Instant::now();
                constraint.take_forced();
                let Some(mask) = constraint.mask().unwrap() else { break };
                let masked = begin.elapsed();
                let allowed = mask.to_list();
                let token = allowed[random.random_range(0..allowed.len())];
                if trie.eos_tokens().contains(&token) {
                    break;
                }
                let begin = Instant::now();
                constraint.accept(token).unwrap();
                times.push(masked + begin.elapsed());
            }
        }
        let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
        println!(
            "{name}: check {check:.1?}, first {first:.1?}, again {again:.1?}; {} tokens: p50 {p50:.1?}, p99 {p99:.1?}",
            times.len()
        );
    }
}
