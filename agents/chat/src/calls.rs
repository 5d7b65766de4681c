//! Calls of tools, as models write them.
//!
//! A chat template renders the calls of a conversation's past; what a model writes has the same form. [`CallFormat::detect`] renders
//! probes and reads the form off the result. [`CallParser`] finds calls of that form in what a model writes; [`calls_grammar`] says
//! what it may write, so that arguments always fit the schema of their tool.

mod detect;
mod elements;
mod format;
mod grammar;
mod literal;
mod parser;
mod prompt;
mod trigger;

pub use format::{ArgumentFormat, CallFormat, CallPart, ElementFormat};
pub use grammar::{CallGrammar, calls_grammar};
pub use parser::{CallDelta, CallParser};
pub use prompt::ToolPrompt;
pub use trigger::{CallTrigger, TriggerMatch};
