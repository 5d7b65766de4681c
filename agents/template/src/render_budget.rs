//! What one rendering may cost.

use crate::MAX_INSTRUCTIONS;
use crate::bounded_writer::MAX_RENDERED_BYTES;

/// The longest text that a chat template may write beside its conversation: long ones write some thousand bytes.
const MAX_CHAT_TEXT_BYTES: usize = 256 * 1024;
/// How often a chat template may write its conversation; some write the system message twice.
const MAX_CHAT_REPEATS: usize = 4;
/// The limits of one rendering.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RenderBudget {
    pub(crate) instructions: u64,
    pub(crate) text_bytes: usize,
}

impl Default for RenderBudget {
    fn default() -> Self {
        Self { instructions: MAX_INSTRUCTIONS, text_bytes: MAX_RENDERED_BYTES }
    }
}

impl RenderBudget {
    /// For a conversation of so many bytes. 64 bytes that are read take an instruction, so each may be read so often at least.
    pub(crate) fn of_chat(bytes: usize) -> Self {
        Self {
            instructions: MAX_INSTRUCTIONS.max(bytes as u64),
            text_bytes: MAX_CHAT_TEXT_BYTES.max(MAX_CHAT_REPEATS.saturating_mul(bytes)),
        }
    }
}
