//! An engine on a thread of this process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::{mpsc as channel, oneshot, watch};

use crate::backend::{Backend, Embedded, Limits, Prompt, Text, Token};
use crate::choice::Choosing;
use crate::command::Command;
use crate::counters::{Counters, Stats};
use crate::engine::Engine;
use crate::expected::Expected;
use crate::options::Options;
use crate::prefix::SHORTEST;
use crate::request::{Choice, Chunk, Class, Error, Message, Overflow, Request, Speaker, Timings, Usage};
use crate::sequence::{Job, Reader};
use crate::stream::{Expectation, Near, Stream, reason};
use crate::worker::Worker;

/// Chunks that a stream holds for a slow reader: a few seconds of text, after which the sequence rests.
const STREAM: usize = 64;
/// Bytes of a prompt that is rendered where it is asked for. Tokenizing takes a millisecond per few kilobytes: less than the way
/// to another thread and back, or too long for a thread that others share.
const AT_ONCE: usize = 512;
/// Labels of a choice at most: all roles of a large crew.
const MAX_LABELS: usize = 4096;
/// What stands for the part of a message that was left out.
const CUT: &str = "\n[...]\n";

/// What others hold of an engine's thread, which ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Local {
    commands: mpsc::Sender<Command>,
    text: Arc<dyn Text>,
    limits: Limits,
    queue: usize,
    counters: Arc<Counters>,
    expected: Expected,
    ended: watch::Receiver<Option<String>>,
}

impl Local {
    pub(crate) async fn spawn<B: Backend>(
        name: &str,
        options: Options,
        load: impl FnOnce() -> Result<B, String> + Send + 'static,
    ) -> Result<Self, Error> {
        let (commands, inbox) = mpsc::channel();
        let (loaded, ready) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        let (counters, queue, expected) = (Arc::new(Counters::default()), options.queue, Expected::default());
        let body = {
            let (counters, expected) = (counters.clone(), expected.clone());
            move || {
                let backend = match load() {
                    Ok(backend) => backend,
                    Err(reason) => {
                        // Whoever asked may have stopped waiting.
                        let _ = loaded.send(Err(reason.clone()));
                        return reason;
                    }
                };
                match loaded.send(Ok((backend.text(), backend.limits()))) {
                    Ok(()) => Worker::new(backend, options, inbox, counters, expected).run(),
                    Err(_) => "nobody waited for it".to_owned(),
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("engine-{name}"));
        let spawned = thread.spawn(move || {
            let reason = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(reason) => reason,
                Err(panic) => format!("its thread panicked: {}", panic_text(&*panic)),
            };
            end.send_replace(Some(reason));
        });
        spawned.map_err(|e| Error::Gone(format!("failed to start its thread: {e}")))?;
        match ready.await {
            Ok(Ok((text, limits))) => Ok(Self { commands, text, limits, queue, counters, expected, ended }),
            Ok(Err(reason)) => Err(Error::Gone(reason)),
            Err(_) => Err(Error::Gone("its thread panicked while loading".to_owned())),
        }
    }

    /// A prompt and the choice that follows it; none if there is nothing to choose.
    fn labelled(&self, mut request: Request, labels: &[String]) -> Result<(Prompt, Request, Option<Choosing>), Error> {
        if !(1..=MAX_LABELS).contains(&labels.len()) {
            return Err(Error::Bad(format!("a choice is between 1 and {MAX_LABELS} labels, not {}", labels.len())));
        }
        let label = |text: &String| {
            let mut tokens = self.text.answer(text).map_err(Error::Bad)?;
            tokens.push(self.text.end());
            Ok(tokens)
        };
        let tokens = labels.iter().map(label).collect::<Result<Vec<_>, Error>>()?;
        if tokens.iter().collect::<std::collections::HashSet<_>>().len() < labels.len() {
            return Err(Error::Bad("two labels of a choice are the same".to_owned()));
        }
        request.max_tokens = tokens.iter().map(Vec::len).max().unwrap_or(1) as u32;
        let (mut prompt, request) = self.fit(request)?;
        let choice = Choosing::new(tokens, self.limits.rewinds);
        let choice = choice.map(|(choosing, common)| {
            prompt.tokens.extend(common);
            choosing
        });
        Ok((prompt, request, choice))
    }

    fn start(
        self,
        prompt: Prompt,
        request: Request,
        choice: Option<Choosing>,
        since: Instant,
    ) -> Result<Stream, Error> {
        let (sender, chunks) = channel::channel(STREAM);
        let (gone, full) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let job = Job {
            flow: request.flow,
            class: request.class,
            left: request.left,
            opening: if prompt.opening < SHORTEST { 0 } else { prompt.opening },
            prompt: prompt.tokens,
            adapter: request.adapter,
            sampling: request.sampling,
            schema: request.schema,
            max_tokens: request.max_tokens.max(1),
            stop: request.stop.into_iter().filter(|stop| !stop.is_empty()).collect(),
            shifts: request.overflow == Overflow::Shift && self.limits.shifts,
            choice,
            reader: Reader { chunks: sender, gone: gone.clone(), full: full.clone() },
            since,
        };
        self.send(Command::Generate(Box::new(job)))?;
        Ok(Stream::near(Near { chunks, gone, full, commands: self.commands, ended: self.ended, over: false }))
    }

    /// How many of a prompt's tokens stay if the text of its last message goes on, however it does.
    fn certain(&self, request: &Request, tokens: &[Token]) -> Result<usize, Error> {
        let mut least = tokens.len();
        for more in ["a", " a"] {
            let mut messages = request.messages.clone();
            if let Some(last) = messages.last_mut() {
                last.text.push_str(more);
            }
            let other = self.text.chat(&messages).map_err(Error::Bad)?.tokens;
            least = least.min(tokens.iter().zip(&other).take_while(|(a, b)| a == b).count());
        }
        Ok(least)
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).map_err(|_| {
            let reason = self.ended.borrow().clone();
            Error::Gone(reason.unwrap_or_else(|| "it ends".to_owned()))
        })
    }

    /// The prompt's tokens, cut if the request allows that, such that the output fits behind them, or a part of it that is
    /// worth beginning where the rest may follow after what came first is forgotten.
    fn fit(&self, mut request: Request) -> Result<(Prompt, Request), Error> {
        let tokens = |messages: &[Message]| self.text.chat(messages).map_err(Error::Bad);
        let context = self.limits.context;
        let shifts = request.overflow == Overflow::Shift && self.limits.shifts;
        let cuts = request.overflow != Overflow::Reject;
        let output = if shifts { request.max_tokens.min(context / 4) } else { request.max_tokens };
        let room = context.saturating_sub(output) as usize;
        let mut prompt = tokens(&request.messages)?;
        let first = prompt.tokens.len() as u32;
        let overflow = Error::Overflow { prompt: first, output: request.max_tokens, context };
        // Tokens per byte differ along a text, so a cut may have to be made a few times; each one takes at least a tenth.
        while prompt.tokens.len() > room && cuts && room > 0 {
            let Some(last) = request.messages.iter_mut().rfind(|m| m.speaker == Speaker::User) else { break };
            let share = (room as f64 / prompt.tokens.len() as f64 * 0.98).min(0.9);
            let keep = (last.text.len() as f64 * share) as usize;
            if keep < 2 * CUT.len() || last.text.len() <= 2 * CUT.len() {
                return Err(overflow);
            }
            last.text = cut_middle(&last.text, keep - CUT.len());
            prompt = tokens(&request.messages)?;
        }
        if prompt.tokens.is_empty() {
            return Err(Error::Bad("the prompt is empty".to_owned()));
        }
        if prompt.tokens.len() > room { Err(overflow) } else { Ok((prompt, request)) }
    }
}

#[async_trait]
impl Engine for Local {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn stats(&self) -> Stats {
        self.counters.stats()
    }

    fn end(&self) -> watch::Receiver<Option<String>> {
        self.ended.clone()
    }

    async fn generate(&self, request: Request) -> Result<Stream, Error> {
        let (since, this) = (Instant::now(), self.clone());
        let bytes = length(&request);
        let fit = move || this.fit(request).map(|(prompt, rest)| (this, prompt, rest));
        let (this, prompt, request) = render(bytes, fit).await?;
        this.start(prompt, request, None, since)
    }

    async fn choose(&self, request: Request, labels: Vec<String>) -> Result<Choice, Error> {
        let since = Instant::now();
        let (this, count) = (self.clone(), labels.len());
        let bytes = length(&request) + labels.iter().map(String::len).sum::<usize>();
        let label = move || this.labelled(request, &labels).map(|all| (this, all));
        let (this, (prompt, request, choosing)) = render(bytes, label).await?;
        let Some(choosing) = choosing else {
            return Ok(Choice { scores: vec![0.0; count], usage: Usage::default(), timings: Timings::default() });
        };
        let (mut stream, mut scores) = (this.start(prompt, request, Some(choosing), since)?, Vec::new());
        loop {
            match stream.recv().await {
                Some(Chunk::Scores(found)) => scores = found,
                Some(Chunk::Finished(finish)) => {
                    return Ok(Choice { scores, usage: finish.usage, timings: finish.timings });
                }
                Some(Chunk::Failed(error)) => return Err(error),
                Some(_) => {}
                None => return Err(Error::Gone("its stream ended early".to_owned())),
            }
        }
    }

    fn keep_adapters(&self, adapters: Vec<(PathBuf, f32)>) {
        let keys = adapters.into_iter().map(|(path, scale)| (path, scale.to_bits())).collect();
        // An engine that has ended needs no telling.
        let _ = self.commands.send(Command::Adapters(keys));
    }

    async fn prime(&self, request: Request) -> Result<(), Error> {
        let since = Instant::now();
        let this = self.clone();
        let along = request.class == Class::Along;
        // Where nothing can be taken back, one token that comes otherwise costs the whole prompt.
        if along && !this.limits.rewinds {
            return Ok(());
        }
        let rendered = tokio::task::spawn_blocking(move || {
            let mut prompt = this.text.chat(&request.messages).map_err(Error::Bad)?;
            match request.class {
                Class::Along => prompt.tokens.truncate(this.certain(&request, &prompt.tokens)?),
                _ => prompt.tokens.truncate(prompt.opening),
            }
            prompt.opening = prompt.opening.min(prompt.tokens.len());
            Ok::<_, Error>((this, prompt, request))
        });
        let (this, prompt, request) = rendered.await.map_err(unrendered)??;
        // A prompt that leaves no room for its answer is refused or cut when its time comes.
        let room = if along { request.max_tokens.min(this.limits.context / 4) } else { 0 };
        if prompt.tokens.len() < SHORTEST || prompt.tokens.len() >= this.limits.context.saturating_sub(room) as usize {
            return Ok(());
        }
        let class = if along { Class::Along } else { Class::Ahead };
        let mut stream = this.start(prompt, Request { class, ..request }, None, since)?;
        loop {
            match stream.recv().await {
                Some(Chunk::Finished(_)) | None => return Ok(()),
                Some(Chunk::Failed(error)) => return Err(error),
                Some(_) => {}
            }
        }
    }

    fn expect(&self, flows: Vec<Arc<str>>) -> Expectation {
        let expecting = self.expected.expect(flows);
        Expectation::new(move || drop(expecting))
    }

    async fn embed(&self, texts: Vec<String>) -> Result<Embedded, Error> {
        let embeds = &self.counters.embeds;
        if embeds.fetch_add(1, Ordering::Relaxed) >= self.queue as u64 {
            embeds.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Busy(self.queue));
        }
        let (answer, vectors) = oneshot::channel();
        self.send(Command::Embed(texts, answer))?;
        match vectors.await {
            Ok(vectors) => vectors.map_err(Error::Model),
            Err(_) => Err(Error::Gone(reason(&mut self.end()).await)),
        }
    }

    fn close(&self) {
        // An engine that has ended needs no telling.
        let _ = self.commands.send(Command::Close);
    }
}

fn cut_middle(text: &str, keep: usize) -> String {
    let head = text.floor_char_boundary(keep / 2);
    let tail = text.ceil_char_boundary(text.len() - keep / 2);
    format!("{}{CUT}{}", &text[..head], &text[tail..])
}

/// Bytes of the texts of a request.
fn length(request: &Request) -> usize {
    request.messages.iter().map(|message| message.text.len()).sum()
}

/// Renders so many bytes: here if they are few, or else where it holds nobody up.
async fn render<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if bytes <= AT_ONCE {
        return catch_unwind(AssertUnwindSafe(work)).map_err(|panic| unrendered(panic_text(&*panic)))?;
    }
    tokio::task::spawn_blocking(work).await.map_err(unrendered)?
}

fn unrendered(why: impl std::fmt::Display) -> Error {
    Error::Bad(format!("rendering the prompt failed: {why}"))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
