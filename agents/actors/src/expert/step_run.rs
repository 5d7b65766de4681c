//! One run of a step: renders the templates into a request, reads the engine's stream and parses the output.

use std::sync::Arc;
use std::time::Duration;

use artel_engine as engine;
use artel_engine::{SamplingOptions, SamplingParams};
use artel_hosting::engine_host::{self, EngineLease, EngineReport, EngineState};
use artel_hosting::prompt;
use artel_retrieval::FoundPassages;
use artel_roles::Schema;
use artel_stream::StepProgress;
use artel_task::event::{Failure, FailureCode, ResultSource, TaskPriority, Timings, Usage};
use ractor::{ActorRef, call};

use super::rendered_prompt::RenderedPrompt;
use super::step_deadline::ModelWaitCounter;
use super::step_job::StepJob;
use super::{answers, grounding, request_span};
use crate::completion::StepOutcome;
use crate::response_cache::ResponseKey;

/// A load that takes longer than this is published: a shorter wait needs no explanation.
const LOADING_PUBLISH_DELAY: Duration = Duration::from_millis(100);
/// How often the fraction of a load is polled.
const LOADING_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The least temperature after an output that was not valid: the likeliest tokens have just been refused.
const MIN_RETRY_TEMPERATURE: f32 = 0.5;

impl StepJob {
    pub(super) async fn run(
        &self,
        engine: EngineLease,
        prompt: RenderedPrompt,
        found: &FoundPassages,
    ) -> Result<StepOutcome, Failure> {
        let _expected = engine.pin_prefixes(self.next_roles.iter().map(|role| role.as_str().into()).collect());
        let key = self.cache_key(&prompt);
        let schema = self.output_schema().await?;
        let request = self.request(prompt, schema.as_ref(), found, &engine.sampling_defaults())?;
        let span = self.trace.as_ref().map(|scope| request_span::begin(scope, &self.role, &request));
        let answered = self.answers(request, &engine, found).await;
        match (span, &answered) {
            (Some(span), Ok(answers)) => span.finish(request_span::report(&answers::summary(answers))),
            (Some(span), Err(failure)) => span.fail(failure.code),
            (None, _) => {}
        }
        let answers = answered?;
        let finish = answers::summary(&answers);
        let output = self.output(answers, schema.as_ref(), found).await?;
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

    /// The key of the response in the cache, if the node accepts a cached one.
    fn cache_key(&self, prompt: &RenderedPrompt) -> Option<ResponseKey> {
        let cache = self.cache.as_ref()?;
        let options = serde_json::to_string(&(&self.sampling, &self.response, &self.tools)).ok()?;
        Some(cache.key(&self.role, &prompt.system, &prompt.user, &options))
    }

    /// The cached response of the same role to the same prompt, if the node accepts one.
    pub(super) fn cached(&self, prompt: &RenderedPrompt) -> Option<StepOutcome> {
        let output = self.cache.as_ref()?.get(&self.cache_key(prompt)?)?;
        let (usage, timings) = (Usage::default(), Timings::default());
        Some(StepOutcome::Answer { output, usage, timings, source: ResultSource::Cache })
    }

    /// Fetches the adapters and leases the engine, loading it if needed.
    pub(super) async fn engine(
        &self,
        host: &ActorRef<engine_host::Message>,
        model_waits: &ModelWaitCounter,
    ) -> Result<EngineLease, Failure> {
        let lease = async {
            for adapter in &self.role.adapters {
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

    /// The schema of the role, or else that of the client.
    async fn output_schema(&self) -> Result<Option<Schema>, Failure> {
        let asked = self.response.as_ref().and_then(|response| response.schema());
        let (None, Some(json)) = (&self.role.output, asked) else { return Ok(self.role.output.clone()) };
        let compiled = tokio::task::spawn_blocking(move || Schema::of_task(json)).await;
        match compiled {
            Ok(Ok(schema)) => Ok(Some(schema)),
            Ok(Err(refusal)) => {
                Err(Failure::new(FailureCode::Template, format!("the schema of the response {refusal}")))
            }
            Err(error) => Err(Failure::new(FailureCode::Internal, format!("checking a schema panicked: {error}"))),
        }
    }

    /// What the client says of the sampling goes before what its role says, and that before what the model's file states.
    fn request(
        &self,
        rendered: RenderedPrompt,
        schema: Option<&Schema>,
        found: &FoundPassages,
        of_model: &SamplingOptions,
    ) -> Result<engine::Request, Failure> {
        let priority = match self.priority {
            TaskPriority::Interactive => engine::Priority::Interactive,
            TaskPriority::Batch => engine::Priority::Batch,
        };
        let request = prompt::request(&self.role, &self.models_dir, priority, rendered.into_messages())?;
        let (role, asked) = (&self.role.sampling, self.sampling.as_deref().cloned().unwrap_or_default());
        let choice = asked.choice.or(&role.choice).or(of_model);
        Ok(engine::Request {
            origin: self.origin(),
            remaining_steps: self.remaining_steps,
            sampling: resampled(choice.params(), self.invalid_outputs),
            logprobs: choice.logprobs,
            // The role of another catalog may allow less than the one that the client was held to.
            max_tokens: asked.max_tokens.unwrap_or(role.max_tokens).min(role.max_tokens),
            stop: role.stop_with(&asked),
            schema: schema.map(|schema| Arc::new(grounding::with_cited_numbers(schema.json().clone(), found))),
            tools: self.tools.clone(),
            reasoning: self.reasoning,
            // Tools and a conversation are a part of it, and their caller's.
            has_fixed_prefix: request.has_fixed_prefix && self.tools.is_none() && self.conversation.is_none(),
            ..request
        })
    }

    pub(super) fn step_failure(&self, error: &engine::Error) -> Failure {
        let code = match error {
            engine::Error::Overflow { .. } => FailureCode::ContextOverflow,
            engine::Error::QueueFull(_) => FailureCode::QueueFull,
            // Its prompt, its schema or its adapter is at fault. A step has no texts that are computed as a whole.
            engine::Error::InvalidRequest(_) | engine::Error::TextTooLong { .. } => {
                return Failure::new(FailureCode::Template, format!("role `{}`: {error}", self.role.name));
            }
            engine::Error::Model(_) => FailureCode::ModelUnavailable,
            // The step is not at fault: it is retried.
            engine::Error::Ended(_) => FailureCode::Interrupted,
        };
        Failure::new(code, error.to_string())
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
