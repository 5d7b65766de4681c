//! Jinja templates within budgets: regardless of its author, one is parsed and rendered with bounded stack, memory and time, or refused
//! with an error that names the budget.
//!
//! The text of a template goes in, a [`BoundedTemplate`] comes out, and it renders values to a text. Two kinds are written by
//! strangers: the prompts and messages of roles, in documents that clients send, and the chat templates of models, in GGUF files.
//! The names that a prompt sees are its caller's to add. A [`ChatTemplate`] renders a conversation as Python's Jinja does with the
//! settings of Transformers, and tells what people wrote from what it wrote itself ([`TextShield`]). This crate knows neither
//! models nor tokens nor roles.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bounded_template;
mod bounded_writer;
mod chains;
mod chat_template;
mod error;
mod guard;
mod namespace;
mod operators;
mod python;
mod render_budget;
mod source_edit;
mod text_shield;

pub use bounded_template::BoundedTemplate;
pub use bounded_writer::MAX_RENDERED_BYTES;
pub use chat_template::{Chat, ChatError, ChatTemplate};
pub use error::{InvalidTemplate, RenderError};
pub use text_shield::TextShield;

/// The longest template: a long prompt has some thousand characters, and the longest chat templates have 20,000.
pub const MAX_SOURCE_CHARS: usize = 262_144;
/// The most instructions of one rendering: a loop over a thousand items takes some ten thousand. One more is taken for each 64 bytes
/// that it makes or reads.
pub const MAX_INSTRUCTIONS: u64 = 1_000_000;
