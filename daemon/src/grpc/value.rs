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

/// Deepest nesting of a value that a client sends: the journal's reader goes as far.
const MAX_DEPTH: usize = 100;

/// A client's value as JSON. Protobuf's numbers are doubles: one without a fraction is taken for the whole number that it is.
pub(super) fn json(value: &prost_types::Value) -> Result<Json, String> {
    json_at(value, 0)
}

fn json_at(value: &prost_types::Value, depth: usize) -> Result<Json, String> {
    if depth > MAX_DEPTH {
        return Err(format!("it nests deeper than {MAX_DEPTH}"));
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
            // Protobuf's maps have no order; one that is always the same makes answers comparable.
            let mut fields: Vec<_> = map.fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let field = |(key, value): (&String, _)| Ok((key.clone(), json_at(value, depth + 1)?));
            Json::Object(fields.into_iter().map(field).collect::<Result<_, String>>()?)
        }
    })
}

fn number(n: f64) -> Result<Json, String> {
    /// Up to here every whole number is a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() <= EXACT {
        return Ok(Json::from(n as i64));
    }
    serde_json::Number::from_f64(n).map(Json::Number).ok_or_else(|| format!("{n} is no JSON number"))
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    // A duration that protobuf cannot hold is longer than any that happens.
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, millis) = (at.0 / 1000, at.0 % 1000);
    prost_types::Timestamp { seconds: seconds.cast_signed(), nanos: (millis * 1_000_000) as i32 }
}

/// The system's own time.
pub(super) fn moment(at: std::time::SystemTime) -> prost_types::Timestamp {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    timestamp(Timestamp(since.as_millis() as u64))
}

/// Milliseconds since 1970; what lies before is 0.
pub(super) fn millis(at: &prost_types::Timestamp) -> Timestamp {
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    let nanos = u64::try_from(at.nanos).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}
