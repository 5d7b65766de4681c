//! Conversions to and from the well-known types of protobuf.

use std::time::Duration;

use artel_task::TaskId;
use artel_task::event::Timestamp;
use artel_task::portable::{self, MAX_EXACT_INTEGER};
use prost_types::value::Kind;
use serde_json::Value as Json;
use tonic::Status;

use crate::field_error::FieldError;
use crate::status::invalid_field;

/// The id of a task in a field of a request.
pub(crate) fn parse_task_id(field: &str, text: &str) -> Result<TaskId, Status> {
    let description = match text {
        "" => "is required",
        _ => "is not a task id, which is a UUID such as 0198c0de-0000-7000-8000-000000000000",
    };
    TaskId::parse(text).ok_or_else(|| invalid_field(field, description))
}

/// JSON as a protobuf value, if clients receive it as it is. New values are checked where they arrive; those in journals of
/// earlier versions may nest too deep to be decoded, or have integers that a double would round.
pub(crate) fn portable_value(json: &Json) -> Option<prost_types::Value> {
    portable::check(json).is_ok().then(|| value(json))
}

/// An object as a protobuf struct, if clients receive it as it is.
pub(crate) fn portable_struct(json: &Json) -> Option<prost_types::Struct> {
    json.as_object().filter(|_| portable::check(json).is_ok()).map(structure)
}

fn value(json: &Json) -> prost_types::Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(*b),
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Json::String(s) => Kind::StringValue(s.clone()),
        Json::Array(items) => Kind::ListValue(prost_types::ListValue { values: items.iter().map(value).collect() }),
        Json::Object(map) => Kind::StructValue(structure(map)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn structure(map: &serde_json::Map<String, Json>) -> prost_types::Struct {
    prost_types::Struct { fields: map.iter().map(|(key, json)| (key.clone(), value(json))).collect() }
}

/// A value from a client as JSON. Protobuf numbers are doubles; one without a fraction becomes an integer.
pub(crate) fn json(value: &prost_types::Value) -> Result<Json, FieldError> {
    let json = unchecked(value)?;
    portable::check(&json)?;
    Ok(json)
}

/// The protobuf parser has limited the nesting to half a hundred.
fn unchecked(value: &prost_types::Value) -> Result<Json, FieldError> {
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(b)) => Json::Bool(*b),
        Some(Kind::NumberValue(n)) => number(*n)?,
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::ListValue(list)) => {
            let item = |(index, item)| unchecked(item).map_err(|error| error.inside(index));
            Json::Array(list.values.iter().enumerate().map(item).collect::<Result<_, _>>()?)
        }
        Some(Kind::StructValue(map)) => {
            // Protobuf maps are unordered; sorting makes answers comparable.
            let mut fields: Vec<_> = map.fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let field = |(key, value): (&String, _)| match unchecked(value) {
                Ok(json) => Ok((key.clone(), json)),
                Err(error) => Err(error.inside(key)),
            };
            Json::Object(fields.into_iter().map(field).collect::<Result<_, FieldError>>()?)
        }
    })
}

/// The client may have rounded a larger number when it made a double of it.
fn number(number: f64) -> Result<Json, FieldError> {
    let place = String::new();
    if !number.is_finite() {
        return Err(FieldError::NotJsonNumber { place, number });
    }
    if number.abs() > MAX_EXACT_INTEGER as f64 {
        return Err(FieldError::InexactNumber { place, number });
    }
    if number.fract() == 0.0 {
        return Ok(Json::from(number as i64));
    }
    Ok(Json::from(number))
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

#[cfg(test)]
mod tests {
    use artel_task::portable::MAX_VALUE_DEPTH;
    use prost::Message as _;
    use serde_json::json;

    use super::{json as read, *};

    fn deep(depth: usize, around: fn(Json) -> Json) -> Json {
        (0..depth).fold(json!(1), |inner, _| around(inner))
    }

    #[test]
    fn a_value_survives_both_ways() {
        let json = json!({"a": [1, -2, 0.5, true, null, "x"], "b": {"c": MAX_EXACT_INTEGER, "d": 1e-300}});
        assert_eq!(read(&portable_value(&json).unwrap()), Ok(json));
    }

    #[test]
    fn a_double_that_may_be_a_rounded_integer_is_refused_with_its_place() {
        let refused = |json: Json| read(&value(&json)).unwrap_err().to_string();
        let message = refused(json!({"a/b": [0, 9_007_199_254_740_993_u64]}));
        assert!(message.starts_with("at /a~1b/1: 9007199254740992.0 "), "{message}");
        assert!(message.ends_with("write it as a string"), "{message}");
        assert!(refused(json!(-1e300)).contains("±9007199254740991"), "{}", refused(json!(-1e300)));
        let nan = prost_types::Value { kind: Some(Kind::NumberValue(f64::NAN)) };
        assert_eq!(read(&nan).unwrap_err().to_string(), "NaN is not a JSON number");
    }

    #[test]
    fn the_deepest_value_can_be_decoded_in_every_message() {
        let shapes: [fn(Json) -> Json; 2] = [|inner| json!([inner]), |inner| json!({"a": inner})];
        for around in shapes {
            let output =
                artel_proto::v1::Output { json: portable_value(&deep(MAX_VALUE_DEPTH, around)), ..Default::default() };
            assert!(output.json.is_some());
            let step = artel_proto::v1::Step { output: Some(output), ..Default::default() };
            let task = artel_proto::v1::Task { steps: vec![step], ..Default::default() };
            let page = artel_proto::v1::ListTasksResponse { tasks: vec![task], ..Default::default() };
            let bytes = page.encode_to_vec();
            assert_eq!(artel_proto::v1::ListTasksResponse::decode(bytes.as_slice()), Ok(page));
            assert_eq!(portable_value(&deep(MAX_VALUE_DEPTH + 1, around)), None);
            let message = read(&value(&deep(MAX_VALUE_DEPTH + 1, around))).unwrap_err().to_string();
            assert_eq!(message, "lists and objects nest 31 deep, the limit is 30");
        }
    }
}
