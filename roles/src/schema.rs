//! JSON schemas of outputs and answers, compiled on load.

mod client;
mod cost;
mod decodable;
mod format;
mod keyword;

use std::fmt;
use std::sync::Arc;

use artel_yaml::{Diagnostics, YamlNode, YamlValue, did_you_mean, shown};
use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::decode::list;
use crate::portable;
use cost::{MAX_CHECK_STEPS, MAX_REPORT_STEPS, Meter, SchemaSize, value_size};
use keyword::{MANY, NAMED, ONE, PLAIN};

pub use client::SchemaRefusal;
pub(crate) use decodable::SchemaUse;

/// The most parts of a schema that are schemas themselves: a large one has a hundred.
const MAX_SCHEMA_PARTS: usize = 1000;
/// The most patterns of a schema, and the largest automaton of one: all of them are kept in memory.
const MAX_PATTERN_ENTRIES: usize = 100;
const MAX_PATTERN_AUTOMATON_BYTES: usize = 64 * 1024;
/// The longest message about a mismatch: it becomes part of a prompt or a log line.
const MAX_MESSAGE_CHARS: usize = 300;

/// A schema of draft 2020-12 that accepts an object or one of an enumeration. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    json: Arc<Value>,
    validator: Arc<Validator>,
    /// How many schemas it consists of.
    part_count: usize,
}

/// Where a value does not match a schema, and why. Its message is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaMismatch {
    /// The place in the value, as a JSON pointer; empty for the value itself.
    pub place: String,
    /// Why it does not match.
    pub reason: String,
}

impl fmt::Display for SchemaMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, reason } = self;
        let text = if place.is_empty() { reason.clone() } else { format!("at {place}: {reason}") };
        f.write_str(&one_line(&text))
    }
}

impl std::error::Error for SchemaMismatch {}

impl Schema {
    /// The schema as JSON, its keys in the order of the YAML.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Checks a value.
    ///
    /// # Errors
    /// The value does not match, or the check takes more than its budget of steps.
    pub fn check(&self, value: &Value) -> Result<(), SchemaMismatch> {
        let reason = |text: String| SchemaMismatch { place: String::new(), reason: text };
        let least_steps = (self.part_count as u64).saturating_mul(value_size(value));
        let is_valid = cost::within(MAX_CHECK_STEPS, || cost::take(least_steps) && self.validator.is_valid(value));
        match is_valid {
            Some(true) => return Ok(()),
            Some(false) => {}
            None => {
                let text = format!(
                    "the check takes more than {MAX_CHECK_STEPS} steps: the value is too large for this schema, or the schema \
                     refers to itself in too many ways"
                );
                return Err(reason(text));
            }
        }
        // Every alternative that does not match is an error with errors inside, far larger than the value.
        let found = cost::within(MAX_REPORT_STEPS, || {
            let error = cost::take(least_steps).then(|| self.validator.validate(value).err()).flatten()?;
            Some(SchemaMismatch { place: error.instance_path().to_string(), reason: error.to_string() })
        });
        Err(found.flatten().unwrap_or_else(|| reason("it does not match the schema".to_owned())))
    }

    pub(crate) fn decode(node: &YamlNode, is_for: SchemaUse, report: &mut Diagnostics<'_>) -> Option<Self> {
        let YamlValue::Map(_) = node.value else {
            crate::decode::wrong(node, "`output` is a JSON schema, which is a map", report);
            return None;
        };
        if report.is_over_time(node.span) {
            return None;
        }
        let before = report.error_count();
        portable::check(node, report);
        let json = node.json();
        keywords(node, report);
        root(node, report);
        for error in jsonschema::draft202012::meta::validator().iter_errors(&json) {
            refuse(node, &error, report);
        }
        if report.error_count() > before {
            return None;
        }
        let SchemaSize { parts, patterns } = SchemaSize::of(&json);
        for (what, count, limit) in [("parts", parts, MAX_SCHEMA_PARTS), ("patterns", patterns, MAX_PATTERN_ENTRIES)] {
            if count > limit {
                report.error(node.span, format!("the schema has {count} {what}, the limit is {limit}"));
                return None;
            }
        }
        // Patterns of linear time: their input is written by a model.
        let patterns = PatternOptions::regex().size_limit(MAX_PATTERN_AUTOMATON_BYTES);
        let options = jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(patterns);
        let options = options.should_validate_formats(true);
        let options =
            options.with_keyword(cost::KEYWORD, move |_, _, _| Ok(Box::new(Meter { part_count: parts as u64 })));
        let validator = match options.build(&cost::metered(&json)) {
            Ok(validator) => Arc::new(validator),
            Err(error) => {
                refuse(node, &error, report);
                return None;
            }
        };
        let is_decodable = decodable::check(node, &json, is_for, report);
        is_decodable.then(|| Self { json: Arc::new(json), validator, part_count: parts })
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.json)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

/// Reports a validator's error about a schema, the two most common ones in plainer words.
fn refuse(node: &YamlNode, error: &ValidationError<'_>, report: &mut Diagnostics<'_>) {
    const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];
    let place = node.pointer(error.instance_path().as_str());
    match (error.kind(), &place.value) {
        (ValidationErrorKind::AnyOf { .. }, YamlValue::Str(word, _)) if !TYPES.contains(&word.as_str()) => {
            let hint = did_you_mean(word, TYPES).unwrap_or_else(|| format!("the types are {}", list(&TYPES)));
            report.error_with_hint(place.span, format!("bad schema: there is no type `{}`", shown(word)), hint);
        }
        (ValidationErrorKind::Format { format }, YamlValue::Str(text, _)) if format == "regex" => {
            let message = format!("bad schema: `{}` is no pattern that this program supports", shown(text));
            report.error_with_hint(
                place.span,
                message,
                "look-around and back-references are not available in patterns",
            );
        }
        _ => report.error(place.span, format!("bad schema: {}", one_line(&error.to_string()))),
    }
}

/// A validator's message, cut and on one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect()
}

fn root(node: &YamlNode, report: &mut Diagnostics<'_>) {
    let is_object = matches!(node.get("type").map(|t| &t.value), Some(YamlValue::Str(t, _)) if t == "object");
    if !is_object && node.get("enum").is_none() {
        let place = node.get("type").map_or(node.span, |t| t.span);
        report.error_with_hint(
            place,
            "the schema must describe an object or an enumeration",
            "begin with `type: object`, or list the answers in `enum: [...]`",
        );
    }
}

/// JSON schema ignores keywords that it does not know, so a misspelt limit would silently be none.
fn keywords(node: &YamlNode, report: &mut Diagnostics<'_>) {
    let YamlValue::Map(entries) = &node.value else { return };
    for entry in entries {
        let key = entry.key.as_str();
        if ONE.contains(&key) {
            keywords(&entry.value, report);
        } else if MANY.contains(&key) {
            children(&entry.value).for_each(|child| keywords(child, report));
        } else if NAMED.contains(&key) {
            children(&entry.value).for_each(|child| keywords(child, report));
        } else if !PLAIN.contains(&key) {
            let known = ONE.iter().chain(&MANY).chain(&NAMED).chain(&PLAIN).copied();
            report.push_error(
                entry.key_span,
                format!("unknown schema keyword `{}`", shown(key)),
                did_you_mean(key, known),
            );
        } else if key == "format" {
            format::check(&entry.value, report);
        } else if let ("$ref", YamlValue::Str(target, _)) = (key, &entry.value.value)
            && !target.starts_with('#')
        {
            let message = format!("`$ref` leads out of the schema, to `{}`", shown(target));
            report.error_with_hint(
                entry.value.span,
                message,
                "nothing is fetched; put it under `$defs` and write `#/$defs/name`",
            );
        }
    }
}

fn children(node: &YamlNode) -> Box<dyn Iterator<Item = &YamlNode> + '_> {
    match &node.value {
        YamlValue::List(items) => Box::new(items.iter()),
        YamlValue::Map(entries) => Box::new(entries.iter().map(|e| &e.value)),
        _ => Box::new(std::iter::empty()),
    }
}
