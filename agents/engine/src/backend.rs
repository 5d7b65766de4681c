//! What the engine needs of a model. llama.cpp implements it in life, [`crate::scripted`] in tests.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::request::{Message, Sampling};

/// A token id of the model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub i32);

/// A way of computing over the shared weights: lane 0 has no adapter, each adapter and scale has a lane of its own.
/// Nothing is ever shared between the caches of two lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub u32);

impl Lane {
    /// The lane without an adapter.
    pub const BASE: Self = Self(0);
}

/// A place for one sequence in the cache of one lane, from 0 to [`Limits::sequences`] - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// What a loaded model can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tokens that one sequence may have, prompt and output together.
    pub context: u32,
    /// Sequences that one lane holds at once.
    pub sequences: u32,
    /// Tokens in one batch at most.
    pub batch: u32,
    /// Tokens of one prompt that cost less together than in smaller pieces; 1 if there is no such number.
    pub grain: u32,
    /// Whether the last cells of a sequence can be freed alone; recurrent models cannot do that.
    pub rewinds: bool,
    /// Whether cells can be moved to an earlier position, so that a sequence may outgrow the context.
    pub shifts: bool,
}

/// One token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose token.
    pub slot: Slot,
    /// Its place in the sequence, from 0, without a gap.
    pub position: u32,
    /// The token.
    pub token: Token,
    /// Whether the logits after it are wanted; they are then at this entry's index in the batch.
    pub logits: bool,
}

/// What sampling gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampled {
    /// A token to go on with.
    Token(Token),
    /// The model, or a schema that is complete, ended the output.
    End,
}

/// What a schema leaves no choice about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forced {
    /// Tokens that come next, whatever the model says; the sampling state has taken them in.
    pub tokens: Vec<Token>,
    /// Nothing may come after these.
    pub complete: bool,
}

/// Embedded texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embedded {
    /// One unit vector each.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens computed for all of them.
    pub tokens: u32,
}

/// The model could not compute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The batch was refused, nothing was computed; the sequences in it cannot go on.
    #[error("the batch was refused: {0}")]
    Batch(String),
    /// The backend as a whole is of no more use.
    #[error("the model is gone: {0}")]
    Fatal(String),
}

/// A conversation as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    /// All of it.
    pub tokens: Vec<Token>,
    /// How many come before the text of the last message: the same for every question with the same instructions.
    pub opening: usize,
}

/// The part of a model that any thread may use at any time: text to tokens and back.
pub trait Text: Send + Sync + 'static {
    /// Renders a conversation with the model's own chat template, with the opening of the assistant's turn, and
    /// tokenizes it.
    fn chat(&self, messages: &[Message]) -> Result<Prompt, String>;
    /// Appends the bytes of a token; they need not end at a character's boundary.
    fn bytes(&self, token: Token, out: &mut Vec<u8>);
    /// The tokens of a text that stands where an answer begins.
    fn answer(&self, text: &str) -> Result<Vec<Token>, String>;
    /// The token that ends an answer.
    fn end(&self) -> Token;
}

/// The part of a model that one thread owns.
pub trait Backend: 'static {
    /// A sequence's sampling state: random numbers, penalties, the place in its schema.
    type Sampler: 'static;

    /// What it can hold.
    fn limits(&self) -> Limits;
    /// The part for all threads.
    fn text(&self) -> Arc<dyn Text>;
    /// The lane of an adapter at a scale, loaded if need be.
    fn lane(&mut self, adapter: &Path, scale: f32) -> Result<Lane, String>;
    /// Frees a lane and its adapter. Nobody sits in it; the number may be given to another adapter later.
    fn unload(&mut self, lane: Lane);
    /// A sampling state; `schema` is a JSON schema that the output must satisfy; `prompt` feeds the penalties.
    fn sampler(
        &mut self,
        sampling: &Sampling,
        schema: Option<&Value>,
        prompt: &[Token],
    ) -> Result<Self::Sampler, String>;
    /// Computes a batch of at most [`Limits::batch`] entries, all of one lane.
    fn decode(&mut self, lane: Lane, batch: &[Entry]) -> Result<(), Fault>;
    /// Samples from the logits at `entry` of the last batch.
    fn sample(&mut self, lane: Lane, entry: usize, sampler: &mut Self::Sampler) -> Result<Sampled, String>;
    /// What the schema of this sampling state forces next.
    fn forced(&mut self, sampler: &mut Self::Sampler) -> Result<Forced, String>;
    /// The logits of these tokens at `entry` of the last batch.
    fn scores(&mut self, lane: Lane, entry: usize, tokens: &[Token]) -> Result<Vec<f32>, String>;
    /// Frees `drop` cells of a sequence after the first `keep` and moves those behind them to where these were. False if the
    /// model cannot do that; nothing has changed then.
    fn shift(&mut self, lane: Lane, slot: Slot, keep: u32, drop: u32) -> bool;
    /// Frees the cells of a sequence from this position on. False if the model cannot free a part of them: then all are.
    fn trim(&mut self, lane: Lane, slot: Slot, from: u32) -> bool;
    /// Whose cells a lane's are: a hash of whatever makes cells of another kind, the model's content, the adapter and its
    /// scale, and the form of the cache.
    fn fingerprint(&self, lane: Lane) -> [u8; 32];
    /// The cells of a sequence as bytes, which [`Self::restore`] takes back into any slot of the same lane.
    fn save(&mut self, lane: Lane, slot: Slot) -> Result<Vec<u8>, String>;
    /// Fills the cells of an empty slot.
    fn restore(&mut self, lane: Lane, slot: Slot, state: &[u8]) -> Result<(), String>;
    /// Embeds texts. Models for chat refuse.
    fn embed(&mut self, texts: &[String]) -> Result<Embedded, String>;
}
