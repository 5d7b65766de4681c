//! The work of one step: from templates to a request, from a stream to an output.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use artel_engine as engine;
use artel_roles::{Overflow, Role, Template};
use artel_task::event::{Class, Code, Failure, Output, Timings, Usage};
use ractor::{ActorRef, call};
use serde_json::{Value, json};

use super::Job;
use crate::feed::{Live, Stage};
use crate::keeper;
use crate::report::{Outcome, failure};

/// A load that takes longer than this is worth a word to those who watch.
const LOADING_SHOWS: Duration = Duration::from_millis(100);
/// How often the speed of a running answer is told: often enough for eyes.
const SPEED_EVERY: Duration = Duration::from_millis(250);

impl Job {
    pub(super) async fn work(&self, keeper: &ActorRef<keeper::Message>) -> Result<Outcome, Failure> {
        let handle = self.engine(keeper).await?;
        let _expected = handle.expect(self.next.iter().map(|role| role.as_str().into()).collect());
        let stream = handle.generate(self.request()?).await.map_err(|e| refused(&e))?;
        let (text, finish) = self.listen(stream).await?;
        let output = self.output(text, finish.reason)?;
        let (u, t) = (finish.usage, finish.timings);
        let usage = Usage {
            prompt: u.prompt,
            computed: u.computed,
            output: u.output,
            forced: u.forced,
            drafted: u.drafted,
            accepted: u.accepted,
        };
        let timings = Timings { queue: t.queue, prefill: t.prefill, decode: t.decode, gap: t.gap };
        Ok(Outcome::Answer { output, usage, timings })
    }

    async fn engine(&self, keeper: &ActorRef<keeper::Message>) -> Result<engine::Handle, Failure> {
        let asked = async { call!(keeper, keeper::Message::Engine) };
        tokio::pin!(asked);
        let answer = match tokio::time::timeout(LOADING_SHOWS, &mut asked).await {
            Ok(answer) => answer,
            Err(_) => {
                self.progress(Stage::Loading { model: self.role.model.clone() });
                asked.await
            }
        };
        keeper::unwrap(answer)
    }

    fn request(&self) -> Result<engine::Request, Failure> {
        let role = &self.role;
        let render = |template: &Template| {
            let text = template.render(self.context.clone());
            text.map_err(|e| failure(Code::Template, format!("role `{}`: {e}", role.name)))
        };
        let system = render(&role.prompt)?;
        let user = match self.message.as_ref().or(role.message.as_ref()) {
            Some(template) => render(template)?,
            None => self.input.clone(),
        };
        let class = match self.class {
            Class::Interactive => engine::Class::Interactive,
            Class::Batch => engine::Class::Batch,
        };
        request(role, &self.models, class, system, user)
    }

    async fn listen(&self, mut stream: engine::Stream) -> Result<(String, engine::Finish), Failure> {
        let mut said = Said { job: self, text: String::new(), first: None, shown: None };
        let mut began = false;
        loop {
            // Until its first batch a sequence may wait for others as long as the step's timeout allows.
            let idle = if began { self.role.limits.idle } else { self.role.limits.timeout };
            let Ok(chunk) = tokio::time::timeout(idle, stream.recv()).await else {
                return Err(failure(Code::Idle, format!("no token came for {idle:?}, the role's idle limit")));
            };
            began = true;
            match chunk {
                Some(engine::Chunk::Prefill { done, total }) => self.progress(Stage::Prefill { done, total }),
                Some(engine::Chunk::Text { text, tokens }) => said.take(text, tokens),
                // Nobody asked for a choice.
                Some(engine::Chunk::Scores(_)) => {}
                Some(engine::Chunk::Finished(finish)) => return Ok((said.text, finish)),
                Some(engine::Chunk::Failed(error)) => return Err(refused(&error)),
                None => return Err(failure(Code::ModelUnavailable, "the stream ended without an end")),
            }
        }
    }

    fn output(&self, text: String, reason: engine::Reason) -> Result<Output, Failure> {
        let role = Some(self.role.name.clone());
        let Some(schema) = &self.role.output else {
            return Ok(Output { text: text.trim().to_owned(), json: None, role });
        };
        let invalid = |what: String| {
            let hint = match reason {
                engine::Reason::Length => "; max_tokens cut it, raise it",
                _ => "",
            };
            failure(Code::OutputInvalid, format!("role `{}` gave no valid output: {what}{hint}", self.role.name))
        };
        let json: Value = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        schema.check(&json).map_err(invalid)?;
        Ok(Output { text, json: Some(json), role })
    }
}

/// A request of a role's opening alone, if its prompt is the same for every task.
pub(crate) fn opening(role: &Role, models: &Path) -> Option<engine::Request> {
    let context = json!({"role": {"name": role.name.as_str(), "description": role.description}});
    // A prompt that needs more is another one for each task.
    let system = role.prompt.render(context).ok()?;
    request(role, models, engine::Class::Ahead, system, String::new()).ok()
}

fn request(
    role: &Role,
    models: &Path,
    class: engine::Class,
    system: String,
    user: String,
) -> Result<engine::Request, Failure> {
    let message = |speaker, text| engine::Message { speaker, text };
    let sampling = &role.sampling;
    Ok(engine::Request {
        flow: role.name.as_str().into(),
        class,
        messages: vec![message(engine::Speaker::System, system), message(engine::Speaker::User, user)],
        adapter: adapter(role, models)?,
        sampling: engine::Sampling {
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
            Overflow::Reject => engine::Overflow::Reject,
            Overflow::Truncate => engine::Overflow::Truncate,
            Overflow::Shift => engine::Overflow::Shift,
        },
    })
}

/// The adapter of a role, where it is found, and its scale.
pub(crate) fn adapter(role: &Role, models: &Path) -> Result<Option<(PathBuf, f32)>, Failure> {
    let Some(adapter) = &role.adapter else { return Ok(None) };
    let candidates = adapter.candidates(models);
    let found = candidates.iter().find(|path| path.exists());
    let found = found.ok_or_else(|| {
        let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        let message = format!("role `{}`: its adapter is not there; tried {}", role.name, tried.join(", "));
        failure(Code::ModelUnavailable, message)
    })?;
    Ok(Some((found.clone(), adapter.scale)))
}

/// What an attempt has said so far, as it goes to those who watch.
struct Said<'a> {
    job: &'a Job,
    text: String,
    first: Option<Instant>,
    shown: Option<Instant>,
}

impl Said<'_> {
    fn take(&mut self, text: String, tokens: u32) {
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        let (step, role, offset) = (self.job.step.clone(), self.job.role.name.clone(), self.text.len() as u64);
        self.text.push_str(&text);
        // Nobody need be watching; the text is collected all the same.
        let _ = self.job.feed.send(Live::Token { step, role, text: text.into(), offset });
        if self.shown.is_none_or(|shown| now - shown >= SPEED_EVERY) {
            self.shown = Some(now);
            self.job.progress(Stage::Decode { tokens, took: now - first });
        }
    }
}

fn refused(error: &engine::Error) -> Failure {
    let code = match error {
        engine::Error::Overflow { .. } => Code::ContextOverflow,
        engine::Error::Busy(_) => Code::QueueFull,
        engine::Error::Bad(_) => Code::Template,
        engine::Error::Model(_) | engine::Error::Gone(_) => Code::ModelUnavailable,
    };
    failure(code, error.to_string())
}
