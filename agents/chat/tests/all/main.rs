//! What real chat templates say of reasoning and of calls.
#![allow(clippy::unwrap_used)]

mod real_call_formats;
mod real_templates;
