//! Templates as other implementations render them.
#![allow(clippy::unwrap_used)]

mod real_chat_templates;
