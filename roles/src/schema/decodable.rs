//! Whether any value satisfies a schema, and whether a model can be held to it: the decoder is asked.

use std::time::Duration;

use artel_constraint::{Error, check_answer, check_output};
use artel_yaml::{Diagnostics, YamlNode};
use serde_json::Value;

/// Whose values a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchemaUse {
    /// A model's, which is held to it while it decodes.
    Output,
    /// The same, and it was checked before.
    Checked,
    /// A person's.
    Answer,
}

/// The longest time for one schema of the directory. Schemas in use take some milliseconds.
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(5);

/// Reports why no value can be had; true if there is nothing to report.
pub(super) fn check(node: &YamlNode, schema: &Value, is_for: SchemaUse, report: &mut Diagnostics<'_>) -> bool {
    let timeout = report.time_left().unwrap_or(SCHEMA_TIMEOUT).min(SCHEMA_TIMEOUT);
    let checked = match is_for {
        SchemaUse::Output => check_output(schema, timeout),
        SchemaUse::Answer => check_answer(schema, timeout),
        SchemaUse::Checked => return true,
    };
    let Err(error) = checked else { return true };
    // One that is cut by the time of its client is not to blame.
    if report.is_over_time(node.span) {
        return false;
    }
    let (span, hint) = match &error {
        Error::Unsatisfiable { place, .. } => {
            (node.pointer(place).span, "loosen or remove one of the keywords, so that a value is left")
        }
        Error::Unsupported(_) => (node.span, "describe the output with other keywords of JSON schema"),
        Error::Costly(_) => (node.span, "make it smaller, or its patterns and bounds simpler"),
        // No value is checked here, so that none can mismatch.
        Error::Busy(_) | Error::Mismatch(_) => (node.span, "check the catalog again"),
    };
    report.error_with_hint(span, format!("bad schema: {error}"), hint);
    false
}
