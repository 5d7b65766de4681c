//! An engine on a thread of this process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use artel_chat::ReasoningPhase;
use async_trait::async_trait;
use tokio::sync::{mpsc as channel, oneshot, watch};

use crate::adapter_sets;
use crate::answer_tokens::AnswerTokens;
use crate::backend::{self, Backend, EngineLimits, TextTokenizer, Token, TokenizedPrompt, Tokenizer};
use crate::command::EngineCommand;
use crate::counters::{Counters, EngineStats, PendingPooling};
use crate::engine::Engine;
use crate::heartbeat::Heartbeat;
use crate::job_calls::JobCalls;
use crate::label_score::LabelScoring;
use crate::load_error::LoadError;
use crate::options::Options;
use crate::pooling::{PooledTexts, PoolingJob, PoolingRequest};
use crate::prefix_cache::MIN_PREFIX_TOKENS;
use crate::prefix_pins::PrefixPins;
use crate::reasoning::SequenceReasoning;
use crate::request::{
    ChatRole, Chunk, ContextOverflow, Error, LabelScores, Message, Priority, Request, RequestTimings, RequestUsage,
    SamplingOptions, ScaledAdapters,
};
use crate::sequence::{Job, OutputSender};
use crate::stream::{LocalStream, OutputStream, PrefixPin, wait_for_end};
use crate::worker::EngineWorker;

/// Chunks that a stream buffers for a slow reader: a few seconds of text, after which the sequence pauses.
const MAX_BUFFERED_CHUNKS: usize = 64;
/// Bytes of a prompt that is rendered on the calling thread. Tokenizing fewer takes less than the way to another thread and
/// back; more would block for too long a thread that others share.
const MAX_INLINE_RENDER_BYTES: usize = 512;
/// Labels to score at most: all roles of a large catalog.
const MAX_LABELS: usize = 4096;
/// Replaces the part of a message that was left out.
const TRUNCATION_MARK: &str = "\n[...]\n";

/// The side of an engine's thread that handles hold; the thread ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct LocalEngine {
    /// The model's name, for the log.
    name: Arc<str>,
    commands: mpsc::Sender<EngineCommand>,
    tokenizer: Arc<dyn Tokenizer>,
    text_tokenizer: Arc<dyn TextTokenizer>,
    limits: EngineLimits,
    sampling_defaults: SamplingOptions,
    max_waiting: usize,
    counters: Arc<Counters>,
    pins: PrefixPins,
    end: watch::Receiver<Option<String>>,
}

impl LocalEngine {
    pub(crate) async fn spawn<B: Backend>(
        name: &str,
        options: Options,
        load: impl FnOnce() -> Result<B, LoadError> + Send + 'static,
    ) -> Result<Self, LoadError> {
        let (commands, inbox) = mpsc::channel();
        let (loaded, ready) = oneshot::channel();
        let (end_sender, end) = watch::channel(None);
        let (counters, max_waiting) = (Arc::new(Counters::default()), options.max_waiting);
        let pins = PrefixPins::default();
        let body = {
            let (counters, pins) = (counters.clone(), pins.clone());
            move || {
                let backend = match load() {
                    Ok(backend) => backend,
                    Err(error) => {
                        let reason = error.to_string();
                        // The caller may have stopped waiting.
                        let _ = loaded.send(Err(error));
                        return reason;
                    }
                };
                let tokenizers = (backend.tokenizer(), backend.text_tokenizer());
                match loaded.send(Ok((tokenizers, backend.limits(), backend.sampling_defaults()))) {
                    Ok(()) => EngineWorker::new(backend, options, inbox, counters, pins).run(),
                    Err(_) => "its caller stopped waiting for it to load".to_owned(),
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("engine-{name}"));
        let spawned = thread.spawn(move || {
            let reason = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(reason) => reason,
                Err(panic) => format!("its thread panicked: {}", panic_text(&*panic)),
            };
            end_sender.send_replace(Some(reason));
        });
        spawned.map_err(|e| LoadError::transient(format!("failed to start the engine's thread: {e}")))?;
        let loaded = ready.await.map_err(|_| LoadError::transient("the engine's thread panicked while loading"))?;
        let ((tokenizer, text_tokenizer), limits, sampling_defaults) = loaded?;
        Ok(Self {
            name: name.into(),
            commands,
            tokenizer,
            text_tokenizer,
            limits,
            sampling_defaults,
            max_waiting,
            counters,
            pins,
            end,
        })
    }

    /// A prompt and the scoring of labels behind it; none if there is nothing to score.
    fn prepare_scoring(
        &self,
        mut request: Request,
        labels: &[String],
    ) -> Result<(TokenizedPrompt, Request, Option<LabelScoring>), Error> {
        if !(1..=MAX_LABELS).contains(&labels.len()) {
            let reason = format!("the number of labels must be between 1 and {MAX_LABELS}, not {}", labels.len());
            return Err(Error::InvalidRequest(reason));
        }
        let tokenize = |text: &String| {
            let mut tokens = self.tokenizer.tokenize_output(text).map_err(backend::Error::into_refusal)?;
            tokens.push(self.tokenizer.end_of_turn());
            Ok(tokens)
        };
        let tokens = labels.iter().map(tokenize).collect::<Result<Vec<_>, Error>>()?;
        if tokens.iter().collect::<std::collections::HashSet<_>>().len() < labels.len() {
            return Err(Error::InvalidRequest("two labels are the same".to_owned()));
        }
        request.max_tokens = tokens.iter().map(Vec::len).max().unwrap_or(1) as u32;
        let (mut prompt, request) = self.fit_answer(request)?;
        let scoring = LabelScoring::new(tokens, self.limits.can_truncate_kv);
        let scoring = scoring.map(|(scoring, common)| {
            prompt.tokens.extend(common);
            scoring
        });
        Ok((prompt, request, scoring))
    }

    /// As [`Self::fit`], up to where an answer begins, before which the model does not reason.
    fn fit_answer(&self, mut request: Request) -> Result<(TokenizedPrompt, Request), Error> {
        request.reasoning.is_enabled = false;
        let (mut prompt, request) = self.fit(request)?;
        if let Some(format) = prompt.reasoning.take() {
            match format.phase {
                ReasoningPhase::Inside => prompt.tokens.extend(format.end),
                ReasoningPhase::After => prompt.tokens.extend(format.answer_start),
                ReasoningPhase::Before | ReasoningPhase::Answer => {}
            }
        }
        Ok((prompt, request))
    }

    fn answer_tokens(&self, request: Request, text: &str) -> Result<AnswerTokens, Error> {
        let texts = request.messages.iter().map(|message| &*message.text).chain([text]);
        if let Some(control) = texts.filter_map(|text| self.tokenizer.control_text(text)).next() {
            return Err(Error::InvalidRequest(format!("its text has the control token {control}")));
        }
        let mut answer = self.tokenizer.tokenize_output(text).map_err(backend::Error::into_refusal)?;
        answer.push(self.tokenizer.end_of_turn());
        let request = Request { max_tokens: answer.len() as u32, overflow: ContextOverflow::Reject, ..request };
        let (prompt, _) = self.fit_answer(request)?;
        Ok(AnswerTokens { prompt: prompt.tokens, answer })
    }

    fn submit(
        self,
        prompt: TokenizedPrompt,
        request: Request,
        scoring: Option<LabelScoring>,
        since: Instant,
    ) -> Result<OutputStream, Error> {
        let (sender, chunks) = channel::channel(MAX_BUFFERED_CHUNKS);
        let (is_dropped, is_full) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        // A text within a JSON string ends nothing.
        let tools = request.tools.filter(|tools| tools.callable().next().is_some());
        let calls = tools.map(|tools| JobCalls::new(self.tokenizer.call_format(), &tools, request.schema.as_deref()));
        let is_constrained = request.schema.is_some() || calls.as_ref().is_some_and(JobCalls::is_whole);
        let format = prompt.reasoning.filter(|_| scoring.is_none());
        let reasoning = format
            .and_then(|format| SequenceReasoning::new(format, request.reasoning, is_constrained, calls.is_some()));
        let stop = if request.schema.is_some() { Vec::new() } else { request.stop };
        let stop = stop.into_iter().filter(|stop| !stop.is_empty()).collect();
        let job = Job {
            span: request.origin.span(&self.name),
            flow: request.flow,
            priority: request.priority,
            remaining_steps: request.remaining_steps,
            prefix_len: if prompt.prefix_len < MIN_PREFIX_TOKENS { 0 } else { prompt.prefix_len },
            has_fixed_prefix: request.has_fixed_prefix,
            prompt: prompt.tokens,
            adapters: request.adapters,
            sampling: request.sampling,
            logprobs: request.logprobs,
            shares_prompt: request.shares_prompt,
            schema: request.schema.filter(|_| calls.is_none()),
            calls,
            max_tokens: request.max_tokens.max(1),
            stop,
            reasoning,
            can_shift: request.overflow == ContextOverflow::Shift && self.limits.can_shift,
            scoring,
            output: OutputSender { chunks: sender, is_dropped: is_dropped.clone(), is_full: is_full.clone() },
            since,
        };
        self.send(EngineCommand::Submit(Box::new(job)))?;
        let (commands, end) = (self.commands, self.end);
        Ok(OutputStream::local(LocalStream { chunks, is_dropped, is_full, commands, end, is_over: false }))
    }

    /// How many of a prompt's tokens stay the same however the text of its last message continues.
    fn stable_prefix_len(&self, request: &Request, tokens: &[Token]) -> Result<usize, Error> {
        let mut least = tokens.len();
        for continuation in ["a", " a"] {
            let mut messages = request.messages.clone();
            if let Some(last) = messages.last_mut() {
                last.text.push_str(continuation);
            }
            let other = self.tokenize(&messages, request)?.tokens;
            least = least.min(tokens.iter().zip(&other).take_while(|(a, b)| a == b).count());
        }
        Ok(least)
    }

    /// The tokens of these messages, with what else the request tells the template.
    fn tokenize(&self, messages: &[Message], request: &Request) -> Result<TokenizedPrompt, Error> {
        let (kwargs, tools, reasons) =
            (&request.template_kwargs, request.tools.as_deref(), request.reasoning.is_enabled);
        let prompt = self.tokenizer.apply_chat_template(messages, kwargs, tools, reasons);
        prompt.map_err(backend::Error::into_refusal)
    }

    fn send(&self, command: EngineCommand) -> Result<(), Error> {
        self.commands.send(command).map_err(|_| {
            let reason = self.end.borrow().clone();
            Error::Ended(reason.unwrap_or_else(|| "it is about to end".to_owned()))
        })
    }

    /// The prompt's tokens, truncated if the request allows that, such that the output fits behind them; with a context shift, such
    /// that a part of the output fits that is worth starting, and the rest after old tokens are discarded.
    fn fit(&self, mut request: Request) -> Result<(TokenizedPrompt, Request), Error> {
        let context = self.limits.context_tokens;
        let can_shift = request.overflow == ContextOverflow::Shift && self.limits.can_shift;
        let can_truncate = request.overflow != ContextOverflow::Reject;
        let output = if can_shift { request.max_tokens.min(context / 4) } else { request.max_tokens };
        let max_prompt = context.saturating_sub(output) as usize;
        let mut prompt = self.tokenize(&request.messages, &request)?;
        let original = prompt.tokens.len() as u32;
        let overflow = Error::Overflow { prompt: original, output: request.max_tokens, context };
        // Tokens per byte differ along a text, so it may have to be cut a few times; each cut removes at least a tenth.
        while prompt.tokens.len() > max_prompt && can_truncate && max_prompt > 0 {
            let Some(last) = request.messages.iter_mut().rfind(|m| m.role == ChatRole::User) else { break };
            let ratio = (max_prompt as f64 / prompt.tokens.len() as f64 * 0.98).min(0.9);
            let keep = (last.text.len() as f64 * ratio) as usize;
            if keep < 2 * TRUNCATION_MARK.len() || last.text.len() <= 2 * TRUNCATION_MARK.len() {
                return Err(overflow);
            }
            last.text = cut_middle(&last.text, keep - TRUNCATION_MARK.len());
            prompt = self.tokenize(&request.messages, &request)?;
        }
        if prompt.tokens.is_empty() {
            return Err(Error::InvalidRequest("the prompt is empty".to_owned()));
        }
        if prompt.tokens.len() > max_prompt { Err(overflow) } else { Ok((prompt, request)) }
    }
}

#[async_trait]
impl Engine for LocalEngine {
    fn limits(&self) -> EngineLimits {
        self.limits
    }

    fn sampling_defaults(&self) -> SamplingOptions {
        self.sampling_defaults.clone()
    }

    fn stats(&self) -> EngineStats {
        self.counters.stats()
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        Some(self.counters.heartbeat.last())
    }

    fn end_reason(&self) -> watch::Receiver<Option<String>> {
        self.end.clone()
    }

    async fn generate(&self, request: Request) -> Result<OutputStream, Error> {
        let (since, this) = (Instant::now(), self.clone());
        let bytes = text_bytes(&request);
        let fit = move || this.fit(request).map(|(prompt, rest)| (this, prompt, rest));
        let (this, prompt, request) = render(bytes, fit).await?;
        this.submit(prompt, request, None, since)
    }

    async fn score_labels(&self, request: Request, labels: Vec<String>) -> Result<LabelScores, Error> {
        let since = Instant::now();
        let (this, count) = (self.clone(), labels.len());
        let bytes = text_bytes(&request) + labels.iter().map(String::len).sum::<usize>();
        let prepare = move || this.prepare_scoring(request, &labels).map(|all| (this, all));
        let (this, (prompt, request, scoring)) = render(bytes, prepare).await?;
        let Some(scoring) = scoring else {
            let (usage, timings) = (RequestUsage::default(), RequestTimings::default());
            return Ok(LabelScores { scores: vec![0.0; count], usage, timings });
        };
        let (mut stream, mut scores) = (this.submit(prompt, request, Some(scoring), since)?, Vec::new());
        loop {
            match stream.recv().await {
                Some(Chunk::Scores(found)) => scores = found,
                Some(Chunk::Finished(finish)) => {
                    return Ok(LabelScores { scores, usage: finish.usage, timings: finish.timings });
                }
                Some(Chunk::Failed(error)) => return Err(error),
                Some(_) => {}
                None => return Err(Error::Ended("its stream ended early".to_owned())),
            }
        }
    }

    async fn tokenize_answer(&self, request: Request, answer: String) -> Result<AnswerTokens, Error> {
        let (this, bytes) = (self.clone(), text_bytes(&request) + answer.len());
        render(bytes, move || this.answer_tokens(request, &answer)).await
    }

    fn retain_adapters(&self, sets: Vec<ScaledAdapters>) {
        let keys = sets.iter().map(|adapters| adapter_sets::key_of(adapters)).collect();
        // An engine that has ended needs no commands.
        let _ = self.commands.send(EngineCommand::RetainAdapters(keys));
    }

    async fn prefill(&self, request: Request) -> Result<(), Error> {
        let since = Instant::now();
        let this = self.clone();
        let is_prefetch = request.priority == Priority::Prefetch;
        // If cells cannot be truncated, one token that differs from the prefetched one costs the whole prompt.
        if is_prefetch && !this.limits.can_truncate_kv {
            return Ok(());
        }
        let rendered = tokio::task::spawn_blocking(move || {
            let mut prompt = this.tokenize(&request.messages, &request)?;
            match request.priority {
                Priority::Prefetch => prompt.tokens.truncate(this.stable_prefix_len(&request, &prompt.tokens)?),
                _ => prompt.tokens.truncate(prompt.prefix_len),
            }
            prompt.prefix_len = prompt.prefix_len.min(prompt.tokens.len());
            Ok::<_, Error>((this, prompt, request))
        });
        let (this, prompt, request) = rendered.await.map_err(render_error)??;
        // A prompt that leaves too few tokens for its output will be refused or truncated when its request comes.
        let context = this.limits.context_tokens;
        let reserved = if is_prefetch { request.max_tokens.min(context / 4) } else { 0 };
        if prompt.tokens.len() < MIN_PREFIX_TOKENS || prompt.tokens.len() >= context.saturating_sub(reserved) as usize {
            return Ok(());
        }
        let priority = if is_prefetch { Priority::Prefetch } else { Priority::Background };
        let mut stream = this.submit(prompt, Request { priority, ..request }, None, since)?;
        loop {
            match stream.recv().await {
                Some(Chunk::Finished(_)) | None => return Ok(()),
                Some(Chunk::Failed(error)) => return Err(error),
                Some(_) => {}
            }
        }
    }

    fn pin_prefixes(&self, flows: Vec<Arc<str>>) -> PrefixPin {
        let pinned = self.pins.pin(flows);
        PrefixPin::new(move || drop(pinned))
    }

    async fn pool(&self, request: PoolingRequest) -> Result<PooledTexts, Error> {
        let since = Instant::now();
        let pending = PendingPooling::begin(&self.counters, self.max_waiting);
        let pending = pending.ok_or(Error::QueueFull(self.max_waiting))?;
        let (tokenizer, priority) = (self.text_tokenizer.clone(), request.priority);
        // A text is computed in one batch.
        let limit = self.limits.context_tokens.min(self.limits.batch_tokens) as usize;
        let texts = render(request.bytes(), move || request.tokenize(&*tokenizer, limit)).await?;
        let tokens = texts.iter().map(|text| text.len() as u32).collect();
        if texts.is_empty() {
            return Ok(PooledTexts::default());
        }
        let (reply, vectors) = oneshot::channel();
        self.send(EngineCommand::Pool(PoolingJob { texts, priority, since, reply, _pending: pending }))?;
        match vectors.await {
            Ok(vectors) => Ok(PooledTexts { vectors: vectors?, tokens }),
            Err(_) => Err(Error::Ended(wait_for_end(&mut self.end_reason()).await)),
        }
    }

    async fn forget_text(&self) -> Result<(), Error> {
        let (reply, forgotten) = oneshot::channel();
        // If it has closed its queue, the command and its reply are dropped: it may still have texts, and files to write.
        let _ = self.commands.send(EngineCommand::ForgetText(reply));
        match forgotten.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::Model(format!("failed to remove its prefix files: {error}"))),
            Err(_) => Err(Error::Ended(wait_for_end(&mut self.end_reason()).await)),
        }
    }

    fn close(&self) {
        // An engine that has ended needs no commands.
        let _ = self.commands.send(EngineCommand::Close);
    }
}

fn cut_middle(text: &str, keep: usize) -> String {
    let head = text.floor_char_boundary(keep / 2);
    let tail = text.ceil_char_boundary(text.len() - keep / 2);
    format!("{}{TRUNCATION_MARK}{}", &text[..head], &text[tail..])
}

/// Bytes of the texts of a request.
fn text_bytes(request: &Request) -> usize {
    let tools = request.tools.as_ref().map_or(0, |tools| tools.bytes());
    request.messages.iter().map(|message| message.text.len()).sum::<usize>() + tools
}

/// Renders so many bytes: on this thread if they are few, or else on one that may block.
async fn render<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if bytes <= MAX_INLINE_RENDER_BYTES {
        return catch_unwind(AssertUnwindSafe(work)).map_err(|panic| render_error(panic_text(&*panic)))?;
    }
    tokio::task::spawn_blocking(work).await.map_err(render_error)?
}

fn render_error(cause: impl std::fmt::Display) -> Error {
    Error::InvalidRequest(format!("rendering the prompt failed: {cause}"))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
