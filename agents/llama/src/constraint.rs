//! Structured output: llguidance computes the tokens that a JSON schema allows next.

use std::sync::Arc;

use artel_engine::Token;
use artel_engine::backend::{Error, ForcedTokens};
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::raw::model::LlamaModel;

/// Creates constraints for one vocabulary; its creation traverses the vocabulary once.
pub(crate) struct ConstraintFactory(ParserFactory);

impl ConstraintFactory {
    pub(crate) fn new(model: &Arc<LlamaModel>) -> Result<Self, Error> {
        let lacks = |part: &str| Error::Schema(format!("the model cannot satisfy a schema: it has no {part}"));
        let count = u32::try_from(model.vocabulary_size()).map_err(|_| lacks("vocabulary"))?;
        let eos = u32::try_from(model.eos()).map_err(|_| lacks("end-of-text token"))?;
        let token_texts: Vec<Vec<u8>> = (0..count as i32).map(|token| token_bytes(model, token)).collect();
        let eos_tokens: Vec<u32> = std::iter::once(eos)
            .chain((0..count).filter(|token| *token != eos && model.is_end_of_generation(*token as i32)))
            .collect();
        let trie = TokTrie::from(&TokRxInfo::new(count, eos), &token_texts).with_eos_tokens(&eos_tokens);
        let env: TokEnv = Arc::new(ModelTokenizer { trie, model: model.clone() });
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| Error::Schema(e.to_string()))?;
        factory.quiet();
        Ok(Self(factory))
    }

    /// Creates the constraint of one output. The JSON is compact, without white space that the schema does not require.
    pub(crate) fn for_schema(&self, schema: &Value) -> Result<Constraint, Error> {
        let mut schema = schema.clone();
        if let Some(map) = schema.as_object_mut() {
            map.insert("x-guidance".to_owned(), serde_json::json!({"whitespace_flexible": false}));
        }
        let parser = self.0.create_parser(TopLevelGrammar::from_json_schema(schema));
        let mut matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(error) => Err(Error::Schema(format!("the schema is not supported for constrained decoding: {error}"))),
            None => {
                let mask = matcher.compute_mask_or_eos();
                mask.map(|_| Constraint(matcher)).map_err(|e| Error::Schema(e.to_string()))
            }
        }
    }
}

/// The model's tokenizer, with which llguidance tokenizes the text that a schema forces.
struct ModelTokenizer {
    trie: TokTrie,
    model: Arc<LlamaModel>,
}

impl TokenizerEnv for ModelTokenizer {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let tokens = std::str::from_utf8(bytes).ok().and_then(|text| self.model.tokenize(text, false, false));
        let tokens: Option<Vec<TokenId>> = tokens.map(|tokens| tokens.into_iter().map(i32::cast_unsigned).collect());
        // Part of a character cannot be tokenized as text, and some vocabularies put a space before every text.
        let is_exact = |tokens: &Vec<TokenId>| self.trie.decode_raw(tokens) == bytes;
        tokens.filter(is_exact).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }

    fn tokenize_is_canonical(&self) -> bool {
        true
    }
}

/// The bytes of a token; llguidance marks control tokens with a byte that does not occur in text.
fn token_bytes(model: &LlamaModel, token: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    model.append_piece(token, false, &mut bytes);
    if bytes.is_empty() {
        model.append_piece(token, true, &mut bytes);
        if !bytes.is_empty() {
            bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
        }
    }
    bytes
}

/// The parser state of one output in its schema.
pub(crate) struct Constraint(Matcher);

impl Constraint {
    /// The tokens that are allowed next; `None` if the output is complete.
    pub(crate) fn mask(&mut self) -> Result<Option<toktrie::SimpleVob>, Error> {
        if self.0.is_stopped() {
            return Ok(None);
        }
        self.0.compute_mask_or_eos().map(Some).map_err(|e| Error::Compute(e.to_string()))
    }

    /// Advances past a sampled token.
    pub(crate) fn accept(&mut self, token: i32) -> Result<(), Error> {
        self.0.consume_token(token.cast_unsigned()).map_err(|e| Error::Compute(e.to_string()))
    }

    /// Advances past the tokens that the schema forces next and returns them.
    pub(crate) fn take_forced(&mut self) -> ForcedTokens {
        let tokens = if self.0.is_stopped() { Vec::new() } else { self.0.consume_ff_tokens() };
        let tokens = tokens.into_iter().map(|token| Token(token.cast_signed())).collect();
        ForcedTokens { tokens, is_complete: self.0.is_stopped() && !self.0.is_error() }
    }
}
