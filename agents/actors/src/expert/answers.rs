//! The answers of one attempt: one, or as many as the client asks for, to one prompt.

use std::time::Duration;

use artel_engine as engine;
use artel_engine::{FinishSummary, SamplingParams};
use artel_hosting::engine_host::EngineLease;
use artel_retrieval::{CitationFilter, FoundPassages};
use artel_roles::Schema;
use artel_stream::StepProgress;
use artel_task::event::{Failure, FailureCode, MAX_LOGPROBS_BYTES, Output, OutputLogprobs, ToolCall};
use artel_task::portable;
use futures::future::try_join_all;

use super::grounding;
use super::idle_timeout::IdleTimeout;
use super::prefetch::SuccessorPrefetch;
use super::step_job::StepJob;
use super::streamed_calls::StreamedCalls;
use super::streamed_output::{AnswerShape, AnswerTexts, StreamedOutput};

/// The distance of the seeds of two answers; odd, so that no two of them are the same.
const SEED_DISTANCE_INTEGER: u32 = 0x9e37_79b9;
/// How long the arguments of one call are checked at most: they take a thousandth of that.
const CALL_CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// One answer of a model.
pub(super) struct GeneratedAnswer {
    texts: AnswerTexts,
    calls: Vec<ToolCall>,
    finish: FinishSummary,
}

/// How the answers ended, as one: the prompt is counted once, its last token too, which is computed for each of them.
pub(super) fn summary(answers: &[GeneratedAnswer]) -> FinishSummary {
    let mut all = answers[0].finish;
    for GeneratedAnswer { finish: FinishSummary { usage, timings, .. }, .. } in &answers[1..] {
        all.usage.computed += usage.computed.saturating_sub(1);
        all.usage.output += usage.output;
        all.usage.reasoning += usage.reasoning;
        all.usage.forced += usage.forced;
        all.usage.drafted += usage.drafted;
        all.usage.accepted += usage.accepted;
        all.timings.decode = all.timings.decode.max(timings.decode);
        all.timings.max_itl = all.timings.max_itl.max(timings.max_itl);
    }
    all
}

/// A request for each answer: the first one as it is, the others with seeds that follow from its own.
fn requests(request: engine::Request, count: u32) -> Vec<engine::Request> {
    let request = engine::Request { shares_prompt: count > 1, ..request };
    let number = |number: u32| {
        let seed = request.sampling.seed.map(|seed| seed_of(seed, number));
        let sampling = SamplingParams { seed, ..request.sampling.clone() };
        engine::Request { sampling, ..request.clone() }
    };
    (0..count).map(number).collect()
}

/// The seed of an answer by its number, from 0.
fn seed_of(seed: u32, number: u32) -> u32 {
    seed.wrapping_add(number.wrapping_mul(SEED_DISTANCE_INTEGER))
}

impl StepJob {
    /// The answers of the engine, at least one.
    pub(super) async fn answers(
        &self,
        request: engine::Request,
        engine: &EngineLease,
        found: &FoundPassages,
    ) -> Result<Vec<GeneratedAnswer>, Failure> {
        let count = self.sampling.as_ref().and_then(|sampling| sampling.answers).unwrap_or(1);
        let shape = match &request.schema {
            Some(_) => AnswerShape::Schema,
            None if self.role.knowledge.is_empty() && self.found.is_none() => AnswerShape::Text,
            None => AnswerShape::CitingText(CitationFilter::new(found.count())),
        };
        let streams = requests(request, count.max(1)).into_iter().map(|request| self.start(request, engine));
        let streams = try_join_all(streams).await?;
        self.barrier.committed().await;
        let read = |(at, stream)| self.read_stream(stream, engine, at == 0, shape.clone());
        try_join_all(streams.into_iter().enumerate().map(read)).await
    }

    async fn start(&self, request: engine::Request, engine: &EngineLease) -> Result<engine::OutputStream, Failure> {
        let stream = engine.generate(request).await;
        if stream.is_err() {
            engine.note(&stream);
        }
        stream.map_err(|e| self.step_failure(&e))
    }

    async fn read_stream(
        &self,
        mut stream: engine::OutputStream,
        engine: &EngineLease,
        is_published: bool,
        shape: AnswerShape,
    ) -> Result<GeneratedAnswer, Failure> {
        let mut calls = StreamedCalls::default();
        let mut prefetch = SuccessorPrefetch::new(self, engine);
        let mut output = StreamedOutput::new(self, is_published, shape);
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
                Some(engine::Chunk::Text { text, tokens, logprobs }) => {
                    output.append(text, tokens, &logprobs);
                    if is_published {
                        prefetch.on_text(&output.answer.text, tokens);
                    }
                }
                Some(engine::Chunk::Reasoning { text, tokens }) => output.append_reasoning(text, tokens),
                Some(engine::Chunk::Calls(deltas)) => calls.push(self, deltas, is_published),
                // Only a request to score labels yields scores.
                Some(engine::Chunk::Scores(_)) => {}
                Some(engine::Chunk::Finished(finish)) => {
                    engine.note(&Ok(()));
                    output.finish();
                    let (texts, calls) = (output.into_texts(), calls.into_complete());
                    return Ok(GeneratedAnswer { texts, calls, finish });
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

    /// The first answer as the output, with the others as its alternatives. Each of them must satisfy the schema.
    pub(super) async fn output(
        &self,
        answers: Vec<GeneratedAnswer>,
        schema: Option<&Schema>,
        found: &FoundPassages,
    ) -> Result<Output, Failure> {
        let mut left_bytes = MAX_LOGPROBS_BYTES;
        let mut outputs = Vec::with_capacity(answers.len());
        for GeneratedAnswer { texts: AnswerTexts { text, reasoning, logprobs }, calls, finish } in answers {
            let calls = self.checked_calls(calls).await?;
            let output = self.parse_output(text, calls, finish.reason, schema)?;
            let citations = grounding::cited(&output, found);
            let mut output = Output { reasoning, citations, ..output };
            if !logprobs.is_empty() {
                let (kept, left) = OutputLogprobs::within(logprobs, left_bytes);
                (output.logprobs, left_bytes) = (Some(Box::new(kept)), left);
            }
            outputs.push(output);
        }
        let alternatives = outputs.split_off(1);
        let first = outputs.pop().expect("an attempt has at least one answer");
        Ok(Output { alternatives, ..first })
    }

    /// The calls, if their arguments satisfy the schemas of their tools also where the decoder was not held to them.
    async fn checked_calls(&self, calls: Vec<ToolCall>) -> Result<Vec<ToolCall>, Failure> {
        let Some(tools) = self.tools.clone().filter(|_| !calls.is_empty()) else { return Ok(calls) };
        let check = move || {
            for call in &calls {
                let schema = tools.tools.iter().find(|tool| tool.name == call.name).map(|tool| &tool.parameters);
                let Some(schema) = schema else { continue };
                let checked = artel_constraint::check_arguments(schema, &call.arguments, CALL_CHECK_TIMEOUT);
                checked.map_err(|error| format!("its arguments for tool `{}`: {error}", call.name))?;
            }
            Ok::<_, String>(calls)
        };
        let checked = tokio::task::spawn_blocking(check).await;
        let checked = checked.unwrap_or_else(|_| Err("its calls could not be checked".to_owned()));
        checked.map_err(|error| {
            let message = format!("role `{}` gave no valid call: {error}", self.role.name);
            Failure::new(FailureCode::OutputInvalid, message)
        })
    }

    fn parse_output(
        &self,
        text: String,
        calls: Vec<ToolCall>,
        reason: engine::FinishReason,
        schema: Option<&Schema>,
    ) -> Result<Output, Failure> {
        let (role, finish) = (Some(self.role.name.clone()), Some(reason));
        // An answer with calls is none in the schema.
        let schema = schema.filter(|_| calls.is_empty());
        let output = Output { role, finish, calls, ..Output::text(text) };
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
        if output.calls.is_empty() && self.tools.as_ref().is_some_and(|tools| tools.must_call()) {
            return Err(invalid("it calls no tool, which is required".to_owned()));
        }
        let Some(schema) = schema else { return Ok(output) };
        let json = portable::parse(&output.text).map_err(|e| invalid(e.to_string()))?;
        schema.check(&json).map_err(|e| invalid(e.to_string()))?;
        Ok(Output { json: Some(json), ..output })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use artel_engine::{FinishReason, RequestTimings, RequestUsage};

    use super::*;

    fn answer(usage: RequestUsage, decode: Duration) -> GeneratedAnswer {
        let timings = RequestTimings { decode, ..RequestTimings::default() };
        let finish = FinishSummary { reason: FinishReason::Stop, usage, timings };
        let texts = AnswerTexts { text: String::new(), reasoning: None, logprobs: Vec::new() };
        GeneratedAnswer { texts, calls: Vec::new(), finish }
    }

    #[test]
    fn the_prompt_of_several_answers_is_counted_once() {
        let usage = |computed, output| RequestUsage { prompt: 100, computed, output, ..RequestUsage::default() };
        // Another answer than the first one may compute the prompt.
        let answers = [(1, 5), (100, 7), (1, 9)]
            .map(|(computed, output)| answer(usage(computed, output), Duration::from_millis(u64::from(output))));
        let all = summary(&answers);
        assert_eq!((all.usage.prompt, all.usage.computed, all.usage.output), (100, 100, 21));
        assert_eq!(all.timings.decode, Duration::from_millis(9));
        assert_eq!(summary(&answers[..1]), answers[0].finish);
    }

    #[test]
    fn no_two_answers_have_the_same_seed_and_the_first_has_the_one_that_was_given() {
        for seed in [0, 7, u32::MAX] {
            let seeds: Vec<u32> = (0..8).map(|number| seed_of(seed, number)).collect();
            assert_eq!((seeds[0], seeds.iter().collect::<HashSet<_>>().len()), (seed, 8));
        }
    }
}
