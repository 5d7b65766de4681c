//! Arguments that are written as an element each, read as a JSON object.

use artel_model::Tool;
use serde_json::Value;

use super::format::{CallPart, ElementFormat};
use super::literal::{self, Match};

/// Reads the arguments of one call.
#[derive(Debug, Clone)]
pub(crate) struct ElementReader {
    tool: Option<Tool>,
    names: Vec<String>,
}

/// What some bytes are.
pub(crate) enum ElementStep {
    /// More is needed.
    Wait,
    /// An argument of so many bytes, as a part of a JSON object.
    Element(usize, String),
    /// All arguments; the end of the object.
    Complete(String),
    Invalid,
}

impl ElementReader {
    pub(crate) fn new(tool: Option<Tool>) -> Self {
        Self { tool, names: Vec::new() }
    }

    pub(crate) fn step(&mut self, format: &ElementFormat, end: &[CallPart], bytes: &[u8]) -> ElementStep {
        let begun = match literal::literal(&format.begin, bytes) {
            Match::Full(count) => count,
            Match::Partial => return ElementStep::Wait,
            Match::No => {
                return match literal::parts(end, bytes) {
                    // Its beginning is enough: what ends an answer may be left out.
                    Match::Full(_) => ElementStep::Complete(if self.names.is_empty() { "{}" } else { "}" }.to_owned()),
                    Match::Partial => ElementStep::Wait,
                    Match::No => ElementStep::Invalid,
                };
            }
        };
        let rest = &bytes[begun..];
        let Some((name_bytes, behind, is_text)) = name_end(format, rest) else { return ElementStep::Wait };
        let Ok(name) = std::str::from_utf8(&rest[..name_bytes]) else { return ElementStep::Invalid };
        let name = name.trim();
        let value = &rest[behind..];
        let close = format.end.trim();
        let Some(value_bytes) = literal::find(close.as_bytes(), value) else { return ElementStep::Wait };
        let Ok(text) = std::str::from_utf8(&value[..value_bytes]) else { return ElementStep::Invalid };
        if name.is_empty() || self.names.iter().any(|known| known == name) {
            return ElementStep::Invalid;
        }
        let text = without_frame(text, format);
        let schema = self.tool.as_ref().and_then(|tool| tool.parameters.pointer("/properties")?.get(name));
        let value = read_value(text, schema, is_text);
        let open = if self.names.is_empty() { '{' } else { ',' };
        let told = format!("{open}{}:{value}", Value::from(name));
        self.names.push(name.to_owned());
        ElementStep::Element(begun + behind + value_bytes + close.len(), told)
    }
}

/// The bytes of a name, those up to the value, and whether the value is said to be text. None if more must come.
fn name_end(format: &ElementFormat, bytes: &[u8]) -> Option<(usize, usize, Option<bool>)> {
    let ends = [(&format.string_name_end, true), (&format.json_name_end, false)];
    let is_told = format.string_name_end != format.json_name_end;
    let found = |end: &str| {
        let end = end.trim_end();
        let at = literal::find(end.trim_start().as_bytes(), bytes)?;
        Some((at, at + end.trim_start().len()))
    };
    let found = ends.iter().filter_map(|(end, is_text)| Some((found(end)?, *is_text)));
    let ((at, behind), is_text) = found.min_by_key(|((at, _), _)| *at)?;
    Some((at, behind, is_told.then_some(is_text)))
}

/// A value without the line breaks that belong to the marks around it.
fn without_frame<'t>(text: &'t str, format: &ElementFormat) -> &'t str {
    let space = |text: &str| text[text.trim_end().len()..].to_owned();
    let (open, close) =
        (space(&format.string_name_end), format.end[..format.end.len() - format.end.trim_start().len()].to_owned());
    let text = text.strip_prefix(open.as_str()).unwrap_or(text);
    text.strip_suffix(close.as_str()).unwrap_or(text)
}

/// A value as JSON: a string as it is, others as JSON or as Python writes them.
fn read_value(text: &str, schema: Option<&Value>, is_text: Option<bool>) -> Value {
    let as_json = || {
        let python = match text.trim() {
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            "None" => Some(Value::Null),
            _ => None,
        };
        python.or_else(|| serde_json::from_str(text.trim()).ok())
    };
    match (is_text, schema.map(value_form)) {
        (_, Some(ValueForm::Text)) | (Some(true), None) => Value::from(text),
        (_, Some(ValueForm::QuotedText)) => as_json().filter(Value::is_string).unwrap_or_else(|| Value::from(text)),
        _ => as_json().unwrap_or_else(|| Value::from(text)),
    }
}

/// How the values of a schema are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueForm {
    /// A string as it is.
    Text,
    /// A string that is held to more than its type: as JSON, since only that can be held to it.
    QuotedText,
    /// JSON.
    Json,
}

/// Keywords that say nothing of a value.
const ANNOTATIONS: [&str; 8] =
    ["type", "title", "description", "default", "examples", "$comment", "deprecated", "enum"];

/// How the values of a schema are written.
pub(crate) fn value_form(schema: &Value) -> ValueForm {
    let Some(map) = schema.as_object().filter(|map| map.get("type").is_some_and(|of| of == "string")) else {
        return ValueForm::Json;
    };
    let is_plain = map.keys().all(|key| ANNOTATIONS.contains(&key.as_str()));
    let has_texts = map.get("enum").and_then(Value::as_array).is_none_or(|all| all.iter().all(Value::is_string));
    if is_plain && has_texts { ValueForm::Text } else { ValueForm::QuotedText }
}
