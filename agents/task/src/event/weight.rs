//! How much room an output takes where it is sent.

use serde_json::Value;

use super::Output;

/// The most bytes of an output, as [`Output::weight`] reckons them. Whoever hears of a task takes messages of 4 MiB, unless
/// told otherwise: an event with more would be lost on them, and the task with it. What else an event holds is far below
/// the difference.
pub const MAX_OUTPUT: usize = 4 * 1024 * 1024 - 64 * 1024;

/// Most bytes of a value's kind and its lengths. A number is eight bytes, whatever its digits.
const FRAME: usize = 12;

impl Output {
    /// The bytes that it takes in a message, or some more: its text, and its JSON, of which numbers and nesting take more
    /// than they do as text.
    pub fn weight(&self) -> usize {
        self.text.len() + self.json.as_ref().map_or(0, weight)
    }
}

fn weight(value: &Value) -> usize {
    FRAME
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(weight).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| FRAME + key.len() + weight(value)).sum(),
        }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_weigh_more_than_their_text() {
        for json in [json!(null), json!([1, 2, 3]), json!({"a": {"b": ["c", 1.5]}}), json!("text")] {
            let output = Output::json(json);
            assert!(output.weight() > 2 * output.text.len(), "{output:?}");
        }
        assert_eq!(Output::text("text").weight(), 4);
    }
}
