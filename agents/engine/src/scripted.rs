//! A backend that follows a script instead of a model, for tests of the engine and of everything above it.
//!
//! A token is a character. A reply is what the script makes of the whole rendered prompt. A [`Gate`] lets a test hold the
//! engine before a batch, so that no test has to sleep.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;

use crate::backend::{Backend, Embedded, Entry, Fault, Forced, Lane, Limits, Prompt, Sampled, Slot, Text, Token};
use crate::request::{Message, Sampling};

/// Makes a reply from the rendered prompt: its messages, a line each.
pub type Reply = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What happens at a batch instead of computing it.
pub type Accident = Arc<dyn Fn(u64, &[Entry]) -> Option<Fault> + Send + Sync>;

/// A scripted model.
pub struct Scripted {
    limits: Limits,
    reply: Reply,
    accident: Option<Accident>,
    gate: Option<Gate>,
    probe: Probe,
    /// By lane; the first lane has none.
    adapters: Vec<Option<String>>,
    cells: HashMap<(Lane, Slot), Vec<Token>>,
    /// Whose the entries of the last batch were, and how many cells there were up to each.
    last: Vec<(Slot, usize)>,
    /// Slots whose cells were moved since they were empty.
    moved: HashSet<(Lane, Slot)>,
    steps: u64,
}

/// Holds the engine before each batch until the test lets one more through.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<Passes>, Condvar)>);

#[derive(Default)]
struct Passes {
    left: u64,
    open: bool,
    waiting: bool,
}

impl Gate {
    /// Lets so many more batches through.
    pub fn pass(&self, batches: u64) {
        self.0.0.lock().expect("no test panics inside the gate").left += batches;
        self.0.1.notify_all();
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.0.0.lock().expect("no test panics inside the gate").open = true;
        self.0.1.notify_all();
    }

    /// Blocks until the engine has used up what was let through and stands at the gate.
    pub fn reached(&self) {
        let passes = self.0.0.lock().expect("no test panics inside the gate");
        drop(self.0.1.wait_while(passes, |p| !p.waiting || p.left > 0).expect("no test panics inside the gate"));
    }

    fn enter(&self) {
        let mut passes = self.0.0.lock().expect("no test panics inside the gate");
        passes.waiting = true;
        self.0.1.notify_all();
        passes = self.0.1.wait_while(passes, |p| !p.open && p.left == 0).expect("no test panics inside the gate");
        passes.left = passes.left.saturating_sub(1);
        passes.waiting = false;
    }
}

/// What a test can see of the model while it runs.
#[derive(Clone, Default)]
pub struct Probe(Arc<Mutex<HashMap<(Lane, Slot), usize>>>);

impl Probe {
    /// Cells in use, by lane and slot.
    pub fn cells(&self) -> HashMap<(Lane, Slot), usize> {
        self.0.lock().expect("no test panics inside the probe").clone()
    }
}

impl Scripted {
    /// A model that gives these replies.
    pub fn new(limits: Limits, reply: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self {
            limits,
            reply: Arc::new(reply),
            accident: None,
            gate: None,
            probe: Probe::default(),
            adapters: Vec::new(),
            cells: HashMap::new(),
            last: Vec::new(),
            moved: HashSet::new(),
            steps: 0,
        }
    }

    /// With accidents: asked before each batch with its number, from 1.
    pub fn with_accident(mut self, accident: impl Fn(u64, &[Entry]) -> Option<Fault> + Send + Sync + 'static) -> Self {
        self.accident = Some(Arc::new(accident));
        self
    }

    /// With a gate before each batch.
    pub fn with_gate(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// What can be seen from outside.
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    fn note(&self, at: (Lane, Slot)) {
        let mut cells = self.probe.0.lock().expect("no test panics inside the probe");
        match self.cells.get(&at) {
            Some(tokens) => cells.insert(at, tokens.len()),
            None => cells.remove(&at),
        };
    }
}

/// Characters are tokens; the reply begins where the prompt ends.
struct Characters;

impl Text for Characters {
    fn chat(&self, messages: &[Message]) -> Result<Prompt, String> {
        let tokens = |messages: &[Message]| {
            let lines = messages.iter().flat_map(|m| m.text.chars().chain(['\n']));
            lines.map(|c| Token(c as i32)).collect::<Vec<_>>()
        };
        let opening = tokens(&messages[..messages.len().saturating_sub(1)]).len();
        Ok(Prompt { tokens: tokens(messages), opening })
    }

    fn bytes(&self, token: Token, out: &mut Vec<u8>) {
        match u32::try_from(token.0).ok().and_then(char::from_u32) {
            Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => out.push((token.0 - RAW) as u8),
        }
    }

    fn answer(&self, text: &str) -> Result<Vec<Token>, String> {
        Ok(text.chars().map(|c| Token(c as i32)).collect())
    }

    fn end(&self) -> Token {
        Token(0)
    }
}

/// Tokens from here on are single bytes, above all characters.
const RAW: i32 = 0x11_0000;

/// The rest of a reply.
pub struct Rest {
    /// What the cells must hold when the next token is sampled.
    cells: Vec<Token>,
    /// Whether cells of this sequence may have been moved, so that they are no longer all there.
    moved: bool,
    tokens: std::vec::IntoIter<Token>,
    /// The schema forces the characters between these marks.
    forces: bool,
}

/// In a reply to a request with a schema, what follows this mark up to the next one is forced.
pub const FORCED: char = '|';

impl Backend for Scripted {
    type Sampler = Rest;

    fn limits(&self) -> Limits {
        self.limits
    }

    fn text(&self) -> Arc<dyn Text> {
        Arc::new(Characters)
    }

    fn lane(&mut self, adapter: &Path, scale: f32) -> Result<Lane, String> {
        let name = format!("{}@{scale}", adapter.display());
        if name.contains("missing") {
            return Err(format!("{name}: no such adapter"));
        }
        if let Some(at) = self.adapters.iter().position(|known| known.as_ref() == Some(&name)) {
            return Ok(Lane(at as u32 + 1));
        }
        let at = self.adapters.iter().position(Option::is_none).unwrap_or_else(|| {
            self.adapters.push(None);
            self.adapters.len() - 1
        });
        self.adapters[at] = Some(name);
        Ok(Lane(at as u32 + 1))
    }

    fn unload(&mut self, lane: Lane) {
        self.adapters[lane.0 as usize - 1] = None;
        self.cells.retain(|(l, _), _| *l != lane);
        self.probe.0.lock().expect("no test panics inside the probe").retain(|(l, _), _| *l != lane);
    }

    /// ASCII characters are a token each; the bytes of others are a token each, as in byte-level vocabularies.
    fn sampler(&mut self, _: &Sampling, schema: Option<&Value>, tokens: &[Token]) -> Result<Rest, String> {
        let prompt: String = tokens.iter().filter_map(|t| char::from_u32(t.0.cast_unsigned())).collect();
        let reply = (self.reply)(&prompt);
        let token = |byte: u8| Token(if byte.is_ascii() { i32::from(byte) } else { RAW + i32::from(byte) });
        let tokens_of_reply = reply.bytes().map(token).collect::<Vec<_>>().into_iter();
        Ok(Rest { cells: tokens.to_vec(), moved: false, tokens: tokens_of_reply, forces: schema.is_some() })
    }

    fn decode(&mut self, lane: Lane, batch: &[Entry]) -> Result<(), Fault> {
        if let Some(gate) = &self.gate {
            gate.enter();
        }
        self.steps += 1;
        if let Some(fault) = self.accident.as_ref().and_then(|accident| accident(self.steps, batch)) {
            return Err(fault);
        }
        assert!(batch.len() <= self.limits.batch as usize, "a batch keeps to the limit");
        for entry in batch {
            assert!(entry.slot.0 < self.limits.sequences, "slots keep to the limit");
            let cells = self.cells.entry((lane, entry.slot)).or_default();
            assert_eq!(cells.len(), entry.position as usize, "positions have no gap and nothing was left in the slot");
            assert!(cells.len() < self.limits.context as usize, "sequences keep to the context");
            cells.push(entry.token);
            self.note((lane, entry.slot));
        }
        self.last = batch.iter().map(|entry| (entry.slot, entry.position as usize + 1)).collect();
        Ok(())
    }

    fn sample(&mut self, lane: Lane, entry: usize, sampler: &mut Rest) -> Result<Sampled, String> {
        let (slot, count) = self.last[entry];
        let cells = &self.cells[&(lane, slot)][..count];
        sampler.moved |= self.moved.contains(&(lane, slot));
        assert!(sampler.moved || *cells == *sampler.cells, "a sequence runs on its own prompt and on what it said");
        let next = sampler.tokens.next();
        sampler.cells.extend(next);
        Ok(next.map_or(Sampled::End, Sampled::Token))
    }

    fn forced(&mut self, sampler: &mut Rest) -> Result<Forced, String> {
        let (mark, mut forced) = (Token(FORCED as i32), Forced::default());
        while sampler.forces && sampler.tokens.as_slice().first() == Some(&mark) {
            let rest = &sampler.tokens.as_slice()[1..];
            let length = rest.iter().take_while(|token| **token != mark).count();
            forced.tokens.extend(&rest[..length]);
            forced.complete = rest.len() <= length + 1;
            sampler.tokens = rest.get(length + 1..).unwrap_or_default().to_vec().into_iter();
        }
        sampler.cells.extend(&forced.tokens);
        Ok(forced)
    }

    /// The token that the reply goes on with is `e` to the fifth times as likely as each other one.
    fn scores(&mut self, lane: Lane, entry: usize, tokens: &[Token]) -> Result<Vec<f32>, String> {
        let (slot, count) = self.last[entry];
        let cells: String =
            self.cells[&(lane, slot)][..count].iter().filter_map(|t| char::from_u32(t.0.cast_unsigned())).collect();
        let (prompt, said) = cells.rsplit_once('\n').unwrap_or_default();
        let reply = (self.reply)(&format!("{prompt}\n"));
        let next = reply.strip_prefix(said).map(|rest| rest.chars().next().unwrap_or('\0'));
        let score = |token: &Token| if next.map(|c| c as i32) == Some(token.0) { 5.0 } else { 0.0 };
        Ok(tokens.iter().map(score).collect())
    }

    fn shift(&mut self, lane: Lane, slot: Slot, keep: u32, drop: u32) -> bool {
        let Some(cells) = self.cells.get_mut(&(lane, slot)).filter(|_| self.limits.shifts) else { return false };
        cells.drain(keep as usize..(keep + drop) as usize);
        self.moved.insert((lane, slot));
        self.note((lane, slot));
        true
    }

    fn trim(&mut self, lane: Lane, slot: Slot, from: u32) -> bool {
        match self.cells.get_mut(&(lane, slot)) {
            Some(cells) if from > 0 && self.limits.rewinds => cells.truncate(from as usize),
            Some(cells) if from as usize >= cells.len() => {}
            _ => {
                self.moved.remove(&(lane, slot));
                self.cells.remove(&(lane, slot));
            }
        }
        self.note((lane, slot));
        from == 0 || self.cells.contains_key(&(lane, slot))
    }

    fn fingerprint(&self, lane: Lane) -> [u8; 32] {
        [lane.0 as u8; 32]
    }

    fn save(&mut self, lane: Lane, slot: Slot) -> Result<Vec<u8>, String> {
        let cells = self.cells.get(&(lane, slot)).ok_or("the slot is empty")?;
        let numbers = std::iter::once(lane.0.cast_signed()).chain(cells.iter().map(|token| token.0));
        Ok(numbers.flat_map(i32::to_le_bytes).collect())
    }

    fn restore(&mut self, lane: Lane, slot: Slot, state: &[u8]) -> Result<(), String> {
        let mut numbers = state.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        assert_eq!(numbers.next(), Some(lane.0.cast_signed()), "cells stay in their lane");
        assert!(!self.cells.contains_key(&(lane, slot)), "only empty slots are filled");
        self.cells.insert((lane, slot), numbers.map(Token).collect());
        self.note((lane, slot));
        Ok(())
    }

    /// Unit vectors over words, so that texts with common words lie close.
    fn embed(&mut self, texts: &[String]) -> Result<Embedded, String> {
        let tokens = texts.iter().map(|text| text.chars().count() as u32).sum();
        Ok(Embedded { vectors: texts.iter().map(|text| words(text)).collect(), tokens })
    }
}

fn words(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0f32; 256];
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = word.bytes().fold(5381u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
        vector[hash as usize % 256] += 1.0;
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}
