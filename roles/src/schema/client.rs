//! Schemas that clients send with a task.

use std::time::Duration;

use artel_yaml::{Diagnostics, Problems, Span, TextStyle, YamlEntry, YamlNode, YamlSource, YamlValue};
use serde_json::Value;

use super::{Schema, SchemaUse};

/// Why a client's schema is refused, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaRefusal(String);

impl Schema {
    /// A schema of an output, checked as that of a role: among other things, whether the decoder can be held to it. Takes up to
    /// some seconds.
    ///
    /// # Errors
    /// It is refused.
    pub fn of_client(json: Value) -> Result<Self, SchemaRefusal> {
        compile(json, SchemaUse::Output)
    }

    /// Checks the schema of a tool's arguments: whether any object satisfies it, and whether a model can be held to it while it
    /// decodes. Keywords that say nothing to the decoder are allowed: the client keeps to them. Whether it was checked: not while
    /// too many others are.
    ///
    /// # Errors
    /// It is refused, or its check takes longer than this.
    pub fn check_parameters(json: &Value, timeout: Duration) -> Result<bool, SchemaRefusal> {
        match artel_constraint::check_output(json, timeout) {
            Ok(()) => Ok(true),
            Err(artel_constraint::Error::Busy(_)) => Ok(false),
            Err(error) => Err(SchemaRefusal(error.to_string())),
        }
    }

    /// A schema of a task, which was checked when the task was accepted. Takes some milliseconds.
    ///
    /// # Errors
    /// An earlier version accepted it, and this one does not.
    pub fn of_task(json: Value) -> Result<Self, SchemaRefusal> {
        compile(json, SchemaUse::Checked)
    }
}

fn compile(json: Value, is_for: SchemaUse) -> Result<Schema, SchemaRefusal> {
    let node = located(json);
    let source = YamlSource { path: "response".to_owned(), dir: None, text: String::new() };
    let mut report = Diagnostics::new(&source);
    if let Some(schema) = Schema::decode(&node, is_for, &mut report) {
        return Ok(schema);
    }
    let problems = Problems::warnings([report]).err();
    let problem = problems.iter().flat_map(|problems| problems.iter()).next();
    Err(SchemaRefusal(match problem {
        None => "is no schema".to_owned(),
        Some(problem) => match &problem.hint {
            Some(hint) => format!("{}: {hint}", problem.message),
            None => problem.message.clone(),
        },
    }))
}

/// A tree without places: the client has no file.
fn located(json: Value) -> YamlNode {
    let value = match json {
        Value::Null => YamlValue::Null,
        Value::Bool(value) => YamlValue::Bool(value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => YamlValue::Int(integer),
            None => YamlValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => YamlValue::Str(text, TextStyle::Flow),
        Value::Array(items) => YamlValue::List(items.into_iter().map(located).collect()),
        Value::Object(fields) => YamlValue::Map(fields.into_iter().map(entry).collect()),
    };
    YamlNode { span: Span::default(), value }
}

fn entry((key, value): (String, Value)) -> YamlEntry {
    YamlEntry { key, key_span: Span::default(), refused: false, value: located(value) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_parameters_of_a_tool_need_an_object_that_a_model_can_be_held_to() {
        let schema = json!({"type": "object", "title": "T", "x-order": 1, "properties": {"a": {"type": "integer"}}});
        assert_eq!(Schema::check_parameters(&schema, Duration::from_secs(5)), Ok(true));
        let empty = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}});
        assert!(Schema::check_parameters(&empty, Duration::from_secs(5)).is_err());
    }

    #[test]
    fn a_clients_schema_is_held_to_the_rules_of_a_role() {
        let schema =
            json!({"type": "object", "required": ["b", "a"], "properties": {"b": {"type": "integer"}, "a": {}}});
        assert_eq!(Schema::of_client(schema.clone()).unwrap().json(), &schema);
        assert!(Schema::of_task(schema).unwrap().check(&json!({"b": 1, "a": null})).is_ok());
        let refused = |schema| Schema::of_client(schema).unwrap_err().to_string();
        assert!(
            refused(json!({"type": "string"})).starts_with("the schema must describe an object or an enumeration: ")
        );
        assert!(refused(json!({"type": "object", "minLenght": 3})).contains("unknown schema keyword `minLenght`"));
        assert!(refused(json!([1])).starts_with("`output` is a JSON schema"));
        let empty = json!({"type": "object", "required": ["a"], "properties": {"a": {"enum": []}}});
        assert!(!refused(empty).is_empty());
    }
}
