//! Biases of texts as biases of tokens.

use std::collections::BTreeMap;

use crate::raw::model::LlamaModel;

/// A bias that forbids a token, as with OpenAI's API.
const FORBIDDING_LOGITS: f32 = -100.0;

/// What is added to the logits of tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TokenBias(BTreeMap<i32, f32>);

impl TokenBias {
    /// The tokens of texts, as the model's tokenizer writes each of them at the beginning of a text, behind a space and behind the
    /// end of a line. A text of several tokens biases all of them. White space around a text is no part of it, unless it is
    /// nothing else. Of several biases for a token, the strongest holds.
    pub(crate) fn of_texts(biases: &[(String, f32)], model: &LlamaModel) -> Self {
        let mut tokens = BTreeMap::new();
        for (text, bias) in biases {
            let is_space = text.trim().is_empty();
            for before in ["", " ", "\n"] {
                let ids = model.tokenize(&format!("{before}{text}"), false, false).unwrap_or_default();
                let is_meant = |id: &i32| is_space || !is_white_space(model, *id);
                // The space or line end before a text of white space is not meant.
                let ids = if is_space && !before.is_empty() { Vec::new() } else { ids };
                for id in ids.into_iter().filter(is_meant) {
                    let known = tokens.entry(id).or_insert(*bias);
                    if bias.abs() > known.abs() {
                        *known = *bias;
                    }
                }
            }
        }
        Self(tokens)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a token must not come.
    pub(crate) fn forbids(&self, token: i32) -> bool {
        self.0.get(&token).is_some_and(|bias| *bias <= FORBIDDING_LOGITS)
    }

    /// What is added to its logit.
    pub(crate) fn of(&self, token: i32) -> f32 {
        self.0.get(&token).copied().unwrap_or(0.0)
    }
}

fn is_white_space(model: &LlamaModel, token: i32) -> bool {
    let mut bytes = Vec::new();
    model.append_piece(token, false, &mut bytes);
    bytes.iter().all(u8::is_ascii_whitespace)
}
