//! The interface between the engine and a model. llama.cpp implements it in production, [`crate::scripted`] in tests.

mod error;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use artel_chat::{CallFormat, CallGrammar, CallTrigger, MarkPatterns, ReasoningPhase};
use serde_json::{Map, Value};

pub use error::{DecodeError, Error};

use crate::request::{Message, SamplingOptions, SamplingParams, TokenLogprob, ToolSet};

/// A token id of the model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub i32);

/// The adapters that apply to a sequence, with their scales, by number: 0 is none. Cells that were computed with one set are of no
/// use to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterSet(pub u32);

impl AdapterSet {
    /// No adapter.
    pub const NONE: Self = Self(0);
}

/// A slot for one sequence in the KV cache, from 0 to [`EngineLimits::sequences`] - 1. Whatever its adapters, a sequence may be in
/// any slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// The limits of a loaded model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// Tokens of one sequence at most, prompt and output together.
    pub context_tokens: u32,
    /// Slots.
    pub sequences: u32,
    /// Tokens in one batch at most.
    pub batch_tokens: u32,
    /// Prompt tokens that cost less together than in smaller pieces: chunks are multiples of it. 1 if there is no such number.
    pub prefill_multiple: u32,
    /// Whether the last cells of a sequence can be freed alone; recurrent models cannot do that.
    pub can_truncate_kv: bool,
    /// Whether cells can be moved to an earlier position (context shift), so that a sequence may outgrow the context.
    pub can_shift: bool,
}

/// One token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchToken {
    /// The slot of its sequence.
    pub slot: Slot,
    /// Its position in the sequence, from 0, without a gap.
    pub position: u32,
    /// The token.
    pub token: Token,
    /// Whether the logits after it are needed; they are then at this token's index in the batch.
    pub needs_logits: bool,
}

/// The result of sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampled {
    /// The next token.
    Token(Token),
    /// The model, or a schema that is complete, ended the output.
    End,
}

/// Tokens that a schema leaves no alternative to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForcedTokens {
    /// Tokens that come next regardless of the model; the sampling state has accepted them.
    pub tokens: Vec<Token>,
    /// Nothing may come after these.
    pub is_complete: bool,
}

/// The tokens of a text that is computed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PooledTokens {
    /// All of them, with those that the model wants around the text.
    pub tokens: Vec<Token>,
    /// Those of the text itself; of a pair, those of the document.
    pub cuttable: Range<usize>,
}

/// What a model may write when it calls tools.
#[derive(Debug, Clone)]
pub struct CallConstraint {
    /// What a call may be.
    pub grammar: CallGrammar,
    /// Where it begins; none if the output has nothing else.
    pub trigger: Option<CallTrigger>,
}

/// A conversation as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenizedPrompt {
    /// The whole prompt.
    pub tokens: Vec<Token>,
    /// Tokens before the text of the last message: the prefix that all questions with the same instructions share.
    pub prefix_len: usize,
    /// How a reasoning in its output is told from the answer; none if the model's template has no marks for one.
    pub reasoning: Option<ReasoningFormat>,
}

/// How a reasoning is told from the answer in the output of one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasoningFormat {
    /// The marks around it.
    pub patterns: Arc<MarkPatterns>,
    /// Where the output begins.
    pub phase: ReasoningPhase,
    /// The tokens that end a reasoning and begin the answer.
    pub end: Vec<Token>,
    /// Of these, the ones behind the mark that ends it.
    pub answer_start: Vec<Token>,
    /// As `end`, where calls of tools follow.
    pub calls_end: Vec<Token>,
    /// As `answer_start`, where calls of tools follow.
    pub calls_start: Vec<Token>,
}

/// Conversion of text to tokens and back. Any thread may call it at any time.
pub trait Tokenizer: Send + Sync + 'static {
    /// Renders a conversation with the model's own chat template and these variables of it, including the tools that it is told of
    /// and the generation prompt, and tokenizes it. Without `reasons`, the template is told that the model shall not reason, as far
    /// as it can be.
    fn apply_chat_template(
        &self,
        messages: &[Message],
        template_kwargs: &Map<String, Value>,
        tools: Option<&ToolSet>,
        reasons: bool,
    ) -> Result<TokenizedPrompt, Error>;
    /// Appends the bytes of a token; they need not end at a character's boundary.
    fn append_bytes(&self, token: Token, out: &mut Vec<u8>);
    /// As [`Self::append_bytes`], with control tokens by [`append_control`](artel_chat::append_control) and others by
    /// [`append_text`](artel_chat::append_text).
    fn append_marked(&self, token: Token, out: &mut Vec<u8>);
    /// The form in which the model calls tools.
    fn call_format(&self) -> CallFormat {
        CallFormat::generic()
    }
    /// The tokens of a text that stands at the start of an output.
    fn tokenize_output(&self, text: &str) -> Result<Vec<Token>, Error>;
    /// The first control token that a text spells.
    fn control_text(&self, _text: &str) -> Option<String> {
        None
    }
    /// The token that ends an output.
    fn end_of_turn(&self) -> Token;
}

/// Conversion of texts that are computed as a whole. Any thread may call it at any time.
pub trait TextTokenizer: Send + Sync + 'static {
    /// The tokens of a text to embed. Models that are not for embedding refuse.
    fn tokenize_text(&self, text: &str) -> Result<PooledTokens, Error>;
    /// The tokens of a query and a document, as a model that reranks reads them. Other models refuse.
    fn tokenize_pair(&self, query: &str, document: &str) -> Result<PooledTokens, Error>;
}

/// The part of a model that one thread owns.
pub trait Backend: 'static {
    /// A sequence's sampling state: random numbers, penalties, the position in its schema.
    type Sampler: 'static;

    /// The limits of the model.
    fn limits(&self) -> EngineLimits;
    /// What the model's file states of its sampling.
    fn sampling_defaults(&self) -> SamplingOptions {
        SamplingOptions::default()
    }
    /// The part that all threads share.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;
    /// The same, for texts that are computed as a whole.
    fn text_tokenizer(&self) -> Arc<dyn TextTokenizer>;
    /// Loads adapters that apply together, each at its scale.
    fn load_adapters(&mut self, adapters: &[(PathBuf, f32)]) -> Result<AdapterSet, Error>;
    /// Frees adapters. No cells were computed with them any more; the number may be given to other ones later.
    fn unload_adapters(&mut self, adapters: AdapterSet);
    /// Creates a sampling state; `schema` is a JSON schema that the output must satisfy; `prompt` feeds the penalties.
    fn create_sampler(
        &mut self,
        sampling: &SamplingParams,
        schema: Option<&Value>,
        prompt: &[Token],
    ) -> Result<Self::Sampler, Error>;
    /// Holds what this sampling state gives to calls of tools; a state without a schema. A model that cannot be held to them writes
    /// them as it likes.
    fn constrain_calls(&mut self, _sampler: &mut Self::Sampler, _calls: &CallConstraint) -> Result<(), Error> {
        Ok(())
    }
    /// Computes a batch of at most [`EngineLimits::batch_tokens`] tokens, all with the same adapters.
    fn decode(&mut self, adapters: AdapterSet, batch: &[BatchToken]) -> Result<(), DecodeError>;
    /// How long the change to other adapters took that the last batch began with; none if it began with none, or if that is not
    /// known.
    fn take_switch_time(&mut self) -> Option<Duration> {
        None
    }
    /// Samples from the logits at `index` of the last batch.
    fn sample(&mut self, index: usize, sampler: &mut Self::Sampler) -> Result<Sampled, Error>;
    /// How likely `token` is after the logits at `index` of the last batch, and which `top` tokens are the likeliest: the model's
    /// own probabilities, whatever the sampling does with them.
    fn logprobs(&mut self, index: usize, token: Token, top: u32) -> Result<TokenLogprob, Error>;
    /// While it is held, the schema of a sampling state neither constrains nor forces tokens; what is sampled is not of it.
    fn hold_schema(&mut self, sampler: &mut Self::Sampler, is_held: bool);
    /// Tells a sampling state of tokens that were appended without it and are not of its schema.
    fn append_unsampled(&mut self, sampler: &mut Self::Sampler, tokens: &[Token]);
    /// The tokens that the schema of this sampling state forces next.
    fn forced_tokens(&mut self, sampler: &mut Self::Sampler) -> Result<ForcedTokens, Error>;
    /// The logits of these tokens at `index` of the last batch.
    fn logits(&mut self, index: usize, tokens: &[Token]) -> Result<Vec<f32>, Error>;
    /// Context shift: frees `discard` cells of a sequence after the first `keep` and moves the cells behind them into the gap.
    /// False if the model cannot do that; nothing has changed then.
    fn shift_kv(&mut self, slot: Slot, keep: u32, discard: u32) -> bool;
    /// Frees the cells of a sequence from this position on. False if the model cannot free a part of them: then all are freed.
    fn truncate_kv(&mut self, slot: Slot, from: u32) -> bool;
    /// A hash of everything that cells depend on which are computed with these adapters: the model's content, theirs and their
    /// scales, and the types of the KV cache.
    fn fingerprint(&self, adapters: AdapterSet) -> [u8; 32];
    /// The cells of a sequence as bytes, which [`Self::restore_state`] loads into any slot.
    fn save_state(&mut self, slot: Slot) -> Result<Vec<u8>, Error>;
    /// Fills the cells of an empty slot.
    fn restore_state(&mut self, slot: Slot, state: &[u8]) -> Result<(), Error>;
    /// Computes texts as a whole: at most [`EngineLimits::sequences`], of [`EngineLimits::batch_tokens`] tokens together. What the
    /// numbers of each are is said by [`PooledInput`](crate::PooledInput).
    fn pool(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, Error>;
}
