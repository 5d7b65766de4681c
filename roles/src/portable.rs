//! Values of YAML that clients receive as JSON: the schema of an answer, and the answer after a deadline.

use artel_task::portable::{MAX_EXACT_INTEGER, MAX_VALUE_DEPTH};
use artel_yaml::{Diagnostics, YamlNode, YamlValue};

/// Reports the parts of a value that no client would receive as they are.
pub(crate) fn check(node: &YamlNode, report: &mut Diagnostics<'_>) {
    check_at(node, 0, report);
}

fn check_at(node: &YamlNode, depth: usize, report: &mut Diagnostics<'_>) {
    let children: Vec<&YamlNode> = match &node.value {
        YamlValue::Int(integer) if integer.unsigned_abs() > MAX_EXACT_INTEGER => {
            let message =
                format!("the integer {integer} exceeds ±{MAX_EXACT_INTEGER}, beyond which clients round integers");
            return report.error_with_hint(node.span, message, "put it in quotes, as text");
        }
        YamlValue::Float(number) if !number.is_finite() => {
            return report.error(node.span, format!("{number} is not a number of JSON"));
        }
        YamlValue::List(items) => items.iter().collect(),
        YamlValue::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
        _ => return,
    };
    if depth == MAX_VALUE_DEPTH {
        return report.error(node.span, format!("lists and maps of a value nest deeper than {MAX_VALUE_DEPTH}"));
    }
    children.into_iter().for_each(|child| check_at(child, depth + 1, report));
}
