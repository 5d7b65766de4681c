//! The proto messages as JSON, the same for every command.
//!
//! Field names are those of the protos. A duration `x` becomes `x_ms` in milliseconds; a time is RFC 3339; an enum value is its
//! name in lower case without the prefix. Absent and empty fields are omitted; numbers, booleans and states are always present.
//! Every message is destructured field by field, so that a new field does not compile until it is added here.

mod catalog;
mod engines;
mod enum_name;
pub(crate) mod event;
mod task;

use std::collections::HashMap;
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{Struct, Timestamp};
use serde_json::{Map, Number, Value};

pub(crate) use enum_name::EnumName;

/// A message with a JSON form.
pub(crate) trait ToJson {
    /// The message as JSON.
    fn to_json(&self) -> Value;
}

/// A builder of a JSON object.
#[derive(Debug, Default)]
pub(crate) struct JsonObject(Map<String, Value>);

impl JsonObject {
    /// An object without fields.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a field that is always present.
    pub(crate) fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a text, unless it is empty.
    pub(crate) fn text(self, key: &str, text: &str) -> Self {
        if text.is_empty() { self } else { self.put(key, text) }
    }

    /// Adds a list of texts, unless it is empty.
    pub(crate) fn texts(self, key: &str, texts: &[String]) -> Self {
        if texts.is_empty() { self } else { self.put(key, texts) }
    }

    /// Adds a list of messages, unless it is empty.
    pub(crate) fn list<T: ToJson>(self, key: &str, list: &[T]) -> Self {
        if list.is_empty() { self } else { self.put(key, list.iter().map(ToJson::to_json).collect::<Vec<_>>()) }
    }

    /// Adds a message, if there is one.
    pub(crate) fn some<T: ToJson>(self, key: &str, message: Option<&T>) -> Self {
        match message {
            Some(message) => self.put(key, message.to_json()),
            None => self,
        }
    }

    /// Adds a value, if there is one.
    pub(crate) fn maybe<T: Into<Value>>(self, key: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    /// Adds a duration as `{key}_ms`, if there is one.
    pub(crate) fn ms(self, key: &str, time: Option<&prost_types::Duration>) -> Self {
        let ms = time.and_then(|time| Duration::try_from(*time).ok()).map(millis);
        self.maybe(&format!("{key}_ms"), ms)
    }

    /// Adds a map, sorted by key, unless it is empty.
    pub(crate) fn pairs<T: Clone + Into<Value>>(self, key: &str, pairs: &HashMap<String, T>) -> Self {
        if pairs.is_empty() {
            return self;
        }
        let mut sorted: Vec<_> = pairs.iter().collect();
        sorted.sort_by_key(|(key, _)| *key);
        let map: Map<String, Value> = sorted.into_iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        self.put(key, map)
    }

    /// Adds all fields of another object.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl From<JsonObject> for Value {
    fn from(object: JsonObject) -> Self {
        Self::Object(object.0)
    }
}

/// Milliseconds, exact to the microsecond.
fn millis(time: Duration) -> Value {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    if micros.is_multiple_of(1000) { (micros / 1000).into() } else { (micros as f64 / 1000.0).into() }
}

impl ToJson for Timestamp {
    fn to_json(&self) -> Value {
        self.to_string().into()
    }
}

impl ToJson for Struct {
    fn to_json(&self) -> Value {
        Value::Object(self.fields.iter().map(|(key, value)| (key.clone(), value.to_json())).collect())
    }
}

impl ToJson for prost_types::Value {
    fn to_json(&self) -> Value {
        match &self.kind {
            None | Some(Kind::NullValue(_)) => Value::Null,
            Some(Kind::BoolValue(value)) => (*value).into(),
            Some(Kind::NumberValue(value)) => number(*value),
            Some(Kind::StringValue(text)) => text.as_str().into(),
            Some(Kind::ListValue(list)) => list.values.iter().map(ToJson::to_json).collect(),
            Some(Kind::StructValue(fields)) => fields.to_json(),
        }
    }
}

/// A `google.protobuf.Value` carries every number as a double; whole numbers become integers again.
fn number(value: f64) -> Value {
    /// 2^53: up to here a double represents every integer.
    const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < MAX_EXACT_INTEGER {
        return (value as i64).into();
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// JSON as a `google.protobuf.Value`.
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
    fn values_survive_a_round_trip() {
        let value = json!({"a": [1, -2, 1.5, true, null, "x"], "b": {"c": 9_007_199_254_740_991_i64}});
        assert_eq!(to_proto(&value).to_json(), value);
    }

    #[test]
    fn durations_are_milliseconds() {
        let ms = |seconds, nanos| JsonObject::new().ms("t", Some(&prost_types::Duration { seconds, nanos }));
        assert_eq!(Value::from(ms(1, 250_000_000)), json!({"t_ms": 1250}));
        assert_eq!(Value::from(ms(0, 3_214_567)), json!({"t_ms": 3.214}));
        assert_eq!(Value::from(JsonObject::new().ms("t", None)), json!({}));
    }

    #[test]
    fn times_are_rfc_3339() {
        let time = Timestamp { seconds: 1_767_225_600, nanos: 120_000_000 };
        assert_eq!(time.to_json(), json!("2026-01-01T00:00:00.120Z"));
    }
}
