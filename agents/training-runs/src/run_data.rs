//! What a run learns from.

use artel_task::TaskId;
use serde::{Deserialize, Serialize};

/// What a run learns from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunData {
    /// Samples that are trained on.
    pub train: u64,
    /// Samples that are measured by.
    pub held_out: u64,
    /// Tokens of those that are trained on.
    pub train_tokens: u64,
    /// What did not become a sample, with the reason; some hundreds of them.
    pub left_out: Vec<(String, String)>,
    /// All that did not become a sample.
    pub left_out_count: u64,
    /// The SHA-256 of the samples, in hexadecimal digits.
    pub sha256: String,
    /// The SHA-256 of the model's file, in hexadecimal digits.
    pub base_sha256: String,
    /// The tasks whose ratings are among the samples, and were not erased since.
    pub rated_tasks: Vec<TaskId>,
    /// The tasks that were among these, and whose ratings were erased since.
    pub erased: u64,
}
