//! A backend that follows a script instead of a model, for tests of the engine and of everything above it.
//!
//! A token is a character. The script turns the whole rendered prompt into a reply. A [`BatchGate`] lets a test hold the
//! engine before a batch, so that no test has to sleep.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use artel_chat::{MarkPatterns, ReasoningMarks, ReasoningPhase, append_text};
use serde_json::{Map, Value};

use crate::backend::{
    AdapterSet, Backend, BatchToken, DecodeError, EngineLimits, Error, ForcedTokens, PooledTokens, ReasoningFormat,
    Sampled, Slot, TextTokenizer, Token, TokenizedPrompt, Tokenizer,
};
use crate::request::{Message, SamplingParams, TokenLogprob, ToolSet, TopLogprob};

/// Makes a reply from the rendered prompt: its messages, a line each.
pub type ReplyScript = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Called before each batch with its number, from 1; an error fails the batch.
pub type FaultScript = Arc<dyn Fn(u64, &[BatchToken]) -> Option<DecodeError> + Send + Sync>;

/// Called before saved cells are restored, with the number of that, from 1; whether it fails.
pub type RestoreFaultScript = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// A scripted model.
pub struct ScriptedBackend {
    limits: EngineLimits,
    tokenizer: CharTokenizer,
    reply: ReplyScript,
    faults: Option<FaultScript>,
    restore_faults: Option<RestoreFaultScript>,
    gate: Option<BatchGate>,
    pooling_gate: Option<BatchGate>,
    shift_gate: Option<BatchGate>,
    probe: CacheProbe,
    /// By set, without the first, which has none.
    adapters: Vec<Option<String>>,
    cells: HashMap<Slot, ScriptedCells>,
    /// The slot of each token of the last batch, and how many cells it had up to it.
    last_batch: Vec<(Slot, usize)>,
    /// Slots whose cells were shifted since they were empty.
    shifted: HashSet<Slot>,
    /// Slots whose shift is done with the next batch, as in llama.cpp: until then, their cells cannot be saved.
    unfinished_shifts: HashSet<Slot>,
    batches: u64,
    restores: u64,
}

/// The cells of a slot, and the adapters that they were computed with.
struct ScriptedCells {
    adapters: AdapterSet,
    tokens: Vec<Token>,
}

/// Holds the engine before each batch until the test lets one more through.
#[derive(Clone, Default)]
pub struct BatchGate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    allowed_batches: u64,
    is_open: bool,
    is_held: bool,
}

const GATE_NOT_POISONED: &str = "no test panics inside the gate";
const PROBE_NOT_POISONED: &str = "no test panics inside the probe";

impl BatchGate {
    /// Lets so many more batches through.
    pub fn pass(&self, batches: u64) {
        self.0.0.lock().expect(GATE_NOT_POISONED).allowed_batches += batches;
        self.0.1.notify_all();
    }

    /// Lets all batches through from now on.
    pub fn open(&self) {
        self.0.0.lock().expect(GATE_NOT_POISONED).is_open = true;
        self.0.1.notify_all();
    }

    /// Blocks until the engine has computed all allowed batches and is held at the gate.
    pub fn wait_until_held(&self) {
        let state = self.0.0.lock().expect(GATE_NOT_POISONED);
        drop(self.0.1.wait_while(state, |s| !s.is_held || s.allowed_batches > 0).expect(GATE_NOT_POISONED));
    }

    /// Whether the engine is held at the gate.
    pub fn is_held(&self) -> bool {
        let state = self.0.0.lock().expect(GATE_NOT_POISONED);
        state.is_held && state.allowed_batches == 0
    }

    fn enter(&self) {
        let mut state = self.0.0.lock().expect(GATE_NOT_POISONED);
        state.is_held = true;
        self.0.1.notify_all();
        state = self.0.1.wait_while(state, |s| !s.is_open && s.allowed_batches == 0).expect(GATE_NOT_POISONED);
        state.allowed_batches = state.allowed_batches.saturating_sub(1);
        state.is_held = false;
    }
}

/// Shows a test the cells of the model while it runs.
#[derive(Clone, Default)]
pub struct CacheProbe(Arc<Mutex<HashMap<Slot, ProbedCells>>>);

/// The cells of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbedCells {
    /// The adapters that they were computed with.
    pub adapters: AdapterSet,
    /// How many.
    pub count: usize,
}

impl CacheProbe {
    /// Cells in use, by slot.
    pub fn cells(&self) -> HashMap<Slot, ProbedCells> {
        self.0.lock().expect(PROBE_NOT_POISONED).clone()
    }
}

impl ScriptedBackend {
    /// A model that gives these replies.
    pub fn new(limits: EngineLimits, reply: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self {
            limits,
            tokenizer: CharTokenizer::default(),
            reply: Arc::new(reply),
            faults: None,
            restore_faults: None,
            gate: None,
            pooling_gate: None,
            shift_gate: None,
            probe: CacheProbe::default(),
            adapters: Vec::new(),
            cells: HashMap::new(),
            last_batch: Vec::new(),
            shifted: HashSet::new(),
            unfinished_shifts: HashSet::new(),
            batches: 0,
            restores: 0,
        }
    }

    /// Tells the reasoning in replies from the answer by these marks; replies begin in this phase.
    pub fn with_reasoning(mut self, open: &str, close: &str, phase: ReasoningPhase) -> Self {
        let (open, close) = (open.to_owned(), close.to_owned());
        let end: Vec<Token> = close.chars().map(|c| Token(c as i32)).collect();
        let marks = ReasoningMarks { open, end: close.clone(), close, ..ReasoningMarks::default() };
        let patterns = Arc::new(MarkPatterns::new(&marks, |text, out| append_text(text.as_bytes(), out)));
        self.tokenizer.reasoning = Some(ReasoningFormat {
            patterns,
            phase,
            calls_end: end.clone(),
            end,
            answer_start: Vec::new(),
            calls_start: Vec::new(),
        });
        self
    }

    /// Fails batches as this script says; see [`FaultScript`].
    pub fn with_faults(
        mut self,
        faults: impl Fn(u64, &[BatchToken]) -> Option<DecodeError> + Send + Sync + 'static,
    ) -> Self {
        self.faults = Some(Arc::new(faults));
        self
    }

    /// Fails to restore saved cells as this script says; see [`RestoreFaultScript`].
    pub fn with_restore_faults(mut self, faults: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        self.restore_faults = Some(Arc::new(faults));
        self
    }

    /// Holds each batch at this gate.
    pub fn with_gate(mut self, gate: &BatchGate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Holds each batch of texts that are computed as a whole at this gate.
    pub fn with_pooling_gate(mut self, gate: &BatchGate) -> Self {
        self.pooling_gate = Some(gate.clone());
        self
    }

    /// Holds each context shift at this gate.
    pub fn with_shift_gate(mut self, gate: &BatchGate) -> Self {
        self.shift_gate = Some(gate.clone());
        self
    }

    /// A view of its cells.
    pub fn probe(&self) -> CacheProbe {
        self.probe.clone()
    }

    fn update_probe(&self, slot: Slot) {
        let mut cells = self.probe.0.lock().expect(PROBE_NOT_POISONED);
        match self.cells.get(&slot) {
            Some(own) => cells.insert(slot, ProbedCells { adapters: own.adapters, count: own.tokens.len() }),
            None => cells.remove(&slot),
        };
    }
}

/// Characters are tokens; the reply begins where the prompt ends.
#[derive(Clone, Default)]
struct CharTokenizer {
    reasoning: Option<ReasoningFormat>,
}

impl Tokenizer for CharTokenizer {
    fn apply_chat_template(
        &self,
        messages: &[Message],
        _template_kwargs: &Map<String, Value>,
        _tools: Option<&ToolSet>,
        _reasons: bool,
    ) -> Result<TokenizedPrompt, Error> {
        let tokens = |messages: &[Message]| {
            let lines = messages.iter().flat_map(|m| m.text.chars().chain(['\n']));
            lines.map(|c| Token(c as i32)).collect::<Vec<_>>()
        };
        let prefix_len = tokens(&messages[..messages.len().saturating_sub(1)]).len();
        Ok(TokenizedPrompt { tokens: tokens(messages), prefix_len, reasoning: self.reasoning.clone() })
    }

    fn append_bytes(&self, token: Token, out: &mut Vec<u8>) {
        match u32::try_from(token.0).ok().and_then(char::from_u32) {
            Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => out.push((token.0 - FIRST_BYTE_TOKEN) as u8),
        }
    }

    fn append_marked(&self, token: Token, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        self.append_bytes(token, &mut bytes);
        append_text(&bytes, out);
    }

    fn tokenize_output(&self, text: &str) -> Result<Vec<Token>, Error> {
        Ok(text.chars().map(|c| Token(c as i32)).collect())
    }

    fn end_of_turn(&self) -> Token {
        Token(0)
    }
}

impl TextTokenizer for CharTokenizer {
    fn tokenize_text(&self, text: &str) -> Result<PooledTokens, Error> {
        let tokens: Vec<Token> = text.chars().map(|c| Token(c as i32)).collect();
        let cuttable = 0..tokens.len();
        Ok(PooledTokens { tokens, cuttable })
    }

    fn tokenize_pair(&self, query: &str, document: &str) -> Result<PooledTokens, Error> {
        let mut tokens = self.tokenize_text(query)?.tokens;
        tokens.push(PAIR_TOKEN);
        let start = tokens.len();
        tokens.extend(self.tokenize_text(document)?.tokens);
        let cuttable = start..tokens.len();
        Ok(PooledTokens { tokens, cuttable })
    }
}

/// Stands between a query and a document.
const PAIR_TOKEN: Token = Token(0);
/// Tokens from here on are single bytes, above all characters.
const FIRST_BYTE_TOKEN: i32 = 0x11_0000;

/// The rest of a reply.
pub struct ScriptedSampler {
    /// The tokens that the cells must hold when the next token is sampled.
    cells: Vec<Token>,
    /// Whether cells of this sequence may have been shifted, so that some are discarded.
    is_shifted: bool,
    tokens: std::vec::IntoIter<Token>,
    /// Whether the schema forces the characters between two marks.
    has_schema: bool,
    /// Whether it does not yet.
    is_held: bool,
}

/// In a reply to a request with a schema, the text between two of these marks is forced.
pub const FORCED_MARK: char = '|';

/// In a reply, this stands for the sampling parameters of the request, as Rust prints them.
pub const SAMPLING_MARK: &str = "{sampling}";

impl Backend for ScriptedBackend {
    type Sampler = ScriptedSampler;

    fn limits(&self) -> EngineLimits {
        self.limits
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::new(self.tokenizer.clone())
    }

    fn text_tokenizer(&self) -> Arc<dyn TextTokenizer> {
        Arc::new(self.tokenizer.clone())
    }

    fn load_adapters(&mut self, adapters: &[(PathBuf, f32)]) -> Result<AdapterSet, Error> {
        let names = adapters.iter().map(|(path, scale)| format!("{}@{scale}", path.display()));
        let name = names.collect::<Vec<_>>().join(" and ");
        if name.contains("missing") {
            return Err(Error::Adapter(format!("{name}: no such adapter")));
        }
        let at = self.adapters.iter().position(Option::is_none).unwrap_or_else(|| {
            self.adapters.push(None);
            self.adapters.len() - 1
        });
        self.adapters[at] = Some(name);
        Ok(AdapterSet(at as u32 + 1))
    }

    fn unload_adapters(&mut self, adapters: AdapterSet) {
        assert!(self.cells.values().all(|cells| cells.adapters != adapters), "no cells of theirs are left");
        self.adapters[adapters.0 as usize - 1] = None;
    }

    /// ASCII characters are a token each; the bytes of others are a token each, as in byte-level vocabularies.
    fn create_sampler(
        &mut self,
        sampling: &SamplingParams,
        schema: Option<&Value>,
        tokens: &[Token],
    ) -> Result<ScriptedSampler, Error> {
        let prompt: String = tokens.iter().filter_map(|t| char::from_u32(t.0.cast_unsigned())).collect();
        let reply = (self.reply)(&prompt).replace(SAMPLING_MARK, &format!("{sampling:?}"));
        let token =
            |byte: u8| Token(if byte.is_ascii() { i32::from(byte) } else { FIRST_BYTE_TOKEN + i32::from(byte) });
        let reply = reply.bytes().map(token).collect::<Vec<_>>().into_iter();
        let has_schema = schema.is_some();
        Ok(ScriptedSampler { cells: tokens.to_vec(), is_shifted: false, tokens: reply, has_schema, is_held: false })
    }

    fn decode(&mut self, adapters: AdapterSet, batch: &[BatchToken]) -> Result<(), DecodeError> {
        if let Some(gate) = &self.gate {
            gate.enter();
        }
        self.batches += 1;
        if let Some(error) = self.faults.as_ref().and_then(|faults| faults(self.batches, batch)) {
            return Err(error);
        }
        assert!(batch.len() <= self.limits.batch_tokens as usize, "a batch keeps to the limit");
        self.unfinished_shifts.clear();
        for token in batch {
            assert!(token.slot.0 < self.limits.sequences, "slots keep to the limit");
            let own = || ScriptedCells { adapters, tokens: Vec::new() };
            let ScriptedCells { adapters: before, tokens: cells } = self.cells.entry(token.slot).or_insert_with(own);
            assert_eq!(*before, adapters, "cells are never continued with other adapters");
            assert_eq!(
                cells.len(),
                token.position as usize,
                "positions have no gap and no cells were left in the slot"
            );
            assert!(cells.len() < self.limits.context_tokens as usize, "sequences keep to the context");
            cells.push(token.token);
            self.update_probe(token.slot);
        }
        self.last_batch = batch.iter().map(|token| (token.slot, token.position as usize + 1)).collect();
        Ok(())
    }

    fn sample(&mut self, index: usize, sampler: &mut ScriptedSampler) -> Result<Sampled, Error> {
        let (slot, count) = self.last_batch[index];
        let cells = &self.cells[&slot].tokens[..count];
        sampler.is_shifted |= self.shifted.contains(&slot);
        assert!(sampler.is_shifted || *cells == *sampler.cells, "a sequence runs on its own prompt and output");
        let next = sampler.tokens.next();
        sampler.cells.extend(next);
        Ok(next.map_or(Sampled::End, Sampled::Token))
    }

    fn hold_schema(&mut self, sampler: &mut ScriptedSampler, is_held: bool) {
        sampler.is_held = is_held;
    }

    fn append_unsampled(&mut self, sampler: &mut ScriptedSampler, tokens: &[Token]) {
        sampler.cells.extend(tokens);
    }

    fn forced_tokens(&mut self, sampler: &mut ScriptedSampler) -> Result<ForcedTokens, Error> {
        let (mark, mut forced) = (Token(FORCED_MARK as i32), ForcedTokens::default());
        while sampler.has_schema && !sampler.is_held && sampler.tokens.as_slice().first() == Some(&mark) {
            let rest = &sampler.tokens.as_slice()[1..];
            let length = rest.iter().take_while(|token| **token != mark).count();
            forced.tokens.extend(&rest[..length]);
            forced.is_complete = rest.len() <= length + 1;
            sampler.tokens = rest.get(length + 1..).unwrap_or_default().to_vec().into_iter();
        }
        sampler.cells.extend(&forced.tokens);
        Ok(forced)
    }

    /// The token that continues the reply is `e` to the fifth times as likely as each other one.
    fn logits(&mut self, index: usize, tokens: &[Token]) -> Result<Vec<f32>, Error> {
        let (slot, count) = self.last_batch[index];
        let cells = self.cells[&slot].tokens[..count].iter();
        let text: String = cells.filter_map(|t| char::from_u32(t.0.cast_unsigned())).collect();
        let (prompt, output) = text.rsplit_once('\n').unwrap_or_default();
        let reply = (self.reply)(&format!("{prompt}\n"));
        let next = reply.strip_prefix(output).map(|rest| rest.chars().next().unwrap_or('\0'));
        let logit = |token: &Token| if next.map(|c| c as i32) == Some(token.0) { 5.0 } else { 0.0 };
        Ok(tokens.iter().map(logit).collect())
    }

    /// Over the characters of ASCII, by their logits.
    fn logprobs(&mut self, index: usize, token: Token, top: u32) -> Result<TokenLogprob, Error> {
        let all: Vec<Token> = (0..128).map(Token).collect();
        let logits = self.logits(index, &all)?;
        let sum = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        let logprob = |logit: f32| (f64::from(logit) - sum) as f32;
        let bytes = |token: Token| {
            let mut bytes = Vec::new();
            self.tokenizer.append_bytes(token, &mut bytes);
            bytes
        };
        let mut likeliest: Vec<(Token, f32)> = all.into_iter().zip(logits).collect();
        likeliest.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let top = likeliest.iter().take(top as usize);
        let top = top.map(|(token, logit)| TopLogprob { bytes: bytes(*token), logprob: logprob(*logit) }).collect();
        let own = likeliest.iter().find(|(other, _)| *other == token).map_or(0.0, |(_, logit)| *logit);
        Ok(TokenLogprob { bytes: bytes(token), logprob: logprob(own), forced: false, top })
    }

    fn shift_kv(&mut self, slot: Slot, keep: u32, discard: u32) -> bool {
        if let Some(gate) = &self.shift_gate {
            gate.enter();
        }
        let cells = self.cells.get_mut(&slot).filter(|_| self.limits.can_shift);
        let Some(cells) = cells else { return false };
        cells.tokens.drain(keep as usize..(keep + discard) as usize);
        self.shifted.insert(slot);
        self.unfinished_shifts.insert(slot);
        self.update_probe(slot);
        true
    }

    fn truncate_kv(&mut self, slot: Slot, from: u32) -> bool {
        // As llama.cpp, which finds nothing to free there.
        let Some(cells) = self.cells.get_mut(&slot) else { return true };
        if from > 0 && self.limits.can_truncate_kv {
            cells.tokens.truncate(from as usize);
        } else if from == 0 || (from as usize) < cells.tokens.len() {
            self.shifted.remove(&slot);
            self.unfinished_shifts.remove(&slot);
            self.cells.remove(&slot);
        }
        self.update_probe(slot);
        from == 0 || self.cells.contains_key(&slot)
    }

    fn fingerprint(&self, adapters: AdapterSet) -> [u8; 32] {
        [adapters.0 as u8; 32]
    }

    fn save_state(&mut self, slot: Slot) -> Result<Vec<u8>, Error> {
        assert!(!self.unfinished_shifts.contains(&slot), "cells are saved after their shift is done");
        let empty = || Error::State("the slot is empty".to_owned());
        let cells = self.cells.get(&slot).ok_or_else(empty)?;
        let tokens = cells.tokens.iter().map(|token| token.0);
        let header = [cells.adapters.0.cast_signed(), i32::from(self.shifted.contains(&slot))];
        let numbers = header.into_iter().chain(tokens);
        Ok(numbers.flat_map(i32::to_le_bytes).collect())
    }

    fn restore_state(&mut self, slot: Slot, state: &[u8]) -> Result<(), Error> {
        self.restores += 1;
        if self.restore_faults.as_ref().is_some_and(|fails| fails(self.restores)) {
            return Err(Error::State("the script lets this fail".to_owned()));
        }
        let mut numbers = state.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let adapters = AdapterSet(numbers.next().unwrap_or_default().cast_unsigned());
        if numbers.next() == Some(1) {
            self.shifted.insert(slot);
        }
        assert!(!self.cells.contains_key(&slot), "only empty slots are filled");
        self.cells.insert(slot, ScriptedCells { adapters, tokens: numbers.map(Token).collect() });
        self.update_probe(slot);
        Ok(())
    }

    /// Unit vectors over words, so that texts with common words are close; the cosine of both for a pair.
    fn pool(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, Error> {
        if let Some(gate) = &self.pooling_gate {
            gate.enter();
        }
        assert!(texts.len() <= self.limits.sequences as usize, "a batch keeps to the limit");
        assert!(texts.iter().map(Vec::len).sum::<usize>() <= self.limits.batch_tokens as usize, "so do its tokens");
        let vector = |tokens: &[Token]| {
            word_vector(&tokens.iter().filter_map(|t| char::from_u32(t.0.cast_unsigned())).collect::<String>())
        };
        let pooled = |text: &Vec<Token>| match text.iter().position(|token| *token == PAIR_TOKEN) {
            None => vector(text),
            Some(at) => {
                let (query, document) = (vector(&text[..at]), vector(&text[at + 1..]));
                vec![query.iter().zip(&document).map(|(a, b)| a * b).sum(); 2]
            }
        };
        Ok(texts.iter().map(pooled).collect())
    }
}

fn word_vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0f32; 256];
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = word.bytes().fold(5381u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
        vector[hash as usize % 256] += 1.0;
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}
