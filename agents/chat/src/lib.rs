//! What a chat model writes, told apart: reasoning and answer, by the marks of its chat template.
//!
//! [`ReasoningMarks`] are found by rendering a few conversations with the template. [`MarkPatterns`] are the same marks as a
//! vocabulary writes them, and a [`ReasoningParser`] takes the bytes of an output as they come, in any pieces.
//!
//! It knows neither llama.cpp nor engines nor roles: how a conversation is rendered is a closure here, and a control token is its
//! text between two bytes that occur in no text.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod known_marks;
mod mark_patterns;
mod reasoning_marks;
mod reasoning_parser;
mod reasoning_switch;
mod template_marks;

pub use mark_patterns::{MarkPatterns, append_control, append_text};
pub use reasoning_marks::{ReasoningMarks, ReasoningPhase, TemplateProbe};
pub use reasoning_parser::{ParsedOutput, ReasoningParser};
pub use reasoning_switch::ReasoningSwitch;
