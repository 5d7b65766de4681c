//! `template_kwargs` of models and roles: variables of a chat template, such as `enable_thinking`.

use std::sync::Arc;

use artel_yaml::{Diagnostics, YamlNode, YamlValue, shown};
use serde_json::{Map, Value as Json};

/// The most variables of one model or role; a chat template knows a handful.
const MAX_VARIABLE_ENTRIES: usize = 32;
/// The longest name of a variable.
const MAX_NAME_BYTES: usize = 64;
/// The largest value of a variable, as JSON.
const MAX_VALUE_BYTES: usize = 4096;
/// What a conversation says itself.
const RESERVED: [&str; 8] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
    "strftime_now",
    "raise_exception",
];

/// Variables of a chat template.
pub type TemplateKwargs = Arc<Map<String, Json>>;

pub(crate) fn decode(node: &YamlNode, report: &mut Diagnostics<'_>) -> TemplateKwargs {
    let YamlValue::Map(entries) = &node.value else {
        crate::decode::wrong(node, "`template_kwargs` is a map of variables of the chat template", report);
        return TemplateKwargs::default();
    };
    if entries.len() > MAX_VARIABLE_ENTRIES {
        report.error(
            node.span,
            format!("`template_kwargs` has {} variables, and at most {MAX_VARIABLE_ENTRIES}", entries.len()),
        );
        return TemplateKwargs::default();
    }
    let mut kwargs = Map::new();
    for entry in entries {
        let (name, value) = (&entry.key, entry.value.json());
        if let Some(problem) = problem_of_name(name) {
            report.error(entry.key_span, format!("`{}` in `template_kwargs` {problem}", shown(name)));
        } else if value.to_string().len() > MAX_VALUE_BYTES {
            let message = format!("`{name}` in `template_kwargs` has more than {MAX_VALUE_BYTES} bytes as JSON");
            report.error(entry.value.span, message);
        } else {
            kwargs.insert(name.clone(), value);
        }
    }
    Arc::new(kwargs)
}

fn problem_of_name(name: &str) -> Option<&'static str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.len() > MAX_NAME_BYTES || !name.chars().all(is_word) || !name.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        return Some("is no name: it begins with a letter and has at most 64 letters, digits and `_`");
    }
    RESERVED.contains(&name).then_some("is what the conversation says itself")
}
