//! Which parts of a schema no value satisfies.
//!
//! `jsonschema` reduces a schema to a normal form: one that is proven to accept nothing becomes `false`, a reference that can only
//! be satisfied by endless nesting included. What it cannot tell is taken for satisfiable.

use std::collections::BTreeMap;

use jsonschema::canonical::{CanonicalKind, Cause, Satisfiability, UnsatisfiableReason, options};
use jsonschema::{Draft, PatternOptions};
use serde_json::Value;

use crate::error::Error;
use crate::reference::below;

/// The largest automaton of a pattern.
const MAX_PATTERN_AUTOMATON_BYTES: usize = 64 * 1024;
/// How many causes a message names.
const MAX_CAUSE_ENTRIES: usize = 3;

/// What is known of a schema.
#[derive(Default)]
pub(crate) struct Emptiness {
    /// The parts that no value satisfies, by their pointers.
    reasons: BTreeMap<String, UnsatisfiableReason>,
    is_unsatisfiable: bool,
    /// The schema in its normal form, if it has one.
    pub(crate) canonical: Option<Value>,
}

impl Emptiness {
    pub(crate) fn of(schema: &Value) -> Self {
        let patterns = PatternOptions::regex().size_limit(MAX_PATTERN_AUTOMATON_BYTES);
        let options =
            options().with_draft(Draft::Draft202012).should_validate_formats(true).with_pattern_options(patterns);
        let Ok(document) = options.offline().prepare(schema) else { return Self::default() };
        let Ok(canonical) = document.canonicalize() else { return Self::default() };
        let reasons = document.unsatisfiable().unwrap_or_default();
        let is_unsatisfiable = canonical.satisfiability() == Satisfiability::No || reasons.contains_key("");
        let canonical = (canonical.kind() != CanonicalKind::Raw).then(|| canonical.to_json_schema());
        Self { reasons, is_unsatisfiable, canonical }
    }

    /// Whether no value satisfies the part at a pointer.
    pub(crate) fn is_empty(&self, pointer: &str) -> bool {
        self.reasons.contains_key(pointer)
    }

    /// The error of a schema that no value satisfies.
    pub(crate) fn refusal(&self, schema: &Value) -> Option<Error> {
        self.is_unsatisfiable.then(|| {
            let (place, reason) = self.cause(schema);
            Error::Unsatisfiable { place, reason }
        })
    }

    /// The parts without values of which the part at a pointer demands one.
    fn demanded<'s>(&'s self, schema: &'s Value, at: &'s str) -> impl Iterator<Item = String> + 's {
        let part = schema.pointer(at);
        let required = part.and_then(|part| part.get("required")).and_then(Value::as_array).into_iter().flatten();
        let properties = below(at, "properties");
        let required = required.filter_map(Value::as_str).map(move |name| below(&properties, name));
        let others = ["items", "contains", "additionalProperties", "then"].map(|key| below(at, key));
        required.chain(others).filter(|pointer| self.reasons.contains_key(pointer))
    }

    /// The innermost part that excludes all values, and how.
    fn cause(&self, schema: &Value) -> (String, String) {
        let mut passed = vec![String::new()];
        loop {
            let at = passed.last().expect("it begins with the schema itself");
            let reason = match self.reasons.get(at) {
                Some(UnsatisfiableReason::Empty(cause)) => {
                    if self.reasons.contains_key(&cause.pointer) && !passed.contains(&cause.pointer) {
                        passed.push(cause.pointer.clone());
                        continue;
                    }
                    match cause.keywords.as_slice() {
                        [] => "a value of it would have to contain itself, without an end".to_owned(),
                        keywords => format!("{} cannot be satisfied", quoted(keywords)),
                    }
                }
                Some(UnsatisfiableReason::Literal) => "`false` allows no value, and one is required".to_owned(),
                Some(UnsatisfiableReason::Conflict(causes)) => {
                    let inner = self.demanded(schema, at).find(|inner| !passed.contains(inner));
                    if let Some(inner) = inner {
                        passed.push(inner);
                        continue;
                    }
                    let shown = causes.iter().take(MAX_CAUSE_ENTRIES).map(|cause| named(cause, at));
                    format!("{} exclude each other", shown.collect::<Vec<_>>().join(" and "))
                }
                None => "its keywords exclude each other, or a value would have to contain itself, without an end"
                    .to_owned(),
            };
            return (at.clone(), reason);
        }
    }
}

/// A part of a schema, relative to the place of the message.
fn named(cause: &Cause, place: &str) -> String {
    let inner = cause.pointer.strip_prefix(place).unwrap_or(&cause.pointer);
    match (cause.keywords.as_slice(), inner) {
        ([], inner) => format!("`{inner}`"),
        (keywords, "") => quoted(keywords),
        (keywords, inner) => format!("{} at {inner}", quoted(keywords)),
    }
}

fn quoted(keywords: &[String]) -> String {
    let quoted: Vec<String> = keywords.iter().map(|keyword| format!("`{keyword}`")).collect();
    quoted.join(", ")
}
