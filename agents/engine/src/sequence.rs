//! One sequence: its tokens, its text, its reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::backend::{Forced, Text, Token};
use crate::choice::Choosing;
use crate::draft::Lookup;
use crate::request::{Chunk, Class, Error, Finish, Reason, Sampling, Timings, Usage};

/// What a [`crate::Handle`] hands to the worker.
pub(crate) struct Job {
    pub(crate) flow: Arc<str>,
    pub(crate) class: Class,
    /// Steps that its task must do after this one.
    pub(crate) left: u32,
    pub(crate) prompt: Vec<Token>,
    /// Tokens of the prompt that others begin with too; 0 if there are too few to be worth it.
    pub(crate) opening: usize,
    pub(crate) adapter: Option<(std::path::PathBuf, f32)>,
    pub(crate) sampling: Sampling,
    pub(crate) schema: Option<Arc<Value>>,
    pub(crate) max_tokens: u32,
    pub(crate) stop: Vec<String>,
    /// Whether it may forget what came first after its opening when it outgrows the context.
    pub(crate) shifts: bool,
    /// The labels between which it chooses; it writes if there are none.
    pub(crate) choice: Option<Choosing>,
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

    /// Whether another step's chunks would find room: a step sends three at most: text or scores, the rest and the end.
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

/// What became of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    On,
    Over(Reason),
}

/// What a sequence is there for.
pub(crate) enum Work<S> {
    /// Its opening alone, for others.
    Prime,
    /// A text.
    Write(S),
    /// One of a few labels.
    Choose(Choosing),
}

/// A sequence that sits in a slot.
pub(crate) struct Sequence<S> {
    pub(crate) job: Job,
    pub(crate) arrival: u64,
    pub(crate) work: Work<S>,
    /// Tokens of the prompt that are in its cells.
    pub(crate) computed: u32,
    /// Of these, the ones that it found there.
    pub(crate) shared: u32,
    /// Whether its opening is to be kept when it is computed.
    pub(crate) keeps: bool,
    /// How long its opening took, as far as it was computed.
    pub(crate) effort: Duration,
    /// How its output must begin, unless it was taken into the prompt.
    pub(crate) lead: Option<Forced>,
    /// Tokens at the end of the prompt that are the beginning of the output.
    led: u32,
    /// The tokens behind its prompt: its output, or the way to the next place of a choice.
    said: Vec<Token>,
    /// How many of these are in its cells.
    behind: usize,
    /// Tokens that are likely to come next, computed on trial in the next batch.
    draft: Vec<Token>,
    lookup: Lookup,
    /// Cells that were forgotten because it outgrew the context.
    forgotten: u32,
    /// How many cells at the beginning are as they were, once any are forgotten.
    intact: Option<u32>,
    usage: Usage,
    /// Bytes that are not sent yet: half a character, or what may become a stop text.
    held: Vec<u8>,
    clock: Clock,
}

/// When things happened to a sequence.
#[derive(Debug, Default)]
struct Clock {
    began: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    gap: Duration,
}

impl<S> Sequence<S> {
    /// A sequence that finds so many tokens of its prompt in its cells.
    pub(crate) fn new(job: Job, arrival: u64, work: Work<S>, shared: u32, keeps: bool) -> Self {
        Self {
            job,
            arrival,
            work,
            computed: shared,
            shared,
            keeps,
            effort: Duration::ZERO,
            lead: None,
            led: 0,
            said: Vec::new(),
            behind: 0,
            draft: Vec::new(),
            lookup: Lookup::default(),
            forgotten: 0,
            intact: None,
            usage: Usage::default(),
            held: Vec::new(),
            clock: Clock::default(),
        }
    }

    /// Has what its output must begin with computed as a part of the prompt, where nothing in it can end the output and it fits
    /// into the context; gives how many tokens that are.
    pub(crate) fn lead(&mut self, forced: Forced, text: &dyn Text, context: u32) -> u32 {
        let ends = forced.complete
            || forced.tokens.len() as u64 >= u64::from(self.job.max_tokens)
            || self.job.prompt.len() + forced.tokens.len() >= context as usize;
        if ends || !self.job.stop.is_empty() {
            self.lead = Some(forced);
            return 0;
        }
        for token in forced.tokens {
            text.bytes(token, &mut self.held);
            self.job.prompt.push(token);
            self.led += 1;
        }
        self.usage.output += self.led;
        self.usage.forced += self.led;
        self.led
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

    /// Tokens behind the prompt that must be computed before anything can be sampled.
    pub(crate) fn certain(&self) -> u32 {
        (self.said.len() - self.behind) as u32
    }

    /// Tokens that may be computed on trial behind these.
    pub(crate) fn drafted(&self) -> u32 {
        self.draft.len() as u32
    }

    /// The position of the next cell.
    pub(crate) fn position(&self) -> u32 {
        self.computed + self.behind as u32 - self.forgotten
    }

    /// What its cells hold, as far as it is a beginning of something.
    pub(crate) fn cells(&self) -> Vec<Token> {
        if let Some(intact) = self.intact {
            return self.job.prompt[..intact as usize].to_vec();
        }
        [&self.job.prompt[..self.computed as usize], &self.said[..self.behind]].concat()
    }

    /// The first position and the tokens of a share of so many tokens.
    pub(crate) fn share(&self, tokens: u32) -> (u32, Vec<Token>) {
        let tokens = tokens as usize;
        if self.prompt_left() > 0 {
            let from = self.computed as usize;
            return (self.computed, self.job.prompt[from..from + tokens].to_vec());
        }
        let all = self.said[self.behind..].iter().chain(&self.draft);
        (self.position(), all.take(tokens).copied().collect())
    }

    /// Notes that a share was computed; says so while the prompt is not through. Drafts are not noted here.
    pub(crate) fn advance(&mut self, tokens: u32) {
        if self.prompt_left() > 0 {
            self.computed += tokens;
            let total = self.job.prompt.len() as u32;
            // Progress is a courtesy: it must never take the room that text needs.
            if self.job.reader.chunks.capacity() > 8 {
                self.job.reader.send(Chunk::Prefill { done: self.computed, total });
            }
        } else {
            let certain = tokens.min(self.certain());
            self.behind += certain as usize;
            self.usage.drafted += tokens - certain;
        }
    }

    /// Counts the drafted tokens that were computed, from the given one on, and are what has come. True if all that has come
    /// is computed now, so that there are logits to go on from.
    pub(crate) fn confirm(&mut self, computed: u32, right: &mut u32) -> bool {
        while *right < computed && self.said.get(self.behind) == self.draft.get(*right as usize) {
            self.behind += 1;
            *right += 1;
            self.usage.accepted += 1;
        }
        self.behind == self.said.len()
    }

    /// Proposes what may come next, at most so many tokens.
    pub(crate) fn propose(&mut self, most: u32) {
        let most = most.min(self.job.max_tokens.saturating_sub(self.usage.output + 1));
        self.draft.clear();
        if most > 0 {
            self.draft = self.lookup.propose(&self.job.prompt, &self.said, most as usize);
        }
    }

    /// Keeps so many of the proposed tokens.
    pub(crate) fn draft_at_most(&mut self, tokens: u32) {
        self.draft.truncate(tokens as usize);
    }

    /// Goes on to another place of a choice. Gives the position from which on its cells are to be freed.
    pub(crate) fn go(&mut self, way: Vec<Token>) -> u32 {
        let same = self.said[..self.behind].iter().zip(&way).take_while(|(a, b)| a == b).count();
        self.behind = same.min(way.len() - 1);
        self.usage.computed += (way.len() - self.behind) as u32;
        self.said = way;
        self.position()
    }

    /// Which cells to forget so that the sequence can go on in so many: all that are kept at the beginning, and all that go
    /// after them. Half of what is no opening goes, so that this is seldom done.
    pub(crate) fn forgets(&self, context: u32) -> Option<(u32, u32)> {
        let keep = (self.job.opening as u32).min(context / 2);
        (self.job.shifts && self.position() + self.certain() > context)
            .then(|| (keep, (self.position() - keep).div_ceil(2)))
    }

    /// Notes that so many cells are forgotten behind the first `keep`.
    pub(crate) fn forget(&mut self, keep: u32, cells: u32) {
        self.forgotten += cells;
        self.intact = Some(keep);
    }

    pub(crate) fn begin(&mut self) {
        self.clock.began.get_or_insert_with(Instant::now);
    }

    /// Takes the next token in; [`Self::flush`] sends it.
    pub(crate) fn take(&mut self, token: Token, text: &dyn Text) -> Went {
        self.clock.first.get_or_insert_with(Instant::now);
        self.usage.output += 1;
        self.said.push(token);
        text.bytes(token, &mut self.held);
        if let Some(at) = self.job.stop.iter().filter_map(|stop| find(&self.held, stop.as_bytes())).min() {
            self.held.truncate(at);
            return Went::Over(Reason::Stop);
        }
        if self.usage.output >= self.job.max_tokens { Went::Over(Reason::Length) } else { Went::On }
    }

    /// Takes in what the schema forces.
    pub(crate) fn take_forced(&mut self, forced: &Forced, text: &dyn Text) -> Went {
        for token in &forced.tokens {
            self.usage.forced += 1;
            if let Went::Over(reason) = self.take(*token, text) {
                let last = forced.complete && forced.tokens.last() == Some(token);
                return Went::Over(if last && reason == Reason::Length { Reason::End } else { reason });
            }
        }
        if forced.complete { Went::Over(Reason::End) } else { Went::On }
    }

    /// Sends what text is certain.
    pub(crate) fn flush(&mut self) {
        let now = Instant::now();
        let since = self.clock.last.replace(now).map(|last| now - last);
        self.clock.gap = self.clock.gap.max(since.unwrap_or_default());
        let certain = self.held.len() - self.may_become_stop();
        self.send_text(whole_characters(&self.held[..certain]));
    }

    pub(crate) fn send_scores(&self, scores: Vec<f64>) {
        self.job.reader.send(Chunk::Scores(scores));
    }

    pub(crate) fn finish(mut self, reason: Reason) {
        self.clock.first.get_or_insert_with(Instant::now);
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned();
        if !rest.is_empty() {
            self.job.reader.send(Chunk::Text { text: rest, tokens: self.usage.output });
        }
        let computed = (self.computed - self.shared).saturating_sub(self.led) + self.usage.computed;
        let usage = Usage { prompt: self.job.prompt.len() as u32 - self.led, computed, ..self.usage };
        self.job.reader.send(Chunk::Finished(Finish { reason, usage, timings: self.timings() }));
    }

    pub(crate) fn fail(self, error: Error) {
        self.job.reader.send(Chunk::Failed(error));
    }

    fn timings(&self) -> Timings {
        let (now, clock) = (Instant::now(), &self.clock);
        let began = clock.began.unwrap_or(now);
        let first = clock.first.unwrap_or(now);
        let between = |from: Instant, to: Instant| to.checked_duration_since(from).unwrap_or(Duration::ZERO);
        Timings {
            queue: between(self.job.since, began),
            prefill: between(began, first),
            decode: between(first, now),
            gap: clock.gap,
        }
    }

    fn send_text(&mut self, bytes: usize) {
        if bytes > 0 {
            let rest = self.held.split_off(bytes);
            let text = String::from_utf8_lossy(&std::mem::replace(&mut self.held, rest)).into_owned();
            self.job.reader.send(Chunk::Text { text, tokens: self.usage.output });
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
