//! Why a schema cannot constrain an output.

use std::fmt;

/// The longest part of a message that is a library's own, which may repeat the schema.
const MAX_MESSAGE_CHARS: usize = 300;

/// Why a schema cannot constrain an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No value satisfies it, or none that ends.
    #[error("no value satisfies the schema: {}{reason}", at(.place))]
    Unsatisfiable {
        /// The part that excludes all values, as a JSON pointer into the schema; empty for the schema as a whole.
        place: String,
        /// What excludes them.
        reason: String,
    },
    /// The decoder lacks something without which the rest says nothing.
    #[error("the schema is not supported for constrained decoding: {0}")]
    Unsupported(String),
    /// It exceeds a budget of time or memory.
    #[error("the schema takes too much work or memory as a constraint of an output: {0}")]
    Costly(String),
    /// A value does not satisfy it.
    #[error("{0}")]
    Mismatch(String),
    /// Another schema takes too long at the moment; this one may be compiled later.
    #[error("{0}")]
    Busy(String),
}

/// A place for the beginning of a message: `at /a/0: `, or nothing for the schema itself.
fn at(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("at {}: ", shown(place)) }
}

impl Error {
    /// The error of a schema that cannot constrain an output any further.
    pub(crate) fn costly(error: &dyn fmt::Display) -> Self {
        Self::Costly(shown(&error.to_string()))
    }
}

/// The first line of a library's message, cut; after a panic, a backtrace follows.
pub(crate) fn shown(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect()
}
