//! Outputs of a model whose weights are random: whatever it prefers, what it may write satisfies the schema, or is found not to.

use artel_constraint::{Compiler, byte_vocabulary};
use artel_roles::Schema;
use artel_task::portable;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use toktrie::{TokEnv, TokenId};

use super::schemas::{output, wrapped};

/// How many outputs are generated.
const GENERATED_TEXTS: usize = 10_000;
/// The longest output; one that is cut is not complete.
const MAX_OUTPUT_TOKENS: usize = 400;
/// How much likelier than others a token is that ends a text or a list: otherwise most outputs would be cut.
const CLOSING_FACTOR: f32 = 15.0;

/// Schemas as they are in use, and whether all that is decoded satisfies them.
fn schemas() -> Vec<(Value, bool)> {
    let text = json!({"type": "string", "maxLength": 20});
    let sides = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    vec![
        (json!({"enum": ["approve", "reject", "ask"]}), true),
        (
            json!({"type": "object", "properties": {"a": text, "b": {"enum": [1, 2, "three", null]}}, "required": ["a"]}),
            false,
        ),
        (json!({"type": "integer"}), true),
        (json!({"type": "integer", "minimum": -5, "maximum": 1000, "multipleOf": 5}), true),
        (json!({"type": "number", "minimum": 0, "maximum": 1}), true),
        (json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"}), true),
        (json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 5}), true),
        (json!({"type": "array", "prefixItems": [text, {"type": "integer"}], "items": false}), true),
        (json!({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 6}), true),
        (
            json!({"type": "object", "patternProperties": {"^[ab]$": {"type": "null"}}, "additionalProperties": false}),
            false,
        ),
        (
            json!({"type": "object", "propertyNames": {"pattern": "^[a-c]{1,3}$"}, "additionalProperties": {"type": "null"}}),
            true,
        ),
        (
            json!({"anyOf": [text, {"type": "null"}, {"type": "array", "items": {"$ref": "#/properties/v"}, "maxItems": 2}]}),
            true,
        ),
        (
            json!({"type": "object", "properties": {"next": {"$ref": "#/properties/v"}, "x": {"type": "boolean"}}, "additionalProperties": false}),
            true,
        ),
        (json!({"type": "string", "format": "uuid"}), true),
        (json!({"type": "string", "format": "date"}), false),
        (json!({"type": "array", "items": {"enum": ["a", "b", "c", "d"]}, "uniqueItems": true, "maxItems": 4}), false),
        (json!({"enum": ["a", "b", "c"], "not": {"const": "b"}}), true),
        (json!({"type": "integer", "minimum": 0, "maximum": 9, "not": {"multipleOf": 3}}), false),
        (
            json!({"type": "object", "properties": {"kind": {"enum": ["x", "y"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["kind", "n"], "additionalProperties": false,
            "if": {"properties": {"kind": {"const": "x"}}}, "then": {"properties": {"n": {"maximum": 9}}}}),
            false,
        ),
        (
            json!({"type": "array", "items": {"enum": [1, 2, 3]}, "contains": {"const": 3}, "minItems": 1, "maxItems": 6}),
            false,
        ),
        (
            json!({"oneOf": [{"type": "integer", "minimum": 0, "maximum": 20, "multipleOf": 2}, {"type": "integer", "minimum": 0, "maximum": 20, "multipleOf": 3}]}),
            false,
        ),
        (json!({"oneOf": [sides, {"type": "object", "properties": {"t": text}, "required": ["t"]}]}), false),
        (json!({"allOf": [sides, {"properties": {"m": {"type": "boolean"}}, "required": ["m"]}]}), false),
        (
            json!({"type": "object", "properties": {"a": text, "b": text}, "dependentRequired": {"a": ["b"]}, "additionalProperties": false}),
            false,
        ),
        (
            json!({"type": "object", "allOf": [{"properties": {"a": text}}], "properties": {"b": {"type": "null"}}, "unevaluatedProperties": false}),
            false,
        ),
    ]
}

/// What became of an output.
#[derive(Debug, PartialEq, Eq)]
enum Generated {
    Satisfies,
    Violates(String),
    Cut,
}

fn generate(compiler: &Compiler, vocabulary: &TokEnv, schema: &Schema, seed: u64) -> Generated {
    let trie = vocabulary.tok_trie();
    let mut random = StdRng::seed_from_u64(seed);
    let mut constraint = compiler.compile(schema.json()).unwrap();
    let mut written = Vec::new();
    for _ in 0..MAX_OUTPUT_TOKENS {
        let forced = constraint.take_forced();
        written.extend(forced.iter().flat_map(|token| trie.token(*token)));
        let mask = constraint.mask().unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(&written)));
        let Some(mask) = mask else { return judged(schema, &written) };
        let weight = |token: &TokenId| {
            let closes = matches!(trie.token(*token).first(), Some(b'"' | b']' | b'}'));
            if closes || trie.eos_tokens().contains(token) { CLOSING_FACTOR } else { 1.0 }
        };
        let score =
            |token: &TokenId, random: &mut StdRng| weight(token) / -random.random::<f32>().max(f32::MIN_POSITIVE).ln();
        let allowed = mask.to_list();
        let scored = allowed.iter().map(|token| (*token, score(token, &mut random)));
        let (token, _) = scored.max_by(|(_, a), (_, b)| a.total_cmp(b)).expect("a token is allowed");
        if trie.eos_tokens().contains(&token) {
            assert!(constraint.may_end());
            return judged(schema, &written);
        }
        constraint.accept(token).unwrap();
        written.extend_from_slice(trie.token(token));
    }
    Generated::Cut
}

fn judged(schema: &Schema, written: &[u8]) -> Generated {
    let text = std::str::from_utf8(written).unwrap();
    let value = match portable::parse(text) {
        Ok(value) => value,
        Err(error) => return Generated::Violates(format!("{text}: {error}")),
    };
    match schema.check(&value) {
        Ok(()) => Generated::Satisfies,
        Err(error) => Generated::Violates(format!("{text}: {error}")),
    }
}

#[test]
fn ten_thousand_outputs_of_random_weights_satisfy_their_schemas() {
    let vocabulary = byte_vocabulary();
    let compiler = Compiler::new(&vocabulary).unwrap();
    let schemas: Vec<(Schema, bool)> =
        schemas().into_iter().map(|(schema, is_exact)| (output(&wrapped(&schema)).unwrap(), is_exact)).collect();
    let mut counts = vec![(0_usize, 0_usize, 0_usize); schemas.len()];
    let (mut seed, mut last) = (0, String::new());
    for output in 0..GENERATED_TEXTS {
        // One schema after the other: a compiler keeps the last ones.
        let at = output * schemas.len() / GENERATED_TEXTS;
        let (schema, is_exact) = &schemas[at];
        loop {
            seed += 1;
            match generate(&compiler, &vocabulary, schema, seed) {
                Generated::Satisfies => {
                    counts[at].0 += 1;
                    break;
                }
                Generated::Violates(why) => {
                    assert!(!is_exact, "{why}\nis decoded as a whole: {}", schema.json());
                    counts[at].1 += 1;
                    last = why;
                }
                Generated::Cut => counts[at].2 += 1,
            }
            assert!(counts[at].1 + counts[at].2 < GENERATED_TEXTS, "{} is never satisfied: {last}", schema.json());
        }
    }
    for ((schema, _), (satisfying, violating, cut)) in schemas.iter().zip(counts) {
        println!(
            "{satisfying:5} satisfy, {violating:5} did not and were found, {cut:5} were cut: {}",
            schema.json()["properties"]["v"]
        );
    }
}

#[test]
fn no_key_comes_twice_in_an_object() {
    let vocabulary = byte_vocabulary();
    let compiler = Compiler::new(&vocabulary).unwrap();
    let open = output(&wrapped(&json!({
        "type": "object",
        "propertyNames": {"pattern": "^[ab]{0,2}$"},
        "maxProperties": 4,
        "additionalProperties": {"type": "null"},
        "properties": {"a": {"type": "null"}},
        "required": ["a"],
    })))
    .unwrap();
    for seed in 0..300 {
        match generate(&compiler, &vocabulary, &open, seed) {
            Generated::Violates(why) => panic!("{why}"),
            Generated::Satisfies | Generated::Cut => {}
        }
    }
}
