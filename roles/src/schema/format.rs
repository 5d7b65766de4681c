//! The formats of texts: those that are checked, and those that say how a text is meant.

use artel_yaml::{Diagnostics, YamlNode, YamlValue, did_you_mean, shown};

/// The formats of draft 2020-12, to which outputs and answers are held.
const CHECKED: [&str; 17] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "iri",
    "iri-reference",
    "json-pointer",
    "regex",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "uuid",
];
/// The formats of OpenAPI, which say how a value is stored or shown.
const TOLD: [&str; 7] = ["binary", "byte", "double", "float", "int32", "int64", "password"];

/// JSON schema ignores formats that it does not know, so a misspelt one would silently be none.
pub(super) fn check(node: &YamlNode, report: &mut Diagnostics<'_>) {
    let YamlValue::Str(name, _) = &node.value else { return };
    let name = name.as_str();
    if CHECKED.contains(&name) || TOLD.contains(&name) {
        return;
    }
    let message = format!("there is no format `{}` that a text could be held to", shown(name));
    let hint = did_you_mean(name, CHECKED).unwrap_or_else(|| "say it with `pattern`, or remove it".to_owned());
    report.warn(node.span, message, hint);
}
