//! Output that satisfies a JSON schema: llguidance says which tokens may come next.

use std::sync::Arc;

use artel_engine::Token;
use artel_engine::backend::ForcedTokens;
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::raw::Model;

/// Makes constraints for one vocabulary; building it walks the vocabulary once.
pub(crate) struct Grammars(ParserFactory);

impl Grammars {
    pub(crate) fn new(model: &Arc<Model>) -> Result<Self, String> {
        let count = u32::try_from(model.vocabulary()).map_err(|_| "the model has no vocabulary")?;
        let eos = u32::try_from(model.eos()).map_err(|_| "the model has no end-of-text token")?;
        let words: Vec<Vec<u8>> = (0..count as i32).map(|token| word(model, token)).collect();
        let ends: Vec<u32> =
            std::iter::once(eos).chain((0..count).filter(|token| *token != eos && model.ends(*token as i32))).collect();
        let trie = TokTrie::from(&TokRxInfo::new(count, eos), &words).with_eos_tokens(&ends);
        let env: TokEnv = Arc::new(Tokens { trie, model: model.clone() });
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet();
        Ok(Self(factory))
    }

    /// A constraint for one output. Compact JSON: no white space that the schema does not ask for.
    pub(crate) fn of(&self, schema: &Value) -> Result<Constraint, String> {
        let mut schema = schema.clone();
        if let Some(map) = schema.as_object_mut() {
            map.insert("x-guidance".to_owned(), serde_json::json!({"whitespace_flexible": false}));
        }
        let parser = self.0.create_parser(TopLevelGrammar::from_json_schema(schema));
        let mut matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(error) => Err(format!("the schema cannot be used for decoding: {error}")),
            None => matcher.compute_mask_or_eos().map(|_| Constraint(matcher)).map_err(|e| e.to_string()),
        }
    }
}

/// The model's own way to write a text in tokens, in which llguidance writes what a schema forces.
struct Tokens {
    trie: TokTrie,
    model: Arc<Model>,
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let own = std::str::from_utf8(bytes).ok().and_then(|text| self.model.tokenize(text, false, false));
        let own: Option<Vec<TokenId>> = own.map(|tokens| tokens.into_iter().map(i32::cast_unsigned).collect());
        // Half a character has no text, and some vocabularies put a space before every text.
        let same = |tokens: &Vec<TokenId>| self.trie.decode_raw(tokens) == bytes;
        own.filter(same).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }

    fn tokenize_is_canonical(&self) -> bool {
        true
    }
}

/// llguidance marks control tokens with a byte that no text has.
fn word(model: &Model, token: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    model.piece(token, false, &mut bytes);
    if bytes.is_empty() {
        model.piece(token, true, &mut bytes);
        if !bytes.is_empty() {
            bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
        }
    }
    bytes
}

/// The place of one output in its schema.
pub(crate) struct Constraint(Matcher);

impl Constraint {
    /// The tokens that may come next; `None` if the output is complete.
    pub(crate) fn mask(&mut self) -> Result<Option<toktrie::SimpleVob>, String> {
        if self.0.is_stopped() {
            return Ok(None);
        }
        self.0.compute_mask_or_eos().map(Some).map_err(|e| e.to_string())
    }

    /// Notes the token that was taken.
    pub(crate) fn take(&mut self, token: i32) -> Result<(), String> {
        self.0.consume_token(token.cast_unsigned()).map_err(|e| e.to_string())
    }

    /// Takes in what must come next, whatever the model says.
    pub(crate) fn force(&mut self) -> ForcedTokens {
        let tokens = if self.0.is_stopped() { Vec::new() } else { self.0.consume_ff_tokens() };
        let tokens = tokens.into_iter().map(|token| Token(token.cast_signed())).collect();
        ForcedTokens { tokens, is_complete: self.0.is_stopped() && !self.0.is_error() }
    }
}
