//! The size of an output in a message.

use super::{Citation, Output, ToolCall};
use crate::value_size::value_len;

/// The largest output, as measured by [`Output::max_encoded_len`]. gRPC clients accept messages of 4 MiB by default: they could
/// not receive a larger event, nor the task that contains it. The other fields of an event take far less than the difference.
pub const MAX_OUTPUT_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;

/// The most that the outputs of the items of one node take together, and the most that a value takes that nodes write, measured in
/// the same way: sixteen of the largest outputs, or 6 KiB for each of 10,000 items. Both are kept in memory until the task ends, and an item's output is in that of its node twice.
pub const MAX_ITEM_OUTPUTS_BYTES: usize = 16 * MAX_OUTPUT_BYTES;

/// What a call takes beside its texts: their tags and lengths.
const CALL_FRAME_BYTES: usize = 32;
/// The most of a reasoning that is kept with an output: some 60,000 tokens, and a sixteenth of the largest output.
pub const MAX_REASONING_BYTES: usize = 256 * 1024;

impl Output {
    /// An upper bound for its size in a message, in bytes: its text, its reasoning, its calls, what it cites, its JSON, whose numbers and nesting take
    /// more than they do as text, the probabilities of its tokens and its alternatives.
    pub fn max_encoded_len(&self) -> usize {
        let call = |call: &ToolCall| CALL_FRAME_BYTES + call.id.len() + call.name.len() + call.arguments.len();
        let calls = self.calls.iter().map(call).sum::<usize>();
        let reasoning = self.reasoning.as_ref().map_or(0, String::len);
        let citations = self.citations.iter().map(Citation::max_encoded_len).sum::<usize>();
        let alternatives = self.alternatives.iter().map(Self::max_encoded_len).sum::<usize>();
        let logprobs = self.logprobs.as_ref().map_or(0, |logprobs| logprobs.max_encoded_len());
        self.text.len()
            + reasoning
            + calls
            + self.json.as_ref().map_or(0, value_len)
            + alternatives
            + logprobs
            + citations
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_take_more_than_their_text() {
        for json in [json!(null), json!([1, 2, 3]), json!({"a": {"b": ["c", 1.5]}}), json!("text")] {
            let output = Output::json(json);
            assert!(output.max_encoded_len() > 2 * output.text.len(), "{output:?}");
        }
        assert_eq!(Output::text("text").max_encoded_len(), 4);
    }
}
