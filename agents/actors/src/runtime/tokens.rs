//! Samples as tokens, by the engines that serve.

use std::sync::Arc;

use artel_engine::{AnswerTokens, ChatRole, Error as EngineError, Message, Priority};
use artel_hosting::engine_call::{EngineCallError, on_engine};
use artel_hosting::prompt;
use artel_roles::Role;

use super::pooling::error_of;
use super::{Error, Runtime};

/// Why a sample has no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// The model does not take this one.
    #[error("{0}")]
    Sample(EngineError),
    /// The runtime refuses, or the model cannot be had.
    #[error(transparent)]
    Runtime(#[from] Error),
}

impl Runtime {
    /// The tokens of these messages and of an answer to them, as a role's model reads and gives them. Loads the model.
    ///
    /// # Errors
    /// [`TokenizeError`].
    pub async fn tokenize_answer(
        &self,
        role: &Arc<Role>,
        messages: impl IntoIterator<Item = (ChatRole, &str)>,
        answer: &str,
    ) -> Result<AnswerTokens, TokenizeError> {
        self.check_open()?;
        let name = role.model.as_str();
        let model = self.catalog().model(name).cloned().ok_or_else(|| Error::NoModel { name: name.to_owned() })?;
        let host = self.engine_host(&model).await?;
        let messages: Vec<Message> = messages.into_iter().map(|(author, text)| prompt::message(author, text)).collect();
        // Of its adapters nothing is read, and they need not be there.
        let plain = Role { adapters: Vec::new(), ..Role::clone(role) };
        let request = prompt::request(&plain, &self.options.models_dir, Priority::Background, messages);
        let request = request.map_err(Error::Failed)?;
        let tokens = on_engine(&host, |engine| {
            let (request, answer) = (request.clone(), answer.to_owned());
            async move { engine.tokenize_answer(request, answer).await }
        });
        tokens.await.map_err(|error| match error {
            EngineCallError::Engine(error @ (EngineError::Overflow { .. } | EngineError::InvalidRequest(_))) => {
                TokenizeError::Sample(error)
            }
            error => error_of(error, name).into(),
        })
    }
}
