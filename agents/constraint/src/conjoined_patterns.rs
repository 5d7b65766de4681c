//! How many patterns one text must match at once. The automaton of all of them is their product: it doubles with each, and is not
//! bounded by the limits of llguidance.

use serde_json::{Map, Value};

use crate::error::Error;

/// The most patterns of one text, a format being one. With eight, a schema takes a tenth of a second.
const MAX_CONJOINED_PATTERNS: usize = 8;

/// Refuses a schema for llguidance in which a text has too many patterns at once.
pub(crate) fn check(schema: &Value) -> Result<(), Error> {
    let definitions = schema.get("$defs").and_then(Value::as_object);
    check_part(schema, &Counter { definitions })
}

fn check_part(part: &Value, counter: &Counter<'_>) -> Result<(), Error> {
    let count = counter.count(part, &mut Vec::new());
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
}

impl<'s> Counter<'s> {
    /// The patterns of a text that satisfies a part; `passed` are the references on the way to it.
    fn count(&self, part: &'s Value, passed: &mut Vec<&'s str>) -> usize {
        let Value::Object(map) = part else { return 0 };
        let own = usize::from(map.contains_key("pattern")) + usize::from(map.contains_key("format"));
        let mut each = |key: &str| -> Vec<usize> {
            let schemas = map.get(key).and_then(Value::as_array).into_iter().flatten();
            schemas.map(|schema| self.count(schema, passed)).collect()
        };
        let all: usize = each("allOf").into_iter().sum();
        let any: usize = ["anyOf", "oneOf"].into_iter().map(|key| each(key).into_iter().max().unwrap_or(0)).sum();
        own.saturating_add(all).saturating_add(any).saturating_add(self.referred(map, passed))
    }

    fn referred(&self, map: &'s Map<String, Value>, passed: &mut Vec<&'s str>) -> usize {
        let name = map.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix("#/$defs/"));
        let target = name.and_then(|name| Some((name, self.definitions?.get(name)?)));
        let Some((name, target)) = target.filter(|(name, _)| !passed.contains(name)) else { return 0 };
        passed.push(name);
        let count = self.count(target, passed);
        passed.pop();
        count
    }
}
