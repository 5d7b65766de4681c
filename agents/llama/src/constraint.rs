//! Structured output: llguidance computes the tokens that a JSON schema allows next.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use artel_engine::Token;
use artel_engine::backend::{Error, ForcedTokens};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::raw::model::LlamaModel;

/// The longest time for one schema. One of 900 properties takes a tenth of a second; meanwhile its engine computes nothing else,
/// and after twenty seconds of that it would count as hung.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(5);
/// The stack for one schema: a chain of 900 references takes more than 2 MiB. Only the pages that are used take memory.
const COMPILE_STACK_BYTES: usize = 64 * 1024 * 1024;
/// The most steps of a lexer for one token: some ten milliseconds. Schemas in use take a hundredth of that.
const MAX_TOKEN_STEPS: u64 = 100_000;
/// The most states of a lexer, of one to two kilobytes each. Schemas in use have some thousand.
const MAX_LEXER_ENTRIES: usize = 50_000;
/// The longest part of an error that is llguidance's own, which may repeat the schema.
const MAX_MESSAGE_CHARS: usize = 300;

/// Creates constraints for one vocabulary; its creation traverses the vocabulary once.
pub(crate) struct ConstraintFactory {
    factory: Arc<ParserFactory>,
    /// The thread of a schema that took too long.
    abandoned: Option<JoinHandle<()>>,
}

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
        *factory.limits_mut() = limits();
        Ok(Self { factory: Arc::new(factory), abandoned: None })
    }

    /// Creates the constraint of one output. The JSON is compact, without white space that the schema does not require.
    ///
    /// A schema may come from anywhere, and the checks of llguidance are not all bounded by its limits: it is compiled on a thread of
    /// its own, which has a large stack, and which is not waited for when it takes too long.
    pub(crate) fn for_schema(&mut self, schema: &Value) -> Result<Constraint, Error> {
        if self.abandoned.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Err(Error::Exhausted("a schema that takes too long is still being compiled".to_owned()));
        }
        let (factory, schema) = (self.factory.clone(), schema.clone());
        let (sender, compiled) = mpsc::sync_channel(1);
        let work = move || {
            // The receiver may wait no more.
            let _ = sender.send(compile(&factory, schema));
        };
        let thread = thread::Builder::new().name("schema".to_owned()).stack_size(COMPILE_STACK_BYTES).spawn(work);
        let thread = thread.map_err(|e| Error::Exhausted(format!("no thread could be started for a schema: {e}")))?;
        match compiled.recv_timeout(COMPILE_TIMEOUT) {
            Ok(constraint) => constraint,
            Err(RecvTimeoutError::Timeout) => {
                self.abandoned = Some(thread);
                Err(costly(&format_args!("it is not compiled within {} s", COMPILE_TIMEOUT.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(costly(&"compiling it ended unexpectedly")),
        }
    }
}

fn compile(factory: &ParserFactory, mut schema: Value) -> Result<Constraint, Error> {
    if let Some(map) = schema.as_object_mut() {
        map.insert("x-guidance".to_owned(), serde_json::json!({"whitespace_flexible": false}));
    }
    let mut matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_json_schema(schema)));
    match matcher.get_error() {
        Some(error) => {
            Err(Error::Schema(format!("the schema is not supported for constrained decoding: {}", shown(&error))))
        }
        None => matcher.compute_mask_or_eos().map(|_| Constraint(matcher)).map_err(|e| costly(&e)),
    }
}

/// The limits of one schema. The defaults of llguidance bound its grammar, and let it take 0.1 s and 400 MB for a token.
fn limits() -> ParserLimits {
    ParserLimits {
        step_lexer_fuel: MAX_TOKEN_STEPS,
        max_lexer_states: MAX_LEXER_ENTRIES,
        // The grammar of a large schema has megabytes.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// The error of a schema that cannot constrain an output any further.
fn costly(error: &dyn std::fmt::Display) -> Error {
    let reason = shown(&error.to_string());
    Error::Schema(format!("the schema takes too much work or memory as a constraint of an output: {reason}"))
}

/// The first line of a message of llguidance; after a panic, a backtrace follows.
fn shown(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect()
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
        if let Some(error) = self.0.get_error() {
            return Err(costly(&error));
        }
        if self.0.is_stopped() {
            return Ok(None);
        }
        self.0.compute_mask_or_eos().map(Some).map_err(|e| costly(&e))
    }

    /// Advances past a sampled token.
    pub(crate) fn accept(&mut self, token: i32) -> Result<(), Error> {
        self.0.consume_token(token.cast_unsigned()).map_err(|e| costly(&e))
    }

    /// Advances past the tokens that the schema forces next and returns them.
    pub(crate) fn take_forced(&mut self) -> ForcedTokens {
        let tokens = if self.0.is_stopped() { Vec::new() } else { self.0.consume_ff_tokens() };
        let tokens = tokens.into_iter().map(|token| Token(token.cast_signed())).collect();
        ForcedTokens { tokens, is_complete: self.0.is_stopped() && !self.0.is_error() }
    }
}
