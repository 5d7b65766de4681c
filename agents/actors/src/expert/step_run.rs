//! One run of a step: renders the templates into a request, reads the engine's stream and parses the output.

use std::time::Duration;

use artel_engine as engine;
use artel_engine::SamplingParams;
use artel_hosting::engine_host::{self, EngineLease, EngineReport, EngineState};
use artel_hosting::prompt;
use artel_roles::Template;
use artel_stream::StepProgress;
use artel_task::event::{Failure, FailureCode, Output, ResultSource, TaskPriority, Timings, Usage};
use artel_task::portable;
use ractor::{ActorRef, call};

use super::idle_timeout::IdleTimeout;
use super::prefetch::SuccessorPrefetch;
use super::request_span;
use super::step_deadline::ModelWaitCounter;
use super::step_job::StepJob;
use super::streamed_output::{AnswerTexts, StreamedOutput};
use crate::completion::StepOutcome;

/// A load that takes longer than this is published: a shorter wait needs no explanation.
const LOADING_PUBLISH_DELAY: Duration = Duration::from_millis(100);
/// How often the fraction of a load is polled.
const LOADING_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The least temperature after an output that was not valid: the likeliest tokens have just been refused.
const MIN_RETRY_TEMPERATURE: f32 = 0.5;

/// The rendered texts of a step's prompt.
pub(super) struct RenderedPrompt {
    system: String,
    user: String,
}

impl StepJob {
    pub(super) async fn run(&self, engine: EngineLease, prompt: RenderedPrompt) -> Result<StepOutcome, Failure> {
        let _expected = engine.pin_prefixes(self.next_roles.iter().map(|role| role.as_str().into()).collect());
        let key = self.cache.as_ref().map(|cache| cache.key(&self.role, &prompt.system, &prompt.user));
        let request = self.request(prompt)?;
        let span = self.trace.as_ref().map(|scope| request_span::begin(scope, &self.role, &request));
        let answered = self.answer(request, &engine).await;
        match (span, &answered) {
            (Some(span), Ok((_, finish))) => span.finish(request_span::report(finish)),
            (Some(span), Err(failure)) => span.fail(failure.code),
            (None, _) => {}
        }
        let (texts, finish) = answered?;
        let output = self.parse_output(texts, finish.reason)?;
        if let Some((cache, key)) = self.cache.as_ref().zip(key) {
            cache.put(key, &output);
        }
        let (u, t) = (finish.usage, finish.timings);
        let usage = Usage {
            prompt: u.prompt,
            computed: u.computed,
            output: u.output,
            forced: u.forced,
            reasoning: u.reasoning,
            drafted: u.drafted,
            accepted: u.accepted,
        };
        let timings = Timings { queue: t.queue, prefill: t.prefill, decode: t.decode, max_itl: t.max_itl };
        Ok(StepOutcome::Answer { output, usage, timings, source: ResultSource::Run })
    }

    /// The cached response of the same role to the same prompt, if the node accepts one.
    pub(super) fn cached(&self, prompt: &RenderedPrompt) -> Option<StepOutcome> {
        let cache = self.cache.as_ref()?;
        let output = cache.get(&cache.key(&self.role, &prompt.system, &prompt.user))?;
        let (usage, timings) = (Usage::default(), Timings::default());
        Some(StepOutcome::Answer { output, usage, timings, source: ResultSource::Cache })
    }

    /// Fetches the adapter and leases the engine, loading it if needed.
    pub(super) async fn engine(
        &self,
        host: &ActorRef<engine_host::Message>,
        model_waits: &ModelWaitCounter,
    ) -> Result<EngineLease, Failure> {
        let lease = async {
            if let Some(adapter) = &self.role.adapter {
                let fetched = self.loader.fetch_adapter(adapter).await;
                fetched.map_err(|error| {
                    let error = error.in_context(format_args!("role `{}`", self.role.name));
                    Failure::new(FailureCode::ModelUnavailable, error.to_string())
                })?;
            }
            engine_host::lease_or_failure(call!(host, engine_host::Message::AcquireFor, self.task))
        };
        tokio::pin!(lease);
        if let Ok(engine) = tokio::time::timeout(LOADING_PUBLISH_DELAY, &mut lease).await {
            return engine;
        }
        let _wait = model_waits.begin();
        let mut published = None;
        loop {
            let fraction = self.loaded_fraction(host).await;
            let progress = StepProgress::Loading { model: self.role.model.clone(), fraction };
            if published != Some(fraction) && self.publish_progress(progress) {
                published = Some(fraction);
            }
            if let Ok(engine) = tokio::time::timeout(LOADING_POLL_INTERVAL, &mut lease).await {
                return engine;
            }
        }
    }

    /// The loaded fraction of the model; 0 if it is not known.
    async fn loaded_fraction(&self, host: &ActorRef<engine_host::Message>) -> f32 {
        match call!(host, engine_host::Message::Report) {
            Ok(EngineReport { state: EngineState::Loading(fraction), .. }) => fraction,
            _ => 0.0,
        }
    }

    pub(super) fn render_prompt(&self) -> Result<RenderedPrompt, Failure> {
        let role = &self.role;
        let render = |template: &Template| {
            let text = template.render(&self.context);
            text.map_err(|e| Failure::new(FailureCode::Template, format!("role `{}`: {e}", role.name)))
        };
        let system = render(&role.prompt)?;
        let user = match self.message.as_ref().or(role.message.as_ref()) {
            Some(template) => render(template)?,
            None => self.context.input.clone(),
        };
        Ok(RenderedPrompt { system, user })
    }

    fn request(&self, rendered: RenderedPrompt) -> Result<engine::Request, Failure> {
        let priority = match self.priority {
            TaskPriority::Interactive => engine::Priority::Interactive,
            TaskPriority::Batch => engine::Priority::Batch,
        };
        let request = prompt::request(&self.role, &self.models_dir, priority, rendered.system, rendered.user)?;
        let sampling = resampled(request.sampling, self.invalid_outputs);
        let (origin, reasoning) = (self.origin(), self.reasoning);
        Ok(engine::Request { origin, remaining_steps: self.remaining_steps, sampling, reasoning, ..request })
    }

    /// The texts that the engine answers with, and how they ended.
    async fn answer(
        &self,
        request: engine::Request,
        engine: &EngineLease,
    ) -> Result<(AnswerTexts, engine::FinishSummary), Failure> {
        let stream = engine.generate(request).await;
        if stream.is_err() {
            engine.note(&stream);
        }
        let stream = stream.map_err(|e| self.step_failure(&e))?;
        self.barrier.committed().await;
        self.read_stream(stream, engine).await
    }

    async fn read_stream(
        &self,
        mut stream: engine::OutputStream,
        engine: &EngineLease,
    ) -> Result<(AnswerTexts, engine::FinishSummary), Failure> {
        let mut prefetch = SuccessorPrefetch::new(self, engine);
        let mut output = StreamedOutput::new(self);
        // Until its first batch a sequence may wait for others as long as the step's timeout allows.
        let mut idle_timeout = IdleTimeout::new(self.timeout);
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = stream.recv() => chunk,
                limit = idle_timeout.expired() => {
                    return Err(Failure::new(FailureCode::Idle, format!("no token came for {limit:?}, the step's idle limit")));
                }
            };
            idle_timeout.reset(self.idle_timeout);
            match chunk {
                Some(engine::Chunk::Prefill { done, total }) => {
                    output.publish_progress(|| StepProgress::Prefill { done_tokens: done, total_tokens: total });
                }
                Some(engine::Chunk::Text { text, tokens }) => {
                    output.append(text, tokens);
                    prefetch.on_text(&output.answer.text, tokens);
                }
                Some(engine::Chunk::Reasoning { text, tokens }) => output.append_reasoning(text, tokens),
                // Only a request to score labels yields scores.
                Some(engine::Chunk::Scores(_)) => {}
                Some(engine::Chunk::Finished(finish)) => {
                    engine.note(&Ok(()));
                    return Ok((output.into_texts(), finish));
                }
                Some(engine::Chunk::Failed(error)) => {
                    let failure = self.step_failure(&error);
                    engine.note::<()>(&Err(error));
                    return Err(failure);
                }
                None => {
                    return Err(Failure::new(
                        FailureCode::ModelUnavailable,
                        "the engine closed the stream before its last item",
                    ));
                }
            }
        }
    }

    fn step_failure(&self, error: &engine::Error) -> Failure {
        let code = match error {
            engine::Error::Overflow { .. } => FailureCode::ContextOverflow,
            engine::Error::QueueFull(_) => FailureCode::QueueFull,
            // Its prompt, its schema or its adapter is at fault.
            engine::Error::InvalidRequest(_) => {
                return Failure::new(FailureCode::Template, format!("role `{}`: {error}", self.role.name));
            }
            engine::Error::Model(_) => FailureCode::ModelUnavailable,
            // The step is not at fault: it is retried.
            engine::Error::Ended(_) => FailureCode::Interrupted,
        };
        Failure::new(code, error.to_string())
    }

    fn parse_output(&self, texts: AnswerTexts, reason: engine::FinishReason) -> Result<Output, Failure> {
        let AnswerTexts { text, reasoning } = texts;
        let (role, finish) = (Some(self.role.name.clone()), Some(reason));
        let Some(schema) = &self.role.output else {
            return Ok(Output { text, json: None, role, finish, reasoning });
        };
        let invalid = |error: String| {
            let hint = match reason {
                engine::FinishReason::Length => "; it was cut at max_tokens, raise it",
                _ => "",
            };
            Failure::new(
                FailureCode::OutputInvalid,
                format!("role `{}` gave no valid output: {error}{hint}", self.role.name),
            )
        };
        let json = portable::parse(&text).map_err(|e| invalid(e.to_string()))?;
        schema.check(&json).map_err(|e| invalid(e.to_string()))?;
        Ok(Output { text, json: Some(json), role, finish, reasoning })
    }
}

/// The sampling after so many outputs that were not valid: what gave them would give the same once more.
fn resampled(sampling: SamplingParams, invalid_outputs: u32) -> SamplingParams {
    if invalid_outputs == 0 {
        return sampling;
    }
    let temperature = sampling.temperature.max(MIN_RETRY_TEMPERATURE);
    SamplingParams { temperature, seed: sampling.seed.map(|seed| seed.wrapping_add(invalid_outputs)), ..sampling }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_was_not_valid_is_sampled_in_another_way() {
        let greedy = SamplingParams { seed: Some(u32::MAX), ..SamplingParams::GREEDY };
        assert_eq!(resampled(greedy.clone(), 0), greedy);
        let again = resampled(greedy, 2);
        assert_eq!((again.temperature, again.seed), (MIN_RETRY_TEMPERATURE, Some(1)));
        let warm = SamplingParams { temperature: 0.9, ..SamplingParams::default() };
        assert_eq!(resampled(warm.clone(), 1), warm);
    }
}
