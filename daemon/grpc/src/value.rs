//! Conversions to and from the well-known types of protobuf.

use std::time::Duration;

use artel_task::event::Timestamp;
use prost_types::value::Kind;
use serde_json::Value as Json;

use crate::field_error::FieldError;

pub(crate) fn value(json: &Json) -> prost_types::Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(*b),
        // A protobuf number is a double. Where exact numbers matter, the JSON text is sent too.
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Json::String(s) => Kind::StringValue(s.clone()),
        Json::Array(items) => Kind::ListValue(prost_types::ListValue { values: items.iter().map(value).collect() }),
        Json::Object(map) => Kind::StructValue(structure(map)),
    };
    prost_types::Value { kind: Some(kind) }
}

pub(crate) fn structure(map: &serde_json::Map<String, Json>) -> prost_types::Struct {
    prost_types::Struct { fields: map.iter().map(|(key, json)| (key.clone(), value(json))).collect() }
}

/// The deepest nesting of a value from a client: within the limit of the journal's JSON parser.
const MAX_DEPTH: usize = 100;

/// A value from a client as JSON. Protobuf numbers are doubles; one without a fraction becomes an integer.
pub(crate) fn json(value: &prost_types::Value) -> Result<Json, FieldError> {
    json_at(value, 0)
}

fn json_at(value: &prost_types::Value, depth: usize) -> Result<Json, FieldError> {
    if depth > MAX_DEPTH {
        return Err(FieldError::NestsTooDeep { limit: MAX_DEPTH });
    }
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(b)) => Json::Bool(*b),
        Some(Kind::NumberValue(n)) => number(*n)?,
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::ListValue(list)) => {
            Json::Array(list.values.iter().map(|item| json_at(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Some(Kind::StructValue(map)) => {
            // Protobuf maps are unordered; sorting makes answers comparable.
            let mut fields: Vec<_> = map.fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let field = |(key, value): (&String, _)| Ok((key.clone(), json_at(value, depth + 1)?));
            Json::Object(fields.into_iter().map(field).collect::<Result<_, FieldError>>()?)
        }
    })
}

fn number(n: f64) -> Result<Json, FieldError> {
    /// 2^53: every integer up to it is exactly representable as a double.
    const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() <= MAX_EXACT_INTEGER {
        return Ok(Json::from(n as i64));
    }
    serde_json::Number::from_f64(n).map(Json::Number).ok_or(FieldError::NotJsonNumber(n))
}

pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    // A duration that protobuf cannot represent does not occur.
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

pub(crate) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, millis) = (at.0 / 1000, at.0 % 1000);
    prost_types::Timestamp { seconds: seconds.cast_signed(), nanos: (millis * 1_000_000) as i32 }
}

/// A system time as a protobuf timestamp.
pub(crate) fn system_time(at: std::time::SystemTime) -> prost_types::Timestamp {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    timestamp(Timestamp(since.as_millis() as u64))
}

/// Milliseconds since 1970; 0 for earlier times.
pub(crate) fn millis(at: &prost_types::Timestamp) -> Timestamp {
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    let nanos = u64::try_from(at.nanos).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}
