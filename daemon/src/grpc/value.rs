//! JSON as protobuf's well-known types.

use std::time::Duration;

use artel_task::event::Timestamp;
use prost_types::value::Kind;
use serde_json::Value as Json;

pub(super) fn value(json: &Json) -> prost_types::Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(*b),
        // Protobuf's JSON knows doubles alone; JSON text, where exact numbers matter, is sent beside it.
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Json::String(s) => Kind::StringValue(s.clone()),
        Json::Array(items) => Kind::ListValue(prost_types::ListValue { values: items.iter().map(value).collect() }),
        Json::Object(map) => Kind::StructValue(structure(map)),
    };
    prost_types::Value { kind: Some(kind) }
}

pub(super) fn structure(map: &serde_json::Map<String, Json>) -> prost_types::Struct {
    prost_types::Struct { fields: map.iter().map(|(key, json)| (key.clone(), value(json))).collect() }
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    // A duration that protobuf cannot hold is longer than any that happens.
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, millis) = (at.0 / 1000, at.0 % 1000);
    prost_types::Timestamp { seconds: seconds.cast_signed(), nanos: (millis * 1_000_000) as i32 }
}

/// Milliseconds since 1970; what lies before is 0.
pub(super) fn millis(at: &prost_types::Timestamp) -> Timestamp {
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    let nanos = u64::try_from(at.nanos).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}
