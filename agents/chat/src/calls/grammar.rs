//! What a model may write when it calls tools.

use artel_model::{Tool, ToolSet};
use serde_json::{Map, Value};

use super::elements::{ValueForm, value_form};
use super::format::{ArgumentFormat, CallFormat, CallPart, ElementFormat};

/// The length of the ids that a model makes up: Mistral's templates refuse others.
const ID_CHARS: usize = 9;

/// A grammar of texts, for a constraint of decoding.
#[derive(Debug, Clone, PartialEq)]
pub enum CallGrammar {
    /// This text; what is the text of a control token in it is that token.
    Text(String),
    /// A text that matches this regular expression as a whole.
    Pattern(String),
    /// JSON that satisfies this schema.
    Json(Value),
    /// Any text up to this one, which is part of it.
    Through(String),
    /// One after the other.
    Sequence(Vec<Self>),
    /// One of them.
    Choice(Vec<Self>),
    /// Nothing, or this.
    Optional(Box<Self>),
    /// Any number of times.
    Repeat(Box<Self>),
}

/// What a model may write when it calls tools; none if it may call none. With the schema of an answer, that is allowed instead, unless a
/// call is required.
pub fn calls_grammar(format: &CallFormat, set: &ToolSet, answer: Option<&Value>) -> Option<CallGrammar> {
    let calls: Vec<CallGrammar> = set.callable().map(|tool| call(format, tool)).collect();
    if calls.is_empty() {
        return answer.map(|schema| CallGrammar::Json(schema.clone()));
    }
    let begin = CallGrammar::Choice(format.begins.iter().map(|begin| parts(begin)).collect());
    let call = CallGrammar::Sequence(vec![begin, CallGrammar::Choice(calls)]);
    let mut all = vec![text(&format.section_begin), call.clone()];
    if let Some(separator) = format.separator.as_ref().filter(|_| !set.single) {
        all.push(CallGrammar::Repeat(Box::new(CallGrammar::Sequence(vec![text(separator), call]))));
    }
    all.push(text(&format.section_end));
    let calls = CallGrammar::Sequence(all);
    match answer.filter(|_| !set.must_call()) {
        Some(schema) => Some(CallGrammar::Choice(vec![calls, CallGrammar::Json(schema.clone())])),
        None => Some(calls),
    }
}

/// A call from its name on.
fn call(format: &CallFormat, tool: &Tool) -> CallGrammar {
    let name_ends = CallGrammar::Choice(format.name_ends.iter().map(|end| parts(end)).collect());
    let parameters = closed(&tool.parameters);
    let arguments = match &format.arguments {
        ArgumentFormat::Json => CallGrammar::Json(parameters),
        ArgumentFormat::Elements(element) => elements(element, &parameters),
    };
    CallGrammar::Sequence(vec![text(&tool.name), name_ends, arguments, parts(&format.end)])
}

/// Parameters as an object that has no others than those it names: a model does not make up arguments.
fn closed(parameters: &Value) -> Value {
    const OPEN: [&str; 14] = [
        "additionalProperties",
        "unevaluatedProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "$ref",
        "$dynamicRef",
        "dependentSchemas",
        "dependentRequired",
    ];
    let mut parameters = parameters.clone();
    if let Some(map) = parameters.as_object_mut() {
        map.entry("type").or_insert_with(|| Value::from("object"));
        let properties = map.get("properties").and_then(Value::as_object);
        let named =
            |name: &Value| properties.is_some_and(|all| name.as_str().is_some_and(|name| all.contains_key(name)));
        let requires_named = map.get("required").and_then(Value::as_array).is_none_or(|all| all.iter().all(named));
        if requires_named && !OPEN.iter().any(|key| map.contains_key(*key)) {
            map.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }
    parameters
}

/// Arguments in the order of the schema, those that are not required or not.
fn elements(format: &ElementFormat, parameters: &Value) -> CallGrammar {
    let empty = Map::new();
    let properties = parameters.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required = parameters.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut all = Vec::new();
    for (name, schema) in properties {
        let end = CallGrammar::Through(format.end.trim_start().to_owned());
        let value = match value_form(schema) {
            ValueForm::Text => match schema.get("enum").and_then(Value::as_array) {
                None => vec![text(&format.string_name_end), end],
                Some(values) => {
                    let values = values.iter().filter_map(Value::as_str).map(text).collect();
                    vec![text(&format.string_name_end), CallGrammar::Choice(values), end_of(format)]
                }
            },
            form => {
                let name_end = if form == ValueForm::Json { &format.json_name_end } else { &format.string_name_end };
                vec![text(name_end), CallGrammar::Json(with_definitions(schema, parameters)), end_of(format)]
            }
        };
        let mut element = vec![text(&format.begin), text(name)];
        element.extend(value);
        let element = CallGrammar::Sequence(element);
        let is_required = required.iter().any(|of| of == name);
        all.push(if is_required { element } else { CallGrammar::Optional(Box::new(element)) });
    }
    CallGrammar::Sequence(all)
}

fn end_of(format: &ElementFormat) -> CallGrammar {
    text(&format.end)
}

/// The schema of one property with the definitions that it may refer to.
fn with_definitions(schema: &Value, root: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(map) = schema.as_object_mut() {
        for key in ["$defs", "definitions"] {
            if let Some(definitions) = root.get(key) {
                map.entry(key).or_insert_with(|| definitions.clone());
            }
        }
    }
    schema
}

fn text(text: &str) -> CallGrammar {
    CallGrammar::Text(text.to_owned())
}

fn parts(parts: &[CallPart]) -> CallGrammar {
    let part = |part: &CallPart| match part {
        CallPart::Text(of) => text(of),
        CallPart::Id => CallGrammar::Pattern(format!("[a-zA-Z0-9]{{{ID_CHARS}}}")),
        CallPart::Index => CallGrammar::Pattern("[0-9]{1,3}".to_owned()),
    };
    CallGrammar::Sequence(parts.iter().map(part).collect())
}
