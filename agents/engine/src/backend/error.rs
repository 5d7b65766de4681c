//! Why a model failed.

use crate::request;

/// Why a model could not do what the engine asked of it. The texts name the file at fault, where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The chat template failed, or a text could not be made into tokens.
    #[error("{0}")]
    Tokenize(String),
    /// The schema cannot constrain an output, or not any further.
    #[error("{0}")]
    Schema(String),
    /// The file of an adapter is missing, damaged or made for another model.
    #[error("{0}")]
    Adapter(String),
    /// The model cannot do this at all, such as a chat model that is asked to embed.
    #[error("{0}")]
    Unsupported(String),
    /// Computing, sampling or reading logits failed.
    #[error("{0}")]
    Compute(String),
    /// The cells of a sequence could not be saved or restored.
    #[error("{0}")]
    State(String),
    /// Memory, or a place for another adapter, is lacking at the moment.
    #[error("{0}")]
    Exhausted(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Exhausted(_))
    }

    /// The error of a request that is refused before anything of it is computed.
    pub(crate) fn into_refusal(self) -> request::Error {
        if self.is_transient() {
            request::Error::Model(self.to_string())
        } else {
            request::Error::InvalidRequest(self.to_string())
        }
    }

    /// The error of a request that fails while it is computed.
    pub(crate) fn into_failure(self) -> request::Error {
        match self {
            // The engine is not at fault, nor would another attempt end in another way.
            Self::Schema(reason) => request::Error::InvalidRequest(reason),
            other => request::Error::Model(other.to_string()),
        }
    }
}

/// The model could not compute a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The batch was refused and nothing was computed; its sequences cannot continue.
    #[error("the model refused the batch: {0}")]
    Batch(String),
    /// The backend as a whole is unusable.
    #[error("the model is unusable: {0}")]
    Fatal(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_at_fault_unless_something_is_lacking_at_the_moment() {
        let lacking = || Error::Exhausted("no memory for its context".to_owned());
        let missing = || Error::Adapter("a.gguf: no such file".to_owned());
        assert_eq!((lacking().is_transient(), missing().is_transient()), (true, false));
        assert_eq!(lacking().into_refusal(), request::Error::Model("no memory for its context".to_owned()));
        assert_eq!(missing().into_refusal(), request::Error::InvalidRequest("a.gguf: no such file".to_owned()));
        let schema = Error::Schema("it takes too much".to_owned());
        assert_eq!(schema.into_failure(), request::Error::InvalidRequest("it takes too much".to_owned()));
        assert_eq!(missing().into_failure(), request::Error::Model("a.gguf: no such file".to_owned()));
    }
}
