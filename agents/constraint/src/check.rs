//! Schemas of a catalog, before any model is loaded.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use crate::byte_vocabulary::byte_vocabulary;
use crate::compiler::{COMPILE_TIMEOUT, Compiler};
use crate::error::Error;

/// The decoder of no model.
static CHECKER: LazyLock<Result<Compiler, Error>> = LazyLock::new(|| Compiler::new(&byte_vocabulary()));

/// Whether a model can be held to this schema.
///
/// # Errors
/// No value satisfies it, or the decoder does not support it, or it takes more than a budget or the timeout.
pub fn check_output(schema: &Value, timeout: Duration) -> Result<(), Error> {
    CHECKER.as_ref().map_err(Clone::clone)?.rehearse_within(schema, timeout.min(COMPILE_TIMEOUT))
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
