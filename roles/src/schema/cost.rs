//! The cost of checking a value. Alternatives that refer to others, or to themselves, are tried one inside of the other: their number
//! doubles with each level of the schema or of the value. So every `$ref` takes steps from a budget for all that it may look at, and
//! matches nothing once the budget is used up.

use std::cell::Cell;

use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value, json};

use super::keyword::{MANY, NAMED, ONE};

/// The most steps of a check. A step is one part of a schema that may look at one value, or at some bytes of a text: some ten
/// nanoseconds. A value of 10,000 records of ten fields in a schema of thirty parts takes three millions.
pub(super) const MAX_CHECK_STEPS: u64 = 20_000_000;
/// The most steps of finding out why a value does not match: each may give an error of two kilobytes, and of alternatives all are
/// kept. A value of a thousand fields in a schema of thirty parts takes thirty thousand.
pub(super) const MAX_REPORT_STEPS: u64 = 50_000;
/// Text is looked at in some bytes at once.
const TEXT_STEP_BYTES: usize = 64;

/// The keyword that takes the steps; a schema of a user cannot have it.
pub(super) const KEYWORD: &str = "x-artel-cost";

thread_local! {
    /// What is left for the check of this thread; nothing is checked on two threads.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Does a check that may take so many steps; `None` if it takes more.
pub(super) fn within<T>(steps: u64, check: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(steps);
    let checked = check();
    (LEFT.get() > 0).then_some(checked)
}

/// Whether the steps are left, which are taken then.
pub(super) fn take(steps: u64) -> bool {
    let left = LEFT.get().saturating_sub(steps);
    LEFT.set(left);
    left > 0
}

/// What a value takes to look at it once.
pub(super) fn value_size(value: &Value) -> u64 {
    1 + match value {
        Value::String(text) => (text.len() / TEXT_STEP_BYTES) as u64,
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(map) => map.values().map(|value| 1 + value_size(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// The keyword beside a `$ref`, which is checked first.
pub(super) struct Meter {
    /// How many schemas may look at the value before the next `$ref`.
    pub(super) part_count: u64,
}

impl Meter {
    fn take(&self, instance: &Value) -> bool {
        // Not counted once all is used up.
        LEFT.get() > 0 && take(self.part_count.saturating_mul(value_size(instance)))
    }
}

impl<'i> Keyword<'i> for Meter {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.take(instance) { Ok(()) } else { Err(ValidationError::custom("the check takes too many steps")) }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        self.take(instance)
    }
}

/// What a schema consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SchemaSize {
    /// Schemas inside of it, itself included.
    pub(super) parts: usize,
    pub(super) patterns: usize,
}

impl SchemaSize {
    pub(super) fn of(schema: &Value) -> Self {
        let mut size = Self { parts: 0, patterns: 0 };
        size.count(schema);
        size
    }

    fn count(&mut self, schema: &Value) {
        self.parts += 1;
        let Value::Object(map) = schema else { return };
        for (key, value) in map {
            match key.as_str() {
                "pattern" => self.patterns += 1,
                "patternProperties" => self.patterns += value.as_object().map_or(0, Map::len),
                _ => {}
            }
            subschemas(key, value).into_iter().for_each(|schema| self.count(schema));
        }
    }
}

/// The schemas in the value of a keyword.
fn subschemas<'v>(key: &str, value: &'v Value) -> Vec<&'v Value> {
    match value {
        _ if ONE.contains(&key) => vec![value],
        Value::Array(items) if MANY.contains(&key) => items.iter().collect(),
        Value::Object(map) if NAMED.contains(&key) => map.values().collect(),
        _ => Vec::new(),
    }
}

/// The schema with the keyword as the condition of each `$ref`. Nothing moves to where another `$ref` points.
pub(super) fn metered(schema: &Value) -> Value {
    let Value::Object(map) = schema else { return schema.clone() };
    let mut made = Map::new();
    for (key, value) in map.iter().filter(|(key, _)| *key != "$ref") {
        let value = match value {
            _ if ONE.contains(&key.as_str()) => metered(value),
            Value::Array(items) if MANY.contains(&key.as_str()) => items.iter().map(metered).collect(),
            Value::Object(named) if NAMED.contains(&key.as_str()) => {
                named.iter().map(|(name, schema)| (name.clone(), metered(schema))).collect()
            }
            value => value.clone(),
        };
        made.insert(key.clone(), value);
    }
    if let Some(target) = map.get("$ref") {
        let reference = json!({"if": {KEYWORD: true}, "then": {"$ref": target}, "else": false});
        match made.get_mut("allOf").and_then(Value::as_array_mut) {
            Some(all) => all.push(reference),
            None => drop(made.insert("allOf".to_owned(), json!([reference]))),
        }
    }
    Value::Object(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_metered_where_it_stands() {
        let schema = json!({
            "$defs": {"a": {"$ref": "#/$defs/b", "allOf": [{"type": "object"}]}, "b": true},
            "properties": {"x": {"$ref": "#/$defs/a"}},
            "enum": [{"$ref": "no reference"}],
        });
        let reference = |target: &str| json!({"if": {KEYWORD: true}, "then": {"$ref": target}, "else": false});
        assert_eq!(
            metered(&schema),
            json!({
                "$defs": {"a": {"allOf": [{"type": "object"}, reference("#/$defs/b")]}, "b": true},
                "properties": {"x": {"allOf": [reference("#/$defs/a")]}},
                "enum": [{"$ref": "no reference"}],
            })
        );
        assert_eq!(SchemaSize::of(&schema), SchemaSize { parts: 5, patterns: 0 });
    }
}
