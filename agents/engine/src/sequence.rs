//! One sequence: its tokens, its text, its reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::backend::{Text, Token};
use crate::request::{Chunk, Class, Error, Finish, Reason, Sampling, Timings, Usage};

/// What a [`crate::Handle`] hands to the worker.
pub(crate) struct Job {
    pub(crate) flow: Arc<str>,
    pub(crate) class: Class,
    pub(crate) prompt: Vec<Token>,
    /// Tokens of the prompt that others begin with too; 0 if there are too few to be worth it.
    pub(crate) opening: usize,
    pub(crate) adapter: Option<(std::path::PathBuf, f32)>,
    pub(crate) sampling: Sampling,
    pub(crate) schema: Option<Arc<Value>>,
    pub(crate) max_tokens: u32,
    pub(crate) stop: Vec<String>,
    pub(crate) reader: Reader,
    pub(crate) since: Instant,
}

/// The worker's end of a stream.
pub(crate) struct Reader {
    pub(crate) chunks: mpsc::Sender<Chunk>,
    /// Set when the stream was dropped.
    pub(crate) gone: Arc<AtomicBool>,
    /// Set by the worker when the channel is full; the stream then wakes it after the next read.
    pub(crate) full: Arc<AtomicBool>,
}

impl Reader {
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire) || self.chunks.is_closed()
    }

    /// Whether another step's chunks would find room: a step sends three at most: text, the rest of it and the end.
    pub(crate) fn has_room(&self) -> bool {
        if self.chunks.capacity() >= 3 {
            return true;
        }
        self.full.store(true, Ordering::Release);
        // The reader may have drained between the two lines above and found nothing to wake us for.
        self.chunks.capacity() >= 3
    }

    fn send(&self, chunk: Chunk) {
        // Room was checked before the step; a reader that is gone is found at the next step.
        let _ = self.chunks.try_send(chunk);
    }
}

/// What became of a sampled token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    On,
    Over(Reason),
}

/// A sequence that sits in a slot.
pub(crate) struct Sequence<S> {
    pub(crate) job: Job,
    pub(crate) arrival: u64,
    pub(crate) sampler: S,
    /// Tokens of the prompt that are in its cells.
    pub(crate) computed: u32,
    /// Of these, the ones that it found there.
    pub(crate) shared: u32,
    /// Whether its opening is to be kept when it is computed.
    pub(crate) keeps: bool,
    /// How long its opening took, as far as it was computed.
    pub(crate) effort: Duration,
    /// Tokens of its output, all but the last of which are in its cells.
    said: Vec<Token>,
    /// The token that was sampled last and is not computed yet.
    pub(crate) pending: Option<Token>,
    pub(crate) output: u32,
    /// Bytes that are not sent yet: half a character, or what may become a stop text.
    held: Vec<u8>,
    began: Option<Instant>,
    first: Option<Instant>,
}

impl<S> Sequence<S> {
    /// A sequence that finds so many tokens of its prompt in its cells.
    pub(crate) fn new(job: Job, arrival: u64, sampler: S, shared: u32, keeps: bool) -> Self {
        Self {
            job,
            arrival,
            sampler,
            computed: shared,
            shared,
            keeps,
            effort: Duration::ZERO,
            said: Vec::new(),
            pending: None,
            output: 0,
            held: Vec::new(),
            began: None,
            first: None,
        }
    }

    pub(crate) fn prompt_left(&self) -> u32 {
        self.job.prompt.len() as u32 - self.computed
    }

    /// Tokens to the next place where it stops in its prompt: the end of its opening, if that is to be kept, or its end.
    pub(crate) fn to_next_stop(&self) -> u32 {
        let opening = self.job.opening as u32;
        if self.keeps && self.computed < opening { opening - self.computed } else { self.prompt_left() }
    }

    /// Whether it has come to the end of an opening that is to be kept.
    pub(crate) fn is_at_opening(&self) -> bool {
        self.keeps && self.computed == self.job.opening as u32
    }

    /// What its cells hold.
    pub(crate) fn cells(&self) -> Vec<Token> {
        let said = &self.said[..self.said.len().saturating_sub(1)];
        [&self.job.prompt[..self.computed as usize], said].concat()
    }

    /// The tokens and the first position of a share of so many tokens.
    pub(crate) fn share(&self, tokens: u32) -> (u32, &[Token]) {
        if self.prompt_left() > 0 {
            let from = self.computed as usize;
            return (self.computed, &self.job.prompt[from..from + tokens as usize]);
        }
        (self.computed + self.output - 1, self.pending.as_slice())
    }

    /// Notes that a share was computed; says so while the prompt is not through.
    pub(crate) fn advance(&mut self, tokens: u32) {
        if self.prompt_left() > 0 {
            self.computed += tokens;
            let total = self.job.prompt.len() as u32;
            // Progress is a courtesy: it must never take the room that text needs.
            if self.job.reader.chunks.capacity() > 8 {
                self.job.reader.send(Chunk::Prefill { done: self.computed, total });
            }
        }
    }

    pub(crate) fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// Takes the next token in and sends what text is certain.
    pub(crate) fn take(&mut self, token: Token, text: &dyn Text) -> Went {
        self.first.get_or_insert_with(Instant::now);
        self.output += 1;
        self.said.push(token);
        self.pending = Some(token);
        text.bytes(token, &mut self.held);
        if let Some(at) = self.job.stop.iter().filter_map(|stop| find(&self.held, stop.as_bytes())).min() {
            self.held.truncate(at);
            return Went::Over(Reason::Stop);
        }
        let certain = self.held.len() - self.may_become_stop();
        self.send_text(whole_characters(&self.held[..certain]));
        if self.output >= self.job.max_tokens { Went::Over(Reason::Length) } else { Went::On }
    }

    pub(crate) fn finish(mut self, reason: Reason) {
        if self.first.is_none() {
            self.first = Some(Instant::now());
        }
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned();
        if !rest.is_empty() {
            self.job.reader.send(Chunk::Text { text: rest, tokens: self.output });
        }
        let prompt = self.job.prompt.len() as u32;
        let usage = Usage { prompt, computed: self.computed - self.shared, output: self.output };
        let finish = Finish { reason, usage, timings: self.timings() };
        self.job.reader.send(Chunk::Finished(finish));
    }

    pub(crate) fn fail(self, error: Error) {
        self.job.reader.send(Chunk::Failed(error));
    }

    fn timings(&self) -> Timings {
        let now = Instant::now();
        let began = self.began.unwrap_or(now);
        let first = self.first.unwrap_or(now);
        let between = |from: Instant, to: Instant| to.checked_duration_since(from).unwrap_or(Duration::ZERO);
        Timings { queue: between(self.job.since, began), prefill: between(began, first), decode: between(first, now) }
    }

    fn send_text(&mut self, bytes: usize) {
        if bytes > 0 {
            let rest = self.held.split_off(bytes);
            let text = String::from_utf8_lossy(&std::mem::replace(&mut self.held, rest)).into_owned();
            self.job.reader.send(Chunk::Text { text, tokens: self.output });
        }
    }

    /// How many bytes at the end could be the beginning of a stop text.
    fn may_become_stop(&self) -> usize {
        let held = &self.held;
        let part = |stop: &[u8]| (1..stop.len().min(held.len() + 1)).rev().find(|n| held.ends_with(&stop[..*n]));
        self.job.stop.iter().filter_map(|stop| part(stop.as_bytes())).max().unwrap_or(0)
    }
}

impl Job {
    pub(crate) fn fail(self, error: Error) {
        self.reader.send(Chunk::Failed(error));
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

/// The length of the longest beginning that ends with a whole character; bytes that can never be UTF-8 count as whole.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(e) if e.error_len().is_none() => e.valid_up_to(),
        Err(_) => {
            let tail = bytes.iter().rev().take(3).position(|b| *b >= 0xC0).map_or(0, |at| at + 1);
            bytes.len() - tail
        }
    }
}
