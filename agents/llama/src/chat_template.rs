//! What is told of the chat template of a model's file.

use std::path::Path;

use artel_engine::backend::Error;
use artel_template::{ChatError, ChatTemplate, TextShield};

/// Checks that a chat template can be rendered for a system message and a question, without a model.
///
/// # Errors
/// It does not parse, fails, exceeds a budget, or leaves one of the messages out.
pub fn check_chat_template(source: &str, path: &Path) -> Result<(), Error> {
    let template = ChatTemplate::load(source, TextShield::default()).map_err(ChatError::from);
    template.and_then(|template| template.check()).map_err(|e| fault(path, &e))
}

pub(crate) fn fault(path: &Path, error: &ChatError) -> Error {
    Error::Tokenize(format!("{}: the chat template of this model {error}", path.display()))
}
