//! The name of a run.

use std::fmt;

use artel_task::TrainingName;
use serde::{Deserialize, Serialize};

/// The longest id: that of the longest name, and a number.
const MAX_ID_BYTES: usize = 80;

/// The id of a run: the name of its training and a number, such as `returns-lora.3`. It is the name of its directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId {
    text: String,
    number: u32,
}

impl RunId {
    /// The id of a run of this training.
    pub(crate) fn new(training: &TrainingName, number: u32) -> Self {
        Self { text: format!("{training}.{number}"), number }
    }

    /// The id that this text is.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_ID_BYTES {
            return None;
        }
        let (training, number) = text.rsplit_once('.')?;
        let id = Self::new(&TrainingName::parse(training).ok()?, number.parse().ok()?);
        // No other way to write the same number.
        (id.text == text).then_some(id)
    }

    /// The number, which counts all runs of the daemon.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidRunId;

    fn try_from(text: String) -> Result<Self, InvalidRunId> {
        Self::parse(&text).ok_or(InvalidRunId)
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.text
    }
}

/// A text that is no id of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no id of a run")]
pub struct InvalidRunId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_name_of_a_directory_and_nothing_else() {
        assert_eq!(RunId::parse("a-b.12").map(|id| id.number()), Some(12));
        for text in ["", "a", "a.", ".1", "a.01", "a.+1", "../a.1", "a/b.1", "A.1", "a.-1", "a.4294967296"] {
            assert_eq!(RunId::parse(text), None, "{text}");
        }
        assert_eq!(RunId::parse(&format!("{}.1", "a".repeat(100))), None);
    }
}
