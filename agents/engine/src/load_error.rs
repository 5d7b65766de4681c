//! Why a model cannot be loaded.

use std::fmt;

/// Why a model cannot be loaded, or a file that it needs cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    message: String,
    advice: Option<String>,
    is_transient: bool,
}

impl LoadError {
    /// Loading fails again until a file or a setting is changed.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), advice: None, is_transient: false }
    }

    /// Loading may succeed later as it is.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { message: message.into(), advice: None, is_transient: true }
    }

    /// Adds what to do, as a fragment of a sentence.
    #[must_use]
    pub fn with_advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// Puts what failed before the message, such as ``model `tiny` ``.
    #[must_use]
    pub fn in_context(self, context: impl fmt::Display) -> Self {
        Self { message: format!("{context}: {}", self.message), ..self }
    }

    /// Whether loading may succeed later as it is.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }

    /// What failed.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.advice.as_ref().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl std::error::Error for LoadError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_one_sentence() {
        let error = LoadError::permanent("tiny.gguf: no such file");
        assert_eq!(error.to_string(), "tiny.gguf: no such file");
        let error = error.with_advice("fetch it").in_context("model `tiny`");
        assert_eq!(error.to_string(), "model `tiny`: tiny.gguf: no such file; fetch it");
        assert_eq!((error.is_transient(), error.advice()), (false, Some("fetch it")));
        assert!(LoadError::transient("the disk is full").in_context("model `tiny`").is_transient());
    }
}
