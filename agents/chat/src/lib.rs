//! What a model writes in a chat, told apart: its reasoning, its calls of tools, its answer.
//!
//! [`ReasoningMarks`] and [`ToolPrompt`] are found by rendering a few conversations with the model's chat template. [`MarkPatterns`]
//! are the marks as a vocabulary writes them. A [`ReasoningParser`] and a [`CallParser`] take the bytes of an output as they come,
//! in any pieces: the first one's answer is what the second one reads.
//!
//! It knows neither llama.cpp nor engines nor roles: how a conversation is rendered is a closure here, and a control token is its
//! text between two bytes that occur in no text.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod calls;
mod known_marks;
mod mark_patterns;
mod reasoning_marks;
mod reasoning_parser;
mod reasoning_switch;
mod template_marks;

pub use calls::{
    ArgumentFormat, CallDelta, CallFormat, CallGrammar, CallParser, CallPart, CallTrigger, ElementFormat, ToolPrompt,
    TriggerMatch, calls_grammar,
};
pub use mark_patterns::{MarkPatterns, append_control, append_text, marked_pieces};
pub use reasoning_marks::{ReasoningMarks, ReasoningPhase, TemplateProbe};
pub use reasoning_parser::{ParsedOutput, ReasoningParser};
pub use reasoning_switch::ReasoningSwitch;
