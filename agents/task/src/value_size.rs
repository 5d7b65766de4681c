//! The size of JSON in a message.

use serde_json::Value;

/// An upper bound for a value's tag and lengths. A number takes eight bytes, regardless of its digits.
const VALUE_OVERHEAD_BYTES: usize = 12;

/// An upper bound for the size of JSON in a message, in bytes.
pub(crate) fn value_len(value: &Value) -> usize {
    VALUE_OVERHEAD_BYTES
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(value_len).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| entry_len(key, value)).sum(),
        }
}

/// The part of an object's size that this entry takes.
pub(crate) fn entry_len(key: &str, value: &Value) -> usize {
    VALUE_OVERHEAD_BYTES + key.len() + value_len(value)
}
