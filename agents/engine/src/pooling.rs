//! Requests for what a model computes of a text as a whole: its embedding, or how relevant it is to a query.

use std::time::Instant;

use tokio::sync::oneshot;

use crate::backend::{PooledTokens, TextTokenizer, Token};
use crate::counters::PendingPooling;
use crate::request::{Error, Priority};

/// Texts that are each computed as a whole, several in one batch, in place of a token after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolingRequest {
    /// The texts.
    pub input: PooledInput,
    /// Whose turn it is, of several requests.
    pub priority: Priority,
    /// Whether a text that exceeds the context is cut near its end; otherwise the whole request is refused for it.
    pub truncates: bool,
}

/// What is computed as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PooledInput {
    /// Texts of their own, by an embedding model: a unit vector for each.
    Texts(Vec<String>),
    /// Documents, each together with a query, by a model that reranks: the score that the model gives, which may be any number,
    /// and the same as a relevance from 0 to 1.
    Documents {
        /// The query.
        query: String,
        /// The documents.
        documents: Vec<String>,
    },
}

/// What a model computed of texts, in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PooledTexts {
    /// The numbers of each, by [`PooledInput`].
    pub vectors: Vec<Vec<f32>>,
    /// The tokens of each, those of the query with each document.
    pub tokens: Vec<u32>,
}

impl PooledTexts {
    /// The tokens of all of them.
    pub fn total_tokens(&self) -> u32 {
        self.tokens.iter().copied().fold(0, u32::saturating_add)
    }
}

impl PoolingRequest {
    /// Texts that the router compares: before all others, and cut where they are too long.
    pub fn of_router(texts: Vec<String>) -> Self {
        Self { input: PooledInput::Texts(texts), priority: Priority::Router, truncates: true }
    }

    /// Bytes of its texts; the query counts with each document.
    pub(crate) fn bytes(&self) -> usize {
        match &self.input {
            PooledInput::Texts(texts) => texts.iter().map(String::len).sum(),
            PooledInput::Documents { query, documents } => documents.iter().map(|text| text.len() + query.len()).sum(),
        }
    }

    /// The tokens of each text, at most `limit`.
    pub(crate) fn tokenize(&self, tokenizer: &dyn TextTokenizer, limit: usize) -> Result<Vec<Vec<Token>>, Error> {
        let refused = crate::backend::Error::into_refusal;
        let fit = |(index, tokens): (usize, Result<PooledTokens, _>)| {
            fitted(tokens.map_err(refused)?, limit, self.truncates, index)
        };
        match &self.input {
            PooledInput::Texts(texts) => {
                texts.iter().map(|text| tokenizer.tokenize_text(text)).enumerate().map(fit).collect()
            }
            PooledInput::Documents { query, documents } => {
                documents.iter().map(|text| tokenizer.tokenize_pair(query, text)).enumerate().map(fit).collect()
            }
        }
    }
}

/// The tokens of a text within the limit. What may be cut is cut at its end, where the least is lost.
fn fitted(text: PooledTokens, limit: usize, truncates: bool, index: usize) -> Result<Vec<Token>, Error> {
    let PooledTokens { mut tokens, cuttable } = text;
    let excess = tokens.len().saturating_sub(limit);
    if excess == 0 {
        return Ok(tokens);
    }
    let too_long = |index, tokens: usize| Error::TextTooLong { index, tokens: tokens as u32, limit: limit as u32 };
    if !truncates {
        return Err(too_long(Some(index), tokens.len()));
    }
    // At least one token of the text is left.
    if excess >= cuttable.len() {
        return Err(too_long(None, tokens.len() - cuttable.len()));
    }
    tokens.drain(cuttable.end - excess..cuttable.end);
    Ok(tokens)
}

/// A request whose texts wait to be computed, or are computed in part.
pub(crate) struct PoolingJob {
    pub(crate) texts: Vec<Vec<Token>>,
    pub(crate) priority: Priority,
    pub(crate) since: Instant,
    /// Closed when the caller stopped waiting.
    pub(crate) reply: oneshot::Sender<Result<Vec<Vec<f32>>, Error>>,
    /// Counts it as waiting for as long as it is there.
    pub(crate) _pending: PendingPooling,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: i32, cuttable: std::ops::Range<usize>) -> PooledTokens {
        PooledTokens { tokens: (0..length).map(Token).collect(), cuttable }
    }

    #[test]
    fn a_text_is_refused_or_cut_at_the_end_of_what_may_be_cut() {
        let ids = |tokens: Vec<Token>| tokens.into_iter().map(|token| token.0).collect::<Vec<_>>();
        assert_eq!(fitted(text(5, 1..4), 5, false, 7).map(ids), Ok(vec![0, 1, 2, 3, 4]));
        assert_eq!(fitted(text(6, 1..5), 4, false, 7), Err(Error::TextTooLong { index: Some(7), tokens: 6, limit: 4 }));
        assert_eq!(fitted(text(6, 1..5), 4, true, 7).map(ids), Ok(vec![0, 1, 2, 5]));
        assert_eq!(fitted(text(6, 4..5), 5, true, 7), Err(Error::TextTooLong { index: None, tokens: 5, limit: 5 }));
    }
}
