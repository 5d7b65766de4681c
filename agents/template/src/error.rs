//! Why a template is refused, or cannot be rendered. Each message is one line and names the budget, where there is one.

use std::ops::Range;

use artel_task::deep_stack;
use minijinja::ErrorKind;

use crate::MAX_SOURCE_CHARS;
use crate::chains::MAX_TAG_PARTS;
use crate::render_budget::RenderBudget;

/// Why a template is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTemplate {
    /// The template is too long.
    #[error("the template has more than {MAX_SOURCE_CHARS} characters")]
    TooLong,
    /// A chain of operators on which the compiler would recurse too deeply; the place of the first one that is too many.
    #[error("a tag of the template has more than {MAX_TAG_PARTS} operators and brackets")]
    Chain(Range<usize>),
    /// It is no template; the place of the fault, in bytes, where it is known.
    #[error("{}", sentence(.0))]
    Syntax(minijinja::Error, Option<Range<usize>>),
    /// It could not be parsed at all.
    #[error("the template could not be read: {0}")]
    Stack(#[from] deep_stack::Error),
}

/// Why a template could not be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// It reads a missing value, or applies something to a value of a wrong type.
    #[error("{}", sentence(.0))]
    Template(minijinja::Error),
    /// It does too much: the most instructions.
    #[error("the template executes more than {0} instructions; 64 bytes that it makes or reads count as one more")]
    TooMuch(u64),
    /// The text is too long: its most bytes.
    #[error("the text has more than {0} bytes")]
    TooLong(usize),
    /// The text is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// It could not be rendered at all.
    #[error("the template could not be rendered: {0}")]
    Stack(#[from] deep_stack::Error),
}

impl RenderError {
    pub(crate) fn of(error: minijinja::Error, budget: RenderBudget) -> Self {
        match error.kind() {
            ErrorKind::WriteFailure => Self::TooLong(budget.text_bytes),
            ErrorKind::OutOfFuel => Self::TooMuch(budget.instructions),
            _ => Self::Template(error),
        }
    }
}

fn sentence(error: &minijinja::Error) -> String {
    let mut text = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some(line) = error.line() {
        text.push_str(&format!(" (line {line} of the template)"));
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
