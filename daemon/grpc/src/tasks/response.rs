//! Parses the form that a client wants an answer to have.

use artel_proto::v1;
use artel_proto::v1::response_format::{Format, Kind};
use artel_task::event::ResponseFormat;
use artel_task::portable;
use prost_types::value::Kind as ValueKind;
use serde_json::Value;

use crate::field_error::FieldError;
use crate::status::Violations;
use crate::value::json;

/// The largest schema, as JSON: those of hundreds of fields have some kilobytes.
const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// Parses the form; `path` is its field. `None` if something is wrong. Whether the schema can be satisfied is checked with the task.
pub(super) fn parse(given: v1::ResponseFormat, path: &str, violations: &mut Violations) -> Option<ResponseFormat> {
    let (field, parsed) = match given.format {
        None => {
            violations.add(path, "is empty: name a kind or a schema");
            return None;
        }
        Some(Format::Kind(number)) => match Kind::try_from(number) {
            Ok(Kind::Text) => return Some(ResponseFormat::Text),
            Ok(Kind::JsonObject) => return Some(ResponseFormat::JsonObject),
            Ok(Kind::Unspecified) | Err(_) => {
                violations.add(&format!("{path}.kind"), format!("unknown kind {number}"));
                return None;
            }
        },
        Some(Format::JsonSchema(schema)) => {
            let value = prost_types::Value { kind: Some(ValueKind::StructValue(schema)) };
            ("json_schema", json(&value))
        }
        Some(Format::JsonSchemaText(text)) => ("json_schema_text", schema_of_text(&text)),
    };
    let field = format!("{path}.{field}");
    let schema = violations.check(&field, parsed)?;
    let bytes = schema.to_string().len();
    if bytes > MAX_SCHEMA_BYTES {
        violations.add(&field, FieldError::TooLong { bytes, limit: MAX_SCHEMA_BYTES });
        return None;
    }
    Some(ResponseFormat::JsonSchema(schema))
}

fn schema_of_text(text: &str) -> Result<Value, FieldError> {
    if text.len() > MAX_SCHEMA_BYTES {
        return Err(FieldError::TooLong { bytes: text.len(), limit: MAX_SCHEMA_BYTES });
    }
    portable::parse(text).map_err(|error| FieldError::NotJson(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(format: Format) -> Result<ResponseFormat, String> {
        let mut violations = Violations::default();
        let parsed = parse(v1::ResponseFormat { format: Some(format) }, "response", &mut violations);
        match violations.finish() {
            Ok(()) => Ok(parsed.unwrap()),
            Err(status) => Err(status.message().to_owned()),
        }
    }

    #[test]
    fn a_schema_as_text_keeps_its_order() {
        let text = r#"{"type": "object", "properties": {"why": {}, "answer": {}}}"#;
        let Ok(ResponseFormat::JsonSchema(schema)) = parsed(Format::JsonSchemaText(text.to_owned())) else { panic!() };
        let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["why", "answer"]);
        assert_eq!(parsed(Format::Kind(Kind::JsonObject.into())), Ok(ResponseFormat::JsonObject));
        assert_eq!(ResponseFormat::JsonObject.schema(), Some(json!({"type": "object"})));
    }

    #[test]
    fn what_is_no_schema_of_a_client_is_refused_with_its_field() {
        assert_eq!(parsed(Format::Kind(7)), Err("response.kind: unknown kind 7".to_owned()));
        let long = format!("{{\"description\": \"{}\"}}", "x".repeat(MAX_SCHEMA_BYTES));
        let refused = parsed(Format::JsonSchemaText(long)).unwrap_err();
        assert!(refused.starts_with("response.json_schema_text: has 65"), "{refused}");
        assert!(refused.ends_with("the limit is 65536"), "{refused}");
        let refused = parsed(Format::JsonSchemaText("{".to_owned())).unwrap_err();
        assert!(refused.starts_with("response.json_schema_text: "), "{refused}");
    }
}
