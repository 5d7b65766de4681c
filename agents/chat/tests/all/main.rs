//! Marks, switches and parses of the chat templates that real models carry.
#![allow(clippy::unwrap_used)]

mod real_templates;
