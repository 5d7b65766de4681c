//! The messages of the contract as JSON, the same for every verb.
//!
//! Field names are the contract's. A duration `x` becomes `x_ms`, a number of milliseconds; a time is RFC 3339; an enum
//! is its word in lower case without the prefix. What is absent or empty is left out, but numbers, booleans and states are
//! always there. Every message is taken apart field by field, so that a new field does not compile until it is here.

mod catalog;
pub(crate) mod event;
mod fleet;
mod task;
mod word;

use std::collections::HashMap;
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{Struct, Timestamp};
use serde_json::{Map, Number, Value};

pub(crate) use word::Word;

/// A message that is shown as JSON.
pub(crate) trait Json {
    /// The message as JSON.
    fn json(&self) -> Value;
}

/// A JSON object that is being put together.
#[derive(Debug, Default)]
pub(crate) struct Object(Map<String, Value>);

impl Object {
    /// Without fields.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A field that is always there.
    pub(crate) fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// A text, unless it is empty.
    pub(crate) fn text(self, key: &str, text: &str) -> Self {
        if text.is_empty() { self } else { self.put(key, text) }
    }

    /// A list of texts, unless it is empty.
    pub(crate) fn texts(self, key: &str, texts: &[String]) -> Self {
        if texts.is_empty() { self } else { self.put(key, texts) }
    }

    /// A list of messages, unless it is empty.
    pub(crate) fn list<T: Json>(self, key: &str, list: &[T]) -> Self {
        if list.is_empty() { self } else { self.put(key, list.iter().map(Json::json).collect::<Vec<_>>()) }
    }

    /// A message, if there is one.
    pub(crate) fn some<T: Json>(self, key: &str, message: Option<&T>) -> Self {
        match message {
            Some(message) => self.put(key, message.json()),
            None => self,
        }
    }

    /// A number, if there is one.
    pub(crate) fn maybe<T: Into<Value>>(self, key: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    /// A length of time, if there is one.
    pub(crate) fn ms(self, key: &str, time: Option<&prost_types::Duration>) -> Self {
        let ms = time.and_then(|time| Duration::try_from(*time).ok()).map(millis);
        self.maybe(&format!("{key}_ms"), ms)
    }

    /// Pairs by key, unless there are none.
    pub(crate) fn pairs<T: Clone + Into<Value>>(self, key: &str, pairs: &HashMap<String, T>) -> Self {
        if pairs.is_empty() {
            return self;
        }
        let mut sorted: Vec<_> = pairs.iter().collect();
        sorted.sort_by_key(|(key, _)| *key);
        let map: Map<String, Value> = sorted.into_iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        self.put(key, map)
    }

    /// All fields of another object.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object.0)
    }
}

/// Milliseconds, exact to the microsecond.
fn millis(time: Duration) -> Value {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    if micros.is_multiple_of(1000) { (micros / 1000).into() } else { (micros as f64 / 1000.0).into() }
}

impl Json for Timestamp {
    fn json(&self) -> Value {
        self.to_string().into()
    }
}

impl Json for Struct {
    fn json(&self) -> Value {
        Value::Object(self.fields.iter().map(|(key, value)| (key.clone(), value.json())).collect())
    }
}

impl Json for prost_types::Value {
    fn json(&self) -> Value {
        match &self.kind {
            None | Some(Kind::NullValue(_)) => Value::Null,
            Some(Kind::BoolValue(value)) => (*value).into(),
            Some(Kind::NumberValue(value)) => number(*value),
            Some(Kind::StringValue(text)) => text.as_str().into(),
            Some(Kind::ListValue(list)) => list.values.iter().map(Json::json).collect(),
            Some(Kind::StructValue(fields)) => fields.json(),
        }
    }
}

/// The contract carries every number as a double; whole ones were written as integers.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        return (value as i64).into();
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// JSON as the contract carries it.
pub(crate) fn to_proto(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.iter().map(to_proto).collect() })
        }
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(key, value)| (key.clone(), to_proto(value))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_survive_the_way_there_and_back() {
        let value = json!({"a": [1, -2, 1.5, true, null, "x"], "b": {"c": 9_007_199_254_740_991_i64}});
        assert_eq!(to_proto(&value).json(), value);
    }

    #[test]
    fn durations_are_milliseconds() {
        let ms = |seconds, nanos| Object::new().ms("t", Some(&prost_types::Duration { seconds, nanos }));
        assert_eq!(Value::from(ms(1, 250_000_000)), json!({"t_ms": 1250}));
        assert_eq!(Value::from(ms(0, 3_214_567)), json!({"t_ms": 3.214}));
        assert_eq!(Value::from(Object::new().ms("t", None)), json!({}));
    }

    #[test]
    fn times_are_rfc_3339() {
        let time = Timestamp { seconds: 1_767_225_600, nanos: 120_000_000 };
        assert_eq!(time.json(), json!("2026-01-01T00:00:00.120Z"));
    }
}
