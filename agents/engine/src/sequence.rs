//! One sequence: its tokens, its text, its output channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;
use tracing::Span;

use crate::backend::{AdapterSet, ForcedTokens, Token, Tokenizer};
use crate::draft::PromptLookup;
use crate::job_calls::JobCalls;
use crate::label_score::LabelScoring;
use crate::reasoning::SequenceReasoning;
use crate::request::{
    Chunk, Error, FinishReason, FinishSummary, Priority, RequestTimings, RequestUsage, SamplingParams, ScaledAdapters,
    TokenLogprob,
};
use crate::slot_table::HasAdapters;

/// A tokenized request, as an [`crate::EngineHandle`] hands it to the worker.
pub(crate) struct Job {
    /// The span of the log lines about it.
    pub(crate) span: Span,
    pub(crate) flow: Arc<str>,
    pub(crate) priority: Priority,
    /// Steps that remain of its task after this one.
    pub(crate) remaining_steps: u32,
    pub(crate) prompt: Vec<Token>,
    /// Tokens of the prompt that other prompts begin with too; 0 if there are too few to be worth caching.
    pub(crate) prefix_len: usize,
    /// Whether these are the same for every task.
    pub(crate) has_fixed_prefix: bool,
    pub(crate) adapters: ScaledAdapters,
    pub(crate) sampling: SamplingParams,
    /// How many of the likeliest tokens are told at each place.
    pub(crate) logprobs: Option<u32>,
    /// Whether other jobs with the same prompt are there or come.
    pub(crate) shares_prompt: bool,
    pub(crate) schema: Option<Arc<Value>>,
    /// What tells calls of tools from text, if it has tools.
    pub(crate) calls: Option<JobCalls>,
    pub(crate) max_tokens: u32,
    pub(crate) stop: Vec<String>,
    /// How its reasoning is told from its answer; none if there is none to be told.
    pub(crate) reasoning: Option<Box<SequenceReasoning>>,
    /// Whether it may discard its oldest tokens behind the prefix when it outgrows the context.
    pub(crate) can_shift: bool,
    /// The labels to score; it generates text if there are none.
    pub(crate) scoring: Option<LabelScoring>,
    pub(crate) output: OutputSender,
    pub(crate) since: Instant,
}

/// The worker's end of a stream.
pub(crate) struct OutputSender {
    pub(crate) chunks: mpsc::Sender<Chunk>,
    /// Set when the stream was dropped.
    pub(crate) is_dropped: Arc<AtomicBool>,
    /// Set by the worker when the channel is full; the stream then wakes it after the next read.
    pub(crate) is_full: Arc<AtomicBool>,
}

impl OutputSender {
    /// Whether the stream was dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_dropped.load(Ordering::Acquire) || self.chunks.is_closed()
    }

    /// Whether the chunks of another batch fit: at most three, which are text or scores, calls or the remaining text, and the end.
    pub(crate) fn has_capacity(&self) -> bool {
        if self.chunks.capacity() >= 3 {
            return true;
        }
        self.is_full.store(true, Ordering::Release);
        // The reader may have drained between the two lines above, before it could see that it must wake us.
        self.chunks.capacity() >= 3
    }

    fn send(&self, chunk: Chunk) {
        // Capacity was checked before the batch; a dropped stream is found before the next one.
        let _ = self.chunks.try_send(chunk);
    }
}

/// What follows from a sampled token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SampleOutcome {
    Continue,
    Finished(FinishReason),
}

/// The purpose of a sequence.
pub(crate) enum SequenceKind<S> {
    /// Prefill alone, for later requests.
    Prefill,
    /// Generate text.
    Generate(S),
    /// Score labels.
    Score(LabelScoring),
}

/// A sequence in a slot.
pub(crate) struct Sequence<S> {
    pub(crate) job: Job,
    pub(crate) adapters: AdapterSet,
    pub(crate) arrival: u64,
    pub(crate) kind: SequenceKind<S>,
    /// Tokens of the prompt that are in its cells.
    pub(crate) num_computed_prompt_tokens: u32,
    /// Of these, the ones that a slot or a cache had.
    pub(crate) num_cached_tokens: u32,
    /// Whether its prefix is to be cached once it is computed.
    pub(crate) caches_prefix: bool,
    /// Time that its prompt took, as far as it was computed.
    pub(crate) prefill_time: Duration,
    /// The tokens that its output must begin with, unless they were appended to the prompt.
    pub(crate) forced_start: Option<ForcedTokens>,
    /// Tokens at the end of the prompt that are the beginning of the output.
    num_forced_prompt_tokens: u32,
    /// The tokens behind its prompt: its output, or the path to the next node of a label scoring.
    output_tokens: Vec<Token>,
    /// How many of these are in its cells.
    num_computed_output_tokens: usize,
    /// Tokens that are likely to come next, verified in the next batch.
    draft: Vec<Token>,
    lookup: PromptLookup,
    /// Cells that were discarded because it outgrew the context.
    discarded_cells: u32,
    /// How many cells at the beginning are unchanged, once any were discarded.
    intact_cells: Option<u32>,
    usage: RequestUsage,
    /// Bytes that are not sent yet: part of a character, or a possible beginning of a stop text.
    unsent_bytes: Vec<u8>,
    /// Bytes that are sent.
    sent_bytes: usize,
    /// The tokens that are not sent yet, by the bytes of output before them.
    unsent_logprobs: Vec<(usize, TokenLogprob)>,
    clock: SequenceClock,
}

/// Times of a sequence.
#[derive(Debug, Default)]
struct SequenceClock {
    first_batch: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    max_itl: Duration,
}

impl<S> HasAdapters for Sequence<S> {
    fn adapters(&self) -> AdapterSet {
        self.adapters
    }
}

impl<S> Sequence<S> {
    /// A sequence that has so many tokens of its prompt in its cells already.
    pub(crate) fn new(
        job: Job,
        (adapters, arrival): (AdapterSet, u64),
        kind: SequenceKind<S>,
        num_cached_tokens: u32,
        caches_prefix: bool,
    ) -> Self {
        Self {
            job,
            adapters,
            arrival,
            kind,
            num_computed_prompt_tokens: num_cached_tokens,
            num_cached_tokens,
            caches_prefix,
            prefill_time: Duration::ZERO,
            forced_start: None,
            num_forced_prompt_tokens: 0,
            output_tokens: Vec::new(),
            num_computed_output_tokens: 0,
            draft: Vec::new(),
            lookup: PromptLookup::default(),
            discarded_cells: 0,
            intact_cells: None,
            usage: RequestUsage::default(),
            unsent_bytes: Vec::new(),
            sent_bytes: 0,
            unsent_logprobs: Vec::new(),
            clock: SequenceClock::default(),
        }
    }

    /// Appends the tokens that its output must begin with to the prompt, where nothing in them can end the output and they fit
    /// into the context; returns how many they are.
    pub(crate) fn append_forced_start(
        &mut self,
        forced: ForcedTokens,
        tokenizer: &dyn Tokenizer,
        context_tokens: u32,
    ) -> u32 {
        let may_end = forced.is_complete
            || forced.tokens.len() as u64 >= u64::from(self.job.max_tokens)
            || self.job.prompt.len() + forced.tokens.len() >= context_tokens as usize;
        if may_end || !self.job.stop.is_empty() {
            self.forced_start = Some(forced);
            return 0;
        }
        for token in forced.tokens {
            self.append_bytes(token, tokenizer, None);
            self.job.prompt.push(token);
            self.num_forced_prompt_tokens += 1;
        }
        self.usage.output += self.num_forced_prompt_tokens;
        self.usage.forced += self.num_forced_prompt_tokens;
        self.num_forced_prompt_tokens
    }

    /// Tokens of the prompt that are not computed yet.
    pub(crate) fn prompt_remaining(&self) -> u32 {
        self.job.prompt.len() as u32 - self.num_computed_prompt_tokens
    }

    /// Tokens to the next point where its prefill stops: the end of its prefix, if that is to be cached, or of the prompt.
    pub(crate) fn prefill_to_next_stop(&self) -> u32 {
        let (prefix_len, computed) = (self.job.prefix_len as u32, self.num_computed_prompt_tokens);
        if self.caches_prefix && computed < prefix_len { prefix_len - computed } else { self.prompt_remaining() }
    }

    /// Whether it has just computed a prefix that is to be cached.
    pub(crate) fn is_at_prefix_end(&self) -> bool {
        self.caches_prefix && self.num_computed_prompt_tokens == self.job.prefix_len as u32
    }

    /// Tokens behind the prompt that must be computed before the next one can be sampled.
    pub(crate) fn uncomputed_output(&self) -> u32 {
        (self.output_tokens.len() - self.num_computed_output_tokens) as u32
    }

    /// Draft tokens that may be verified behind these.
    pub(crate) fn draft_len(&self) -> u32 {
        self.draft.len() as u32
    }

    /// The position of the next cell.
    pub(crate) fn position(&self) -> u32 {
        self.num_computed_prompt_tokens + self.num_computed_output_tokens as u32 - self.discarded_cells
    }

    /// The tokens in its cells, as far as they are a prefix of its text.
    pub(crate) fn resident_tokens(&self) -> Vec<Token> {
        if let Some(intact) = self.intact_cells {
            return self.job.prompt[..intact as usize].to_vec();
        }
        let prompt = &self.job.prompt[..self.num_computed_prompt_tokens as usize];
        [prompt, &self.output_tokens[..self.num_computed_output_tokens]].concat()
    }

    /// The first position and the tokens of its next `tokens` in a batch.
    pub(crate) fn next_tokens(&self, tokens: u32) -> (u32, Vec<Token>) {
        let tokens = tokens as usize;
        if self.prompt_remaining() > 0 {
            let from = self.num_computed_prompt_tokens as usize;
            return (self.num_computed_prompt_tokens, self.job.prompt[from..from + tokens].to_vec());
        }
        let all = self.output_tokens[self.num_computed_output_tokens..].iter().chain(&self.draft);
        (self.position(), all.take(tokens).copied().collect())
    }

    /// Counts `tokens` as computed, and reports progress of the prefill. Draft tokens are not counted as computed here.
    pub(crate) fn advance(&mut self, tokens: u32) {
        if self.prompt_remaining() > 0 {
            self.num_computed_prompt_tokens += tokens;
            let total = self.job.prompt.len() as u32;
            // Progress is optional: it must never take the capacity that text needs.
            if self.job.output.chunks.capacity() > 8 {
                self.job.output.send(Chunk::Prefill { done: self.num_computed_prompt_tokens, total });
            }
        } else {
            let certain = tokens.min(self.uncomputed_output());
            self.num_computed_output_tokens += certain as usize;
            self.usage.drafted += tokens - certain;
        }
    }

    /// Counts the draft tokens, of `computed` in the batch and from index `accepted` on, that equal the sampled ones. True if all
    /// output is computed now, so that there are logits to sample from.
    pub(crate) fn accept_draft(&mut self, computed: u32, accepted: &mut u32) -> bool {
        while *accepted < computed
            && self.output_tokens.get(self.num_computed_output_tokens) == self.draft.get(*accepted as usize)
        {
            self.num_computed_output_tokens += 1;
            *accepted += 1;
            self.usage.accepted += 1;
        }
        self.num_computed_output_tokens == self.output_tokens.len()
    }

    /// Looks up a draft of at most `max_tokens`.
    pub(crate) fn propose_draft(&mut self, max_tokens: u32) {
        let max_tokens = max_tokens.min(self.job.max_tokens.saturating_sub(self.usage.output + 1));
        self.draft.clear();
        if max_tokens > 0 {
            self.draft = self.lookup.propose(&self.job.prompt, &self.output_tokens, max_tokens as usize);
        }
    }

    /// Shortens the draft.
    pub(crate) fn truncate_draft(&mut self, tokens: u32) {
        self.draft.truncate(tokens as usize);
    }

    /// Turns to another node of a label scoring. Returns the position from which on its cells are to be freed.
    pub(crate) fn turn_to(&mut self, path: Vec<Token>) -> u32 {
        let computed = &self.output_tokens[..self.num_computed_output_tokens];
        let common = computed.iter().zip(&path).take_while(|(a, b)| a == b).count();
        self.num_computed_output_tokens = common.min(path.len() - 1);
        self.usage.computed += (path.len() - self.num_computed_output_tokens) as u32;
        self.output_tokens = path;
        self.position()
    }

    /// The context shift that lets the sequence continue, if it must and may: the cells to keep at the beginning and the cells to
    /// discard after them. Half of the cells behind the prefix are discarded, so that this is rare.
    pub(crate) fn due_shift(&self, context_tokens: u32) -> Option<(u32, u32)> {
        let keep = (self.job.prefix_len as u32).min(context_tokens / 2);
        (self.job.can_shift && self.position() + self.uncomputed_output() > context_tokens)
            .then(|| (keep, (self.position() - keep).div_ceil(2)))
    }

    /// Records that so many cells behind the first `keep` were discarded.
    pub(crate) fn record_shift(&mut self, keep: u32, discarded: u32) {
        self.discarded_cells += discarded;
        self.intact_cells = Some(keep);
    }

    /// Records the time of its first batch.
    pub(crate) fn record_batch(&mut self) {
        self.clock.first_batch.get_or_insert_with(Instant::now);
    }

    /// Appends the bytes of a token, as far as they are text, and, if they are asked for, its probability; without one, it was forced.
    fn append_bytes(&mut self, token: Token, tokenizer: &dyn Tokenizer, logprob: Option<TokenLogprob>) {
        let from = self.unsent_bytes.len();
        match (&mut self.job.reasoning, &mut self.job.calls) {
            (None, None) => tokenizer.append_bytes(token, &mut self.unsent_bytes),
            (None, Some(calls)) => calls.push(token, tokenizer, &mut self.unsent_bytes),
            (Some(reasoning), None) => reasoning.push(token, tokenizer, &mut self.unsent_bytes),
            (Some(reasoning), Some(calls)) => {
                let mut answer = Vec::new();
                reasoning.push(token, tokenizer, &mut answer);
                calls.push_marked(&answer, &mut self.unsent_bytes);
            }
        }
        // Those of a reasoning and of calls are not told.
        let is_plain = self.job.reasoning.is_none() && self.job.calls.is_none();
        let is_text = is_plain || self.unsent_bytes.len() > from;
        if self.job.logprobs.is_some() && is_text {
            let forced = || TokenLogprob::forced(self.unsent_bytes[from..].to_vec());
            let logprob = logprob.unwrap_or_else(forced);
            self.unsent_logprobs.push((self.sent_bytes + from, logprob));
        }
    }

    /// Appends the next token; [`Self::flush`] sends it. `logprob` is that of a sampled token, if it is asked for.
    pub(crate) fn push_token(
        &mut self,
        token: Token,
        tokenizer: &dyn Tokenizer,
        logprob: Option<TokenLogprob>,
    ) -> SampleOutcome {
        self.clock.first_token.get_or_insert_with(Instant::now);
        self.usage.output += 1;
        self.output_tokens.push(token);
        self.append_bytes(token, tokenizer, logprob);
        if let Some(at) = self.job.stop.iter().filter_map(|stop| find(&self.unsent_bytes, stop.as_bytes())).min() {
            self.unsent_bytes.truncate(at);
            return SampleOutcome::Finished(FinishReason::StopText);
        }
        if self.usage.output >= self.job.max_tokens {
            SampleOutcome::Finished(FinishReason::Length)
        } else {
            SampleOutcome::Continue
        }
    }

    /// Appends the tokens that the schema forces, or the end of a reasoning.
    pub(crate) fn push_forced(&mut self, forced: &ForcedTokens, tokenizer: &dyn Tokenizer) -> SampleOutcome {
        for token in &forced.tokens {
            self.usage.forced += 1;
            if let SampleOutcome::Finished(reason) = self.push_token(*token, tokenizer, None) {
                let is_last = forced.is_complete && forced.tokens.last() == Some(token);
                let is_whole = is_last && reason == FinishReason::Length;
                return SampleOutcome::Finished(if is_whole { FinishReason::Stop } else { reason });
            }
        }
        if forced.is_complete { SampleOutcome::Finished(FinishReason::Stop) } else { SampleOutcome::Continue }
    }

    /// Sends the text that no later token can change.
    pub(crate) fn flush(&mut self) {
        let now = Instant::now();
        let latency = self.clock.last_token.replace(now).map(|last| now - last);
        self.clock.max_itl = self.clock.max_itl.max(latency.unwrap_or_default());
        self.send_reasoning(false);
        let certain = self.unsent_bytes.len() - self.possible_stop_bytes();
        self.send_text(whole_characters(&self.unsent_bytes[..certain]));
        self.send_calls();
    }

    pub(crate) fn send_scores(&self, scores: Vec<f64>) {
        self.job.output.send(Chunk::Scores(scores));
    }

    pub(crate) fn finish(mut self, reason: FinishReason) {
        self.clock.first_token.get_or_insert_with(Instant::now);
        let mut reason = reason;
        let mut answer = Vec::new();
        if let Some(reasoning) = &mut self.job.reasoning {
            if reason != FinishReason::StopText {
                reasoning.finish(&mut answer);
            }
            self.usage.reasoning = reasoning.tokens();
        }
        match &mut self.job.calls {
            Some(calls) => {
                calls.push_marked(&answer, &mut self.unsent_bytes);
                calls.finish(&mut self.unsent_bytes);
                if reason == FinishReason::Stop && calls.has_calls() {
                    reason = FinishReason::Calls;
                }
            }
            None => self.unsent_bytes.append(&mut answer),
        }
        self.send_reasoning(true);
        // An output that is cut may end within a character.
        self.send_text(whole_characters(&self.unsent_bytes));
        self.send_calls();
        let prefilled = self.num_computed_prompt_tokens - self.num_cached_tokens;
        let computed = prefilled.saturating_sub(self.num_forced_prompt_tokens) + self.usage.computed;
        let prompt = self.job.prompt.len() as u32 - self.num_forced_prompt_tokens;
        let usage = RequestUsage { prompt, computed, ..self.usage };
        let summary = FinishSummary { reason, usage, timings: self.timings() };
        self.job.log_finished(&summary);
        self.job.output.send(Chunk::Finished(summary));
    }

    pub(crate) fn fail(self, error: Error) {
        self.job.fail(error);
    }

    fn timings(&self) -> RequestTimings {
        let (now, clock) = (Instant::now(), &self.clock);
        let first_batch = clock.first_batch.unwrap_or(now);
        let first_token = clock.first_token.unwrap_or(now);
        let between = |from: Instant, to: Instant| to.checked_duration_since(from).unwrap_or(Duration::ZERO);
        RequestTimings {
            queue: between(self.job.since, first_batch),
            prefill: between(first_batch, first_token),
            decode: between(first_token, now),
            max_itl: clock.max_itl,
        }
    }

    /// Sends the reasoning, as far as its characters are whole; what is left at its end never will be.
    fn send_reasoning(&mut self, is_end: bool) {
        let Some(reasoning) = &mut self.job.reasoning else { return };
        let bytes = reasoning.unsent_bytes();
        let whole = whole_characters(bytes);
        if whole > 0 {
            let text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
            bytes.drain(..whole);
            self.job.output.send(Chunk::Reasoning { text, tokens: self.usage.output });
        }
        if is_end || !reasoning.is_inside() {
            reasoning.unsent_bytes().clear();
        }
    }

    fn send_text(&mut self, bytes: usize) {
        if bytes > 0 {
            let rest = self.unsent_bytes.split_off(bytes);
            let text = String::from_utf8_lossy(&std::mem::replace(&mut self.unsent_bytes, rest)).into_owned();
            self.sent_bytes += bytes;
            let begun = self.unsent_logprobs.iter().take_while(|(from, _)| *from < self.sent_bytes).count();
            let logprobs = self.unsent_logprobs.drain(..begun).map(|(_, logprob)| logprob).collect();
            self.job.output.send(Chunk::Text { text, tokens: self.usage.output, logprobs });
        }
    }

    fn send_calls(&mut self) {
        let unsent = self.job.calls.as_mut().map(JobCalls::take_unsent).unwrap_or_default();
        if !unsent.is_empty() {
            self.job.output.send(Chunk::Calls(unsent));
        }
    }

    /// Bytes at the end that could be the beginning of a stop text.
    fn possible_stop_bytes(&self) -> usize {
        let unsent = &self.unsent_bytes;
        let part = |stop: &[u8]| (1..stop.len().min(unsent.len() + 1)).rev().find(|n| unsent.ends_with(&stop[..*n]));
        self.job.stop.iter().filter_map(|stop| part(stop.as_bytes())).max().unwrap_or(0)
    }
}

impl Job {
    pub(crate) fn fail(self, error: Error) {
        self.span.in_scope(|| match &error {
            Error::Model(_) => tracing::warn!(%error, "the request failed"),
            // A request that cannot be served is its caller's matter, and the end of an engine has a line of its own.
            _ => tracing::debug!(%error, "the request failed"),
        });
        self.output.send(Chunk::Failed(error));
    }

    /// Logs that its stream was dropped.
    pub(crate) fn log_dropped(&self) {
        self.span.in_scope(|| tracing::debug!("the request was dropped by its caller"));
    }

    fn log_finished(&self, summary: &FinishSummary) {
        let FinishSummary { reason, usage, timings } = summary;
        self.span.in_scope(|| {
            tracing::debug!(
                ?reason,
                prompt_tokens = usage.prompt,
                computed_tokens = usage.computed,
                output_tokens = usage.output,
                queue_seconds = timings.queue.as_secs_f64(),
                prefill_seconds = timings.prefill.as_secs_f64(),
                decode_seconds = timings.decode.as_secs_f64(),
                "the request is finished"
            );
        });
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

/// The length of the longest prefix that ends with a whole character; bytes that can never be UTF-8 count as whole.
fn whole_characters(bytes: &[u8]) -> usize {
    let end = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let is_cut = std::str::from_utf8(end).is_err_and(|e| e.error_len().is_none());
    if is_cut { bytes.len() - end.len() } else { bytes.len() }
}
