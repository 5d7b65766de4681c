//! Structured output: the tokens of a model's vocabulary that a JSON schema allows next.

use std::sync::Arc;

use artel_constraint::{Compiler, Constraint};
use artel_engine::backend::Error;
use serde_json::Value;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::raw::model::LlamaModel;

/// The compiler of schemas for a model; its creation traverses the vocabulary once.
pub(crate) fn compiler(model: &Arc<LlamaModel>) -> Result<Compiler, Error> {
    let lacks = |part: &str| Error::Schema(format!("the model cannot satisfy a schema: it has no {part}"));
    let count = u32::try_from(model.vocabulary_size()).map_err(|_| lacks("vocabulary"))?;
    let eos = u32::try_from(model.eos()).map_err(|_| lacks("end-of-text token"))?;
    let token_texts: Vec<Vec<u8>> = (0..count as i32).map(|token| token_bytes(model, token)).collect();
    let eos_tokens: Vec<u32> = std::iter::once(eos)
        .chain((0..count).filter(|token| *token != eos && model.is_end_of_generation(*token as i32)))
        .collect();
    let trie = TokTrie::from(&TokRxInfo::new(count, eos), &token_texts).with_eos_tokens(&eos_tokens);
    let env: TokEnv = Arc::new(ModelTokenizer { trie, model: model.clone() });
    Compiler::new(&env).map_err(schema_error)
}

/// The constraint of one output.
pub(crate) fn compile(compiler: &Compiler, schema: &Value) -> Result<Constraint, Error> {
    compiler.compile(schema).map_err(schema_error)
}

/// An error of a schema as one of the backend.
pub(crate) fn schema_error(error: artel_constraint::Error) -> Error {
    match error {
        artel_constraint::Error::Busy(reason) => Error::Exhausted(reason),
        error => Error::Schema(error.to_string()),
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
