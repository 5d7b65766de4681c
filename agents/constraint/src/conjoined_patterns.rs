//! How many patterns one text must match at once. The automaton of all of them is their product: it doubles with each, and is not
//! bounded by the limits of llguidance.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::error::Error;

/// The most patterns of one text, a format being one. With eight, a schema takes a tenth of a second.
const MAX_CONJOINED_PATTERNS: usize = 8;

/// Refuses a schema for llguidance in which a text has too many patterns at once.
pub(crate) fn check(schema: &Value) -> Result<(), Error> {
    let definitions = schema.get("$defs").and_then(Value::as_object);
    check_part(schema, &mut Counter { definitions, counts: HashMap::new() })
}

fn check_part<'s>(part: &'s Value, counter: &mut Counter<'s>) -> Result<(), Error> {
    let count = counter.count(part);
    if count > MAX_CONJOINED_PATTERNS {
        return Err(Error::Costly(format!(
            "a text has {count} patterns and formats at once, the limit is {MAX_CONJOINED_PATTERNS}"
        )));
    }
    let Value::Object(map) = part else { return Ok(()) };
    for (key, value) in map {
        match (key.as_str(), value) {
            ("items" | "additionalProperties", schema) => check_part(schema, counter)?,
            ("prefixItems" | "allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                schemas.iter().try_for_each(|schema| check_part(schema, counter))?;
            }
            ("properties" | "patternProperties" | "$defs", Value::Object(schemas)) => {
                schemas.values().try_for_each(|schema| check_part(schema, counter))?;
            }
            _ => {}
        }
    }
    Ok(())
}

struct Counter<'s> {
    definitions: Option<&'s Map<String, Value>>,
    /// Those of the definitions that were met; none of one that is being counted.
    counts: HashMap<&'s str, usize>,
}

impl<'s> Counter<'s> {
    /// The patterns of a text that satisfies a part.
    fn count(&mut self, part: &'s Value) -> usize {
        let Value::Object(map) = part else { return 0 };
        let own = usize::from(map.contains_key("pattern")) + usize::from(map.contains_key("format"));
        let all: usize = self.each(map, "allOf").into_iter().fold(0, usize::saturating_add);
        let any = ["anyOf", "oneOf"].map(|key| self.each(map, key).into_iter().max().unwrap_or(0));
        let parts = [all, any[0], any[1], self.referred(map)];
        parts.into_iter().fold(own, usize::saturating_add)
    }

    fn each(&mut self, map: &'s Map<String, Value>, key: &str) -> Vec<usize> {
        let schemas = map.get(key).and_then(Value::as_array).into_iter().flatten();
        schemas.map(|schema| self.count(schema)).collect()
    }

    fn referred(&mut self, map: &'s Map<String, Value>) -> usize {
        let name = map.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix("#/$defs/"));
        let target = name.and_then(|name| Some((name, self.definitions?.get(name)?)));
        let Some((name, target)) = target else { return 0 };
        if let Some(count) = self.counts.get(name) {
            return *count;
        }
        self.counts.insert(name, 0);
        let count = self.count(target);
        self.counts.insert(name, count);
        count
    }
}
