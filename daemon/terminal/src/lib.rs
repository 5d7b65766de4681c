//! What the commands write: text with styles, tables, JSON lines, a status line, and exit codes.
//!
//! A command hands over a JSON object and a function that renders the same as text; the flags of the command line decide
//! which of them is written, and whether in colour. What the text is about is not known here: no protocol, no catalog.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod outcome;
mod output;
mod readings;
mod styled_text;
mod table;
mod time;

pub use outcome::CommandOutcome;
pub use output::{CommandOutput, output_failed, print_error, print_to_stderr};
pub use readings::DeviceReadings;
pub use styled_text::{BAD, BOLD, DIM, GOOD, StyledText, WARN, brief, column_width, one_line};
pub use table::{TextTable, cell};
pub use time::span;

/// A size in bytes, as every verb writes it.
pub use artel_model::format_bytes as bytes;
