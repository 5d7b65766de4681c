//! A sample: what a model reads, and the answer that is right.

use std::fmt;

use artel_task::TaskId;
use sha2::{Digest as _, Sha256};

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleMessage {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// Its text.
    pub content: String,
}

impl SampleMessage {
    /// A message as it is served: white space around it is no part of it.
    pub(crate) fn new(role: &'static str, content: &str) -> Self {
        Self { role, content: content.trim().to_owned() }
    }
}

/// Where a sample comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleOrigin {
    /// A line of a file.
    Line {
        /// The file's name, without its directory.
        file: String,
        /// The number of the line, from 1.
        line: usize,
    },
    /// The rating of an answer.
    Rating {
        /// The task.
        task: TaskId,
        /// The step that answered.
        step: String,
    },
}

impl SampleOrigin {
    /// The source without the place in it.
    pub fn source(&self) -> &str {
        match self {
            Self::Line { file, .. } => file,
            Self::Rating { .. } => "ratings",
        }
    }
}

impl fmt::Display for SampleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Rating { task, step } => write!(f, "task {task}, step {step}"),
        }
    }
}

/// What a model reads, and the answer that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where it comes from.
    pub origin: SampleOrigin,
    /// What the model reads, the oldest message first.
    pub messages: Vec<SampleMessage>,
    /// The answer.
    pub answer: String,
    /// Whether it is measured by, and not trained on.
    pub is_held_out: bool,
}

impl Sample {
    /// What tells its prompt from others: the same for the same messages.
    pub(crate) fn prompt_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for message in &self.messages {
            hash.update(message.role);
            hash.update((message.content.len() as u64).to_le_bytes());
            hash.update(&message.content);
        }
        hash.finalize().into()
    }

    /// All that the model reads that is not the role's own: the texts of users and answers before.
    pub(crate) fn user_text(&self) -> String {
        let own = self.messages.iter().filter(|message| message.role != "system");
        own.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// The bytes of its texts.
    pub(crate) fn text_bytes(&self) -> usize {
        self.answer.len() + self.messages.iter().map(|message| message.content.len()).sum::<usize>()
    }
}

/// What did not become a sample, or is none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOutSample {
    /// Where it comes from.
    pub origin: SampleOrigin,
    /// Why.
    pub reason: String,
}
