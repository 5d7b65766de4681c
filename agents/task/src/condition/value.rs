//! Conversion of JSON to CEL values.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::objects::Key;
use serde_json::Value as Json;

/// An integer becomes a signed CEL integer where it fits: literals in an expression are signed, and CEL does not mix the two in
/// arithmetic.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(signed), _) => Value::Int(signed),
            (None, Some(unsigned)) => Value::UInt(unsigned),
            (None, None) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(value).collect())),
        Json::Object(map) => map_of(map.iter().map(|(key, json)| (key.as_str(), json))),
    }
}

/// A map with string keys.
pub(super) fn map_of<'a>(entries: impl Iterator<Item = (&'a str, &'a Json)>) -> Value {
    let map: HashMap<Key, Value> = entries.map(|(key, json)| (Key::from(key), value(json))).collect();
    Value::Map(cel::objects::Map { map: Arc::new(map) })
}
