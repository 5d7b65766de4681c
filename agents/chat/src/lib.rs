//! What a model writes in a chat, told apart.
//!
//! Bytes go in as they are generated; what comes out is the answer's text, and what is none of it: calls of tools. The marks between
//! them are those of the model's chat template. This crate knows neither llama.cpp, nor engines, nor roles.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod calls;

pub use calls::{
    ArgumentFormat, CallDelta, CallFormat, CallGrammar, CallParser, CallPart, CallTrigger, ElementFormat, ToolPrompt,
    TriggerMatch, calls_grammar,
};
