//! What a client asks of an answer's form, and what it is told of its tokens.

use artel_model::TokenLogprob;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The most bytes of the probabilities of one output, all its answers together: a quarter of a message, so that the text and
/// everything else of a task still fit.
pub const MAX_LOGPROBS_BYTES: usize = 1024 * 1024;

/// The form of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object of any kind.
    JsonObject,
    /// What satisfies this JSON schema.
    JsonSchema(Value),
}

impl ResponseFormat {
    /// The schema of such an answer; none for text.
    pub fn schema(&self) -> Option<Value> {
        match self {
            Self::Text => None,
            Self::JsonObject => Some(json!({"type": "object"})),
            Self::JsonSchema(schema) => Some(schema.clone()),
        }
    }
}

/// How likely the tokens of an output were.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OutputLogprobs {
    /// The first tokens, as the model wrote them: white space around a text is in them too.
    pub tokens: Vec<TokenLogprob>,
    /// Whether later ones were left out, because all together take too many bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

impl OutputLogprobs {
    /// As many of these tokens as fit into so many bytes; returns how many bytes they leave.
    pub fn within(tokens: Vec<TokenLogprob>, mut left_bytes: usize) -> (Self, usize) {
        let count = tokens.len();
        let fits = |token: &TokenLogprob| match left_bytes.checked_sub(token.max_encoded_len()) {
            Some(left) => {
                left_bytes = left;
                true
            }
            None => false,
        };
        let tokens: Vec<TokenLogprob> = tokens.into_iter().take_while(fits).collect();
        (Self { truncated: tokens.len() < count, tokens }, left_bytes)
    }

    /// An upper bound for its size in a message, in bytes.
    pub(super) fn max_encoded_len(&self) -> usize {
        self.tokens.iter().map(TokenLogprob::max_encoded_len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_tokens_are_kept_as_fit() {
        let tokens = vec![TokenLogprob::forced(b"abcd".to_vec()); 3];
        let each = tokens[0].max_encoded_len();
        let (all, left) = OutputLogprobs::within(tokens.clone(), 3 * each + 5);
        assert_eq!((all.tokens.len(), all.truncated, left), (3, false, 5));
        let (two, left) = OutputLogprobs::within(tokens, 3 * each - 1);
        assert_eq!((two.tokens.len(), two.truncated, left), (2, true, each - 1));
        assert_eq!(two.max_encoded_len(), 2 * each);
    }

    #[test]
    fn the_form_of_an_answer_is_kept_as_it_was_asked_for() {
        let schema = ResponseFormat::JsonSchema(json!({"type": "object"}));
        for format in [ResponseFormat::Text, ResponseFormat::JsonObject, schema] {
            let stored = serde_json::to_value(&format).unwrap();
            assert_eq!(serde_json::from_value::<ResponseFormat>(stored).unwrap(), format);
        }
        assert_eq!(ResponseFormat::Text.schema(), None);
    }
}
