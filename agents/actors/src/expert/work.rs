//! The work of one step: from templates to a request, from a stream to an output.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use artel_engine as engine;
use artel_roles::template::TemplateContext;
use artel_roles::{Overflow, Role, Template};
use artel_task::event::{TaskPriority, FailureCode, Failure, Output, ResultSource, Timings, Usage};
use ractor::{ActorRef, call};
use serde_json::{Value, json};

use super::Job;
use super::allowance::Loading;
use super::along::Along;
use super::silence::Silence;
use crate::feed::{Live, Stage};
use crate::keeper::{self, EngineReport, EngineState, Lease};
use crate::report::{Outcome, failure};

/// A load that takes longer than this is worth a word to those who watch.
const LOADING_SHOWS: Duration = Duration::from_millis(100);
/// How often its share is looked at.
const LOADING_LOOKS: Duration = Duration::from_millis(500);
/// How often a step says how far it is, and how long it says nothing at first: often enough for eyes, and nothing of steps
/// that are over before anybody could read it.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// What a step says to its model.
pub(super) struct Words {
    system: String,
    user: String,
}

impl Job {
    pub(super) async fn work(&self, handle: Lease, words: Words) -> Result<Outcome, Failure> {
        let _expected = handle.pin_prefixes(self.next.iter().map(|role| role.as_str().into()).collect());
        let key = self.cache.as_ref().map(|earlier| earlier.key(&self.role, &words.system, &words.user));
        let stream = handle.generate(self.request(words)?).await.map_err(|e| refused(&e))?;
        self.begun.heard_of().await;
        let (text, finish) = self.listen(stream, Along::new(self, &handle)).await?;
        let output = self.output(text, finish.reason)?;
        if let Some((earlier, key)) = self.cache.as_ref().zip(key) {
            earlier.put(key, &output);
        }
        let (u, t) = (finish.usage, finish.timings);
        let usage = Usage {
            prompt: u.prompt,
            computed: u.computed,
            output: u.output,
            forced: u.forced,
            drafted: u.drafted,
            accepted: u.accepted,
        };
        let timings = Timings { queue: t.queue, prefill: t.prefill, decode: t.decode, max_itl: t.gap };
        Ok(Outcome::Answer { output, usage, timings, source: ResultSource::Run })
    }

    /// What an earlier step of the same role answered to the same words, if that will do.
    pub(super) fn earlier(&self, words: &Words) -> Option<Outcome> {
        let earlier = self.cache.as_ref()?;
        let output = earlier.get(&earlier.key(&self.role, &words.system, &words.user))?;
        let (usage, timings) = (Usage::default(), Timings::default());
        Some(Outcome::Answer { output, usage, timings, source: ResultSource::Cache })
    }

    /// The engine, once it is there, and the adapter with it.
    pub(super) async fn engine(&self, keeper: &ActorRef<keeper::Message>, loading: &Loading) -> Result<Lease, Failure> {
        let asked = async {
            if let Some(adapter) = &self.role.adapter {
                let named = |reason| failure(FailureCode::ModelUnavailable, format!("role `{}`: {reason}", self.role.name));
                self.loader.fetch(adapter).await.map_err(named)?;
            }
            keeper::unwrap(call!(keeper, keeper::Message::Engine))
        };
        tokio::pin!(asked);
        if let Ok(engine) = tokio::time::timeout(LOADING_SHOWS, &mut asked).await {
            return engine;
        }
        let _waits = loading.begin();
        let mut shown = None;
        loop {
            let share = self.share(keeper).await;
            if shown != Some(share) && self.progress(Stage::Loading { model: self.role.model.clone(), share }) {
                shown = Some(share);
            }
            if let Ok(engine) = tokio::time::timeout(LOADING_LOOKS, &mut asked).await {
                return engine;
            }
        }
    }

    /// The share of the model that is loaded, as far as it is known.
    async fn share(&self, keeper: &ActorRef<keeper::Message>) -> f32 {
        match call!(keeper, keeper::Message::Report) {
            Ok(EngineReport { state: EngineState::Loading(share), .. }) => share,
            _ => 0.0,
        }
    }

    /// Renders what the step says.
    pub(super) fn words(&self) -> Result<Words, Failure> {
        let role = &self.role;
        let render = |template: &Template| {
            let text = template.render(&self.context);
            text.map_err(|e| failure(FailureCode::Template, format!("role `{}`: {e}", role.name)))
        };
        let system = render(&role.prompt)?;
        let user = match self.message.as_ref().or(role.message.as_ref()) {
            Some(template) => render(template)?,
            None => self.context.input.clone(),
        };
        Ok(Words { system, user })
    }

    fn request(&self, words: Words) -> Result<engine::Request, Failure> {
        let class = match self.class {
            TaskPriority::Interactive => engine::Priority::Interactive,
            TaskPriority::Batch => engine::Priority::Batch,
        };
        let request = request(&self.role, &self.models, class, words.system, words.user)?;
        Ok(engine::Request { remaining_steps: self.left, ..request })
    }

    async fn listen(
        &self,
        mut stream: engine::OutputStream,
        mut along: Along<'_>,
    ) -> Result<(String, engine::FinishSummary), Failure> {
        let mut said = Said { job: self, text: String::new(), first: None, shown: Instant::now() };
        // Until its first batch a sequence may wait for others as long as the step's timeout allows.
        let mut silence = Silence::of(self.timeout);
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = stream.recv() => chunk,
                limit = silence.over() => {
                    return Err(failure(FailureCode::Idle, format!("no token came for {limit:?}, the step's idle limit")));
                }
            };
            silence.ends(self.idle);
            match chunk {
                Some(engine::Chunk::Prefill { done, total }) => said.show(|| Stage::Prefill { done, total }),
                Some(engine::Chunk::Text { text, tokens }) => {
                    said.take(text, tokens);
                    along.hear(&said.text, tokens);
                }
                // Nobody asked for a choice.
                Some(engine::Chunk::Scores(_)) => {}
                Some(engine::Chunk::Finished(finish)) => return Ok((said.text, finish)),
                Some(engine::Chunk::Failed(error)) => return Err(refused(&error)),
                None => return Err(failure(FailureCode::ModelUnavailable, "the stream ended without an end")),
            }
        }
    }

    fn output(&self, text: String, reason: engine::FinishReason) -> Result<Output, Failure> {
        let role = Some(self.role.name.clone());
        let Some(schema) = &self.role.output else {
            return Ok(Output { text: text.trim().to_owned(), json: None, role });
        };
        let invalid = |what: String| {
            let hint = match reason {
                engine::FinishReason::Length => "; max_tokens cut it, raise it",
                _ => "",
            };
            failure(FailureCode::OutputInvalid, format!("role `{}` gave no valid output: {what}{hint}", self.role.name))
        };
        let json: Value = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        schema.check(&json).map_err(invalid)?;
        Ok(Output { text, json: Some(json), role })
    }
}

/// What templates see of a role.
pub(crate) fn described(role: &Role) -> Value {
    json!({"name": role.name.as_str(), "description": role.description})
}

/// A request of a role's opening alone, if its prompt is the same for every task.
pub(crate) fn opening(role: &Role, models: &Path) -> Option<engine::Request> {
    if !role.prompt.is_fixed() {
        return None;
    }
    let system = role.prompt.render(&TemplateContext { role: Some(described(role)), ..TemplateContext::default() }).ok()?;
    request(role, models, engine::Priority::Background, system, String::new()).ok()
}

pub(super) fn request(
    role: &Role,
    models: &Path,
    class: engine::Priority,
    system: String,
    user: String,
) -> Result<engine::Request, Failure> {
    let message = |speaker, text| engine::Message { role: speaker, text };
    let sampling = &role.sampling;
    Ok(engine::Request {
        flow: role.name.as_str().into(),
        priority: class,
        remaining_steps: 0,
        messages: vec![message(engine::ChatRole::System, system), message(engine::ChatRole::User, user)],
        adapter: adapter(role, models)?,
        sampling: engine::SamplingParams {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            repeat_penalty: sampling.repeat_penalty,
            seed: sampling.seed,
        },
        max_tokens: sampling.max_tokens,
        stop: sampling.stop.clone(),
        schema: role.output.as_ref().map(|schema| Arc::new(schema.json().clone())),
        overflow: match role.overflow {
            Overflow::Reject => engine::ContextOverflow::Reject,
            Overflow::Truncate => engine::ContextOverflow::Truncate,
            Overflow::Shift => engine::ContextOverflow::Shift,
        },
    })
}

/// The adapter of a role, where it is found, and its scale.
fn adapter(role: &Role, models: &Path) -> Result<Option<(PathBuf, f32)>, Failure> {
    let Some(adapter) = &role.adapter else { return Ok(None) };
    let candidates = adapter.candidates(models);
    let found = candidates.iter().find(|path| path.exists());
    let found = found.ok_or_else(|| {
        let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        let message = format!("role `{}`: its adapter is not there; tried {}", role.name, tried.join(", "));
        failure(FailureCode::ModelUnavailable, message)
    })?;
    Ok(Some((found.clone(), adapter.scale)))
}

/// The adapter of a role, where it is or will be once it is fetched, and its scale.
pub(crate) fn lane(role: &Role, models: &Path) -> Option<(PathBuf, f32)> {
    let adapter = role.adapter.as_ref()?;
    let candidates = adapter.candidates(models);
    let here = candidates.iter().find(|path| path.exists());
    let path = here.or_else(|| candidates.first().filter(|_| adapter.file.uri().is_some()))?;
    Some((path.clone(), adapter.scale))
}

/// What an attempt has said so far, as it goes to those who watch.
struct Said<'a> {
    job: &'a Job,
    text: String,
    first: Option<Instant>,
    /// When it last said how far it is, or began.
    shown: Instant,
}

impl Said<'_> {
    fn take(&mut self, text: String, tokens: u32) {
        let first = *self.first.get_or_insert_with(Instant::now);
        let offset = self.text.len() as u64;
        self.text.push_str(&text);
        if self.job.feed.has_listeners() {
            let (step, role) = (self.job.step.clone(), self.job.role.name.clone());
            self.job.feed.send(Live::Token { step, role, text: text.into(), offset });
        }
        self.show(|| Stage::Decode { tokens, took: first.elapsed() });
    }

    /// Says how far it is, if it has not done so for a while.
    fn show(&mut self, stage: impl FnOnce() -> Stage) {
        if self.shown.elapsed() >= PROGRESS_EVERY {
            self.shown = Instant::now();
            self.job.progress(stage());
        }
    }
}

fn refused(error: &engine::Error) -> Failure {
    let code = match error {
        engine::Error::Overflow { .. } => FailureCode::ContextOverflow,
        engine::Error::QueueFull(_) => FailureCode::QueueFull,
        engine::Error::InvalidRequest(_) => FailureCode::Template,
        engine::Error::Model(_) => FailureCode::ModelUnavailable,
        // It was no fault of the step.
        engine::Error::Ended(_) => FailureCode::Interrupted,
    };
    failure(code, error.to_string())
}
