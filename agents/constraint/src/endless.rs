//! Definitions whose values would never end. A grammar that refers to one lets a model begin what it cannot finish.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Replaces the references of a schema for llguidance to definitions without values by `false`. A value is built of smaller ones, so
/// those that can be are found first, and from them others, until no more are found.
pub(crate) fn prune(schema: &mut Value) {
    let Some(definitions) = schema.get("$defs").and_then(Value::as_object) else { return };
    let mut finite = HashSet::new();
    loop {
        let before = finite.len();
        // A definition mostly refers to later ones.
        for (name, definition) in definitions.iter().rev() {
            if !finite.contains(name) && has_value(definition, &finite) {
                finite.insert(name.clone());
            }
        }
        if finite.len() == before {
            break;
        }
    }
    if finite.len() < definitions.len() {
        replace(schema, &finite);
    }
}

/// Whether a schema may have a value if these definitions have one.
fn has_value(schema: &Value, finite: &HashSet<String>) -> bool {
    let Value::Object(map) = schema else { return schema != &Value::Bool(false) };
    let each = |key: &str| map.get(key).and_then(Value::as_array).map(Vec::as_slice);
    let is_finite = target(map).is_none_or(|name| finite.contains(name));
    let all = each("allOf").is_none_or(|all| all.iter().all(|part| has_value(part, finite)));
    let any = |key| each(key).is_none_or(|any| any.iter().any(|part| has_value(part, finite)));
    let content = match map.get("type").and_then(Value::as_str) {
        Some("object") => has_object(map, finite),
        Some("array") => has_array(map, finite),
        _ => true,
    };
    is_finite && all && any("anyOf") && any("oneOf") && content
}

fn has_object(map: &Map<String, Value>, finite: &HashSet<String>) -> bool {
    let mut required = map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    required.all(|name| {
        let property = map.get("properties").and_then(|properties| properties.get(name));
        property.is_none_or(|schema| has_value(schema, finite))
    })
}

fn has_array(map: &Map<String, Value>, finite: &HashSet<String>) -> bool {
    let least = map.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
    let prefix = map.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rest = map.get("items").is_none_or(|items| least <= prefix.len() || has_value(items, finite));
    rest && prefix.iter().take(least).all(|item| has_value(item, finite))
}

/// The definition that a schema refers to.
fn target(map: &Map<String, Value>) -> Option<&str> {
    map.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

fn replace(part: &mut Value, finite: &HashSet<String>) {
    match part {
        Value::Object(map) if target(map).is_some_and(|name| !finite.contains(name)) => *part = Value::Bool(false),
        Value::Object(map) => {
            let parts = map.iter_mut().filter(|(key, _)| !matches!(key.as_str(), "const" | "enum"));
            parts.for_each(|(_, value)| replace(value, finite));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, finite)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reference_to_what_never_ends_becomes_false() {
        let mut schema = json!({
            "properties": {"a": {"$ref": "#/$defs/endless"}, "b": {"$ref": "#/$defs/tree"}, "c": {"const": {"$ref": "#/$defs/endless"}}},
            "$defs": {
                "endless": {"type": "object", "required": ["e"], "properties": {"e": {"$ref": "#/$defs/list"}}},
                "list": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/endless"}},
                "tree": {"anyOf": [{"type": "null"}, {"type": "array", "prefixItems": [{"$ref": "#/$defs/tree"}], "minItems": 1}]},
            },
        });
        prune(&mut schema);
        assert_eq!(schema["properties"]["a"], json!(false));
        assert_eq!(schema["properties"]["b"], json!({"$ref": "#/$defs/tree"}));
        assert_eq!(schema["properties"]["c"], json!({"const": {"$ref": "#/$defs/endless"}}));
    }
}
