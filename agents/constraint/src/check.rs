//! Schemas of a catalog, before any model is loaded.

use std::sync::LazyLock;
use std::time::Duration;

use jsonschema::{Draft, PatternOptions};
use serde_json::Value;

use crate::byte_vocabulary::byte_vocabulary;
use crate::compiler::{COMPILE_TIMEOUT, Compiler};
use crate::error::{Error, shown};

/// The largest automaton of a pattern, as for the schemas of a catalog.
const MAX_PATTERN_AUTOMATON_BYTES: usize = 64 * 1024;

/// The decoder of no model.
static CHECKER: LazyLock<Result<Compiler, Error>> = LazyLock::new(|| Compiler::new(&byte_vocabulary()));

/// Whether a model can be held to this schema.
///
/// # Errors
/// No value satisfies it, or the decoder does not support it, or it takes more than a budget or the timeout.
pub fn check_output(schema: &Value, timeout: Duration) -> Result<(), Error> {
    CHECKER.as_ref().map_err(Clone::clone)?.rehearse_within(schema, timeout.min(COMPILE_TIMEOUT))
}

/// Whether the arguments of a call satisfy the schema of their tool, of which a decoder may have left something out.
///
/// # Errors
/// They do not, or it takes more than the timeout to tell.
pub fn check_arguments(schema: &Value, arguments: &str, timeout: Duration) -> Result<(), Error> {
    let (schema, arguments) = (schema.clone(), arguments.to_owned());
    let check = move || {
        let arguments: Value = serde_json::from_str(&arguments).map_err(|e| Error::Mismatch(shown(&e.to_string())))?;
        // Patterns of linear time: their input is written by a model, and they by a client.
        let patterns = PatternOptions::regex().size_limit(MAX_PATTERN_AUTOMATON_BYTES);
        let options = jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(patterns);
        let validator = options.build(&schema).map_err(|e| Error::Unsupported(shown(&e.to_string())))?;
        let checked = validator.validate(&arguments);
        checked.map_err(|e| Error::Mismatch(shown(&format!("at {}: {e}", e.instance_path()))))
    };
    CHECKER.as_ref().map_err(Clone::clone)?.within(timeout.min(COMPILE_TIMEOUT), check)
}

/// Whether any value satisfies this schema, which no model is held to. One that takes too long to tell is taken for satisfiable.
///
/// # Errors
/// No value satisfies it.
pub fn check_answer(schema: &Value, timeout: Duration) -> Result<(), Error> {
    match CHECKER.as_ref().map_err(Clone::clone)?.satisfiable_within(schema, timeout.min(COMPILE_TIMEOUT)) {
        Err(Error::Costly(_) | Error::Busy(_)) => Ok(()),
        checked => checked,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_checked_against_what_a_decoder_leaves_out() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}});
        let check = |arguments: &str| check_arguments(&schema, arguments, Duration::from_secs(5));
        assert_eq!(check("{\"a\": [1, 2]}"), Ok(()));
        assert!(matches!(check("{\"a\": [1, 1]}"), Err(Error::Mismatch(_))));
        assert!(matches!(check("{"), Err(Error::Mismatch(_))));
    }
}
