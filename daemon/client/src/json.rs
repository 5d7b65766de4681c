//! The proto messages as JSON, the same for every command, by the descriptors of the contract: a new field is shown at once.
//!
//! Field names are those of the protos. A duration `x` becomes `x_ms` in milliseconds; a time is RFC 3339; an enum value is its
//! name in lower case without the prefix. Absent and empty fields are omitted; numbers, booleans, enums and `text` are always
//! present. A `oneof` is flat: its name has the name of the field that is set, whose own fields stand beside it.

mod enum_name;
mod event;

use std::sync::LazyLock;
use std::time::Duration;

use artel_proto::FILE_DESCRIPTOR_SET;
use artel_task::portable::MAX_EXACT_INTEGER;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind as FieldKind, MapKey, ReflectMessage as _,
};
use prost_types::Struct;
use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

pub(crate) use enum_name::EnumName;
pub(crate) use event::event;

/// The end of the name of every enum's value 0; what stands before it is the prefix of the others.
const UNSPECIFIED: &str = "UNSPECIFIED";

static CONTRACT: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build has checked the descriptors"));

/// A message with a JSON form.
pub(crate) trait ToJson {
    /// The message as JSON.
    fn to_json(&self) -> Value;
}

// The crate of the well-known types names a few of them only.
impl<M: Message + Name> ToJson for M {
    fn to_json(&self) -> Value {
        let descriptor = CONTRACT.get_message_by_name(&M::full_name()).expect("the descriptors have every message");
        let message = DynamicMessage::decode(descriptor, self.encode_to_vec().as_slice());
        message_value(&message.expect("a message is decoded by its own descriptor"))
    }
}

fn message_value(message: &DynamicMessage) -> Value {
    let transcoded = "a well-known type is decoded by its own descriptor";
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => {
            message.transcode_to::<prost_types::Timestamp>().expect(transcoded).to_string().into()
        }
        "google.protobuf.Duration" => millis(&message.transcode_to().expect(transcoded)),
        "google.protobuf.Struct" => struct_value(&message.transcode_to().expect(transcoded)),
        "google.protobuf.Value" => any_value(&message.transcode_to().expect(transcoded)),
        _ => Value::Object(fields(message)),
    }
}

fn fields(message: &DynamicMessage) -> Map<String, Value> {
    let mut object = Map::new();
    for field in message.descriptor().fields() {
        let is_set = message.has_field(&field);
        let is_shown = match field.kind() {
            _ if field.is_list() || field.is_map() || field.supports_presence() => is_set,
            FieldKind::String | FieldKind::Bytes => is_set || field.name() == "text",
            _ => true,
        };
        if !is_shown {
            continue;
        }
        let value = field_value(&message.get_field(&field), &field);
        match field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            Some(oneof) => {
                object.insert(oneof.name().to_owned(), field.name().into());
                match value {
                    Value::Object(inner) => object.extend(inner),
                    value => drop(object.insert(field.name().to_owned(), value)),
                }
            }
            // A duration is not negative.
            None if value.is_null() && is_duration(&field) => {}
            None if is_duration(&field) => drop(object.insert(format!("{}_ms", field.name()), value)),
            None => drop(object.insert(field.name().to_owned(), value)),
        }
    }
    object
}

fn is_duration(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), FieldKind::Message(message) if message.full_name() == "google.protobuf.Duration")
}

fn field_value(value: &prost_reflect::Value, field: &FieldDescriptor) -> Value {
    match value {
        prost_reflect::Value::Bool(value) => (*value).into(),
        prost_reflect::Value::I32(value) => (*value).into(),
        prost_reflect::Value::I64(value) => (*value).into(),
        prost_reflect::Value::U32(value) => (*value).into(),
        prost_reflect::Value::U64(value) => (*value).into(),
        // The shortest decimal that is this number, rather than that of the same number with 64 bits.
        prost_reflect::Value::F32(value) => value.to_string().parse::<f64>().unwrap_or(f64::from(*value)).into(),
        prost_reflect::Value::F64(value) => (*value).into(),
        prost_reflect::Value::String(text) => text.as_str().into(),
        prost_reflect::Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        prost_reflect::Value::EnumNumber(number) => match field.kind() {
            FieldKind::Enum(descriptor) => enum_value(&descriptor, *number),
            _ => (*number).into(),
        },
        prost_reflect::Value::Message(message) => message_value(message),
        prost_reflect::Value::List(values) => values.iter().map(|value| field_value(value, field)).collect(),
        prost_reflect::Value::Map(values) => {
            let mut pairs: Vec<(String, Value)> =
                values.iter().map(|(key, value)| (key_text(key), field_value(value, field))).collect();
            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(pairs.into_iter().collect())
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// The name of an enum's value. One that this program does not know yet is `unspecified`, as in the messages.
fn enum_value(descriptor: &EnumDescriptor, number: i32) -> Value {
    let default = descriptor.default_value();
    let value = descriptor.get_value(number);
    let name = value.as_ref().map_or(default.name(), |value| value.name());
    let prefix = default.name().strip_suffix(UNSPECIFIED).unwrap_or_default();
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().into()
}

/// Milliseconds, exact to the microsecond; a negative duration is null.
fn millis(time: &prost_types::Duration) -> Value {
    let Ok(time) = Duration::try_from(*time) else { return Value::Null };
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    if micros.is_multiple_of(1000) { (micros / 1000).into() } else { (micros as f64 / 1000.0).into() }
}

/// A `google.protobuf.Struct` as JSON.
pub(crate) fn struct_value(fields: &Struct) -> Value {
    Value::Object(fields.fields.iter().map(|(key, value)| (key.clone(), any_value(value))).collect())
}

fn any_value(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::NumberValue(value)) => number(*value),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(any_value).collect(),
        Some(Kind::StructValue(fields)) => struct_value(fields),
    }
}

/// A `google.protobuf.Value` carries every number as a double; whole numbers become integers again.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() <= MAX_EXACT_INTEGER as f64 {
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
    use artel_proto::v1;
    use serde_json::json;

    use super::*;
    use crate::render::sample::placement;

    #[test]
    fn values_survive_a_round_trip() {
        let value = json!({"a": [1, -2, 1.5, true, null, "x"], "b": {"c": 9_007_199_254_740_991_i64}});
        assert_eq!(any_value(&to_proto(&value)), value);
    }

    #[test]
    fn durations_are_milliseconds() {
        let queue = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        let timings = |queue| v1::Timings { queue, ..Default::default() }.to_json();
        assert_eq!(timings(queue(1, 250_000_000)), json!({"queue_ms": 1250}));
        assert_eq!(timings(queue(0, 3_214_567)), json!({"queue_ms": 3.214}));
        assert_eq!(timings(None), json!({}));
    }

    #[test]
    fn times_are_rfc_3339() {
        let time = prost_types::Timestamp { seconds: 1_767_225_600, nanos: 120_000_000 };
        assert_eq!(time.to_json(), json!("2026-01-01T00:00:00.120Z"));
    }

    #[test]
    fn an_enum_value_has_no_prefix_and_an_unknown_one_is_unspecified() {
        let device = |kind| v1::Device { kind, ..Default::default() }.to_json()["kind"].clone();
        assert_eq!(device(v1::DeviceKind::IntegratedGpu.into()), "integrated_gpu");
        assert_eq!(device(0), "unspecified");
        assert_eq!(device(4711), "unspecified");
    }

    #[test]
    fn empty_fields_are_omitted_and_numbers_optional_ones_and_text_are_not() {
        let monitor = v1::DeviceMonitor { utilization: Some(0.0), ..Default::default() };
        assert_eq!(monitor.to_json(), json!({"utilization": 0.0}));
        assert_eq!(v1::Output::default().to_json(), json!({"text": ""}));
        assert_eq!(v1::UnloadResponse::default().to_json(), json!({"freed_bytes": 0}));
    }

    #[test]
    fn a_placement_is_one_object() {
        let json = placement().to_json();
        assert_eq!(json["placed"][1]["split"], "layer");
        let share = json!({"device": "CUDA0", "share": 0.75, "bytes": 7_400_000_000_u64, "layers": 24, "weight_bytes": 0, "cache_bytes": 0});
        assert_eq!(json["placed"][1]["parts"][0], share);
        assert_eq!(json["unplaced"][0]["missing_bytes"], 2_200_000_000_u64);
        assert_eq!(json["unplaced"][1]["remedies"], Value::Null, "empty fields are omitted");
    }
}
