//! The protocol's messages, and conversions between them and the engine's types.

pub(crate) mod pooling;
mod sampling;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use artel_engine as engine;
use artel_engine::backend::EngineLimits;

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::needless_pass_by_value,
    clippy::semicolon_if_nothing_returned,
    clippy::uninlined_format_args,
    rustdoc::all
)]
pub(crate) mod v1;

use sampling::{logprob, logprob_of, sampling, sampling_of};
pub(crate) use sampling::{sampling_defaults, sampling_defaults_of};

/// Converts values field by field; `ours as wire` where the names differ.
macro_rules! mirrored {
    ($out:ident, $back:ident, $ours:path, $wire:path { $($field:ident as $wire_field:ident),+ $(,)? }) => {
        pub(crate) fn $out(value: $ours) -> $wire {
            $wire { $($wire_field: value.$field),+ }
        }

        pub(crate) fn $back(value: $wire) -> $ours {
            $ours { $($field: value.$wire_field),+ }
        }
    };
    ($out:ident, $back:ident, $ours:path, $wire:path { $($field:ident),+ $(,)? }) => {
        mirrored!($out, $back, $ours, $wire { $($field as $field),+ });
    };
}

mirrored!(
    usage,
    usage_of,
    engine::RequestUsage,
    v1::RequestUsage { prompt, computed, output, forced, drafted, accepted, reasoning }
);
mirrored!(tool_call, tool_call_of, engine::ToolCall, v1::ToolCall { id, name, arguments });
mirrored!(memory, memory_of, crate::DeviceMemory, v1::DeviceMemory { device, weights, kv_cache, compute });
mirrored!(
    limits,
    limits_of,
    EngineLimits,
    v1::EngineLimits { context_tokens, sequences, batch_tokens, prefill_multiple, can_truncate_kv, can_shift }
);
mirrored!(
    stats,
    stats_of,
    engine::EngineStats,
    v1::EngineStats {
        running,
        waiting,
        batches,
        prefill_tokens,
        cached_tokens,
        prefix_cache_bytes,
        output_tokens,
        drafted_tokens,
        accepted_tokens,
        finished,
        cancelled,
        failed,
        compute_ns,
        batch_tokens,
        batch_ns
    }
);
mirrored!(reasoning, reasoning_of, engine::ReasoningParams, v1::ReasoningParams { show, is_enabled, budget });

pub(crate) fn request(request: engine::Request) -> v1::GenerateRequest {
    v1::GenerateRequest {
        flow: request.flow.to_string(),
        priority: priority(request.priority).into(),
        remaining_steps: request.remaining_steps,
        messages: request.messages.into_iter().map(message).collect(),
        adapters: adapters(&request.adapters),
        sampling: Some(sampling(request.sampling)),
        max_tokens: request.max_tokens,
        stop: request.stop,
        schema: request.schema.map(|schema| schema.to_string()),
        tools: request.tools.map(|tools| serde_json::to_string(&*tools).expect("tools are JSON")),
        reasoning: Some(reasoning(request.reasoning)),
        overflow: match request.overflow {
            engine::ContextOverflow::Reject => v1::ContextOverflow::Reject,
            engine::ContextOverflow::Truncate => v1::ContextOverflow::Truncate,
            engine::ContextOverflow::Shift => v1::ContextOverflow::Shift,
        }
        .into(),
        origin: Some(origin(request.origin)),
        has_fixed_prefix: request.has_fixed_prefix,
        template_kwargs: serde_json::Value::Object((*request.template_kwargs).clone()).to_string(),
        logprobs: request.logprobs,
        shares_prompt: request.shares_prompt,
    }
}

pub(crate) fn request_of(wire: v1::GenerateRequest) -> Result<engine::Request, engine::Error> {
    let overflow = match wire.overflow() {
        v1::ContextOverflow::Reject => engine::ContextOverflow::Reject,
        v1::ContextOverflow::Truncate => engine::ContextOverflow::Truncate,
        v1::ContextOverflow::Shift => engine::ContextOverflow::Shift,
    };
    let priority = priority_of(wire.priority());
    let not_json = |what, e: &serde_json::Error| engine::Error::InvalidRequest(format!("{what} not valid JSON: {e}"));
    let kwargs = serde_json::from_str(if wire.template_kwargs.is_empty() { "{}" } else { &wire.template_kwargs });
    let schema = wire.schema.map(|text| serde_json::from_str(&text).map(Arc::new)).transpose();
    let tools = wire.tools.map(|text| serde_json::from_str(&text).map(Arc::new)).transpose();
    Ok(engine::Request {
        flow: wire.flow.into(),
        priority,
        remaining_steps: wire.remaining_steps,
        messages: wire.messages.into_iter().map(message_of).collect(),
        adapters: adapters_of(&wire.adapters),
        sampling: sampling_of(wire.sampling.unwrap_or_default()),
        max_tokens: wire.max_tokens,
        stop: wire.stop,
        reasoning: wire.reasoning.map(reasoning_of).unwrap_or_default(),
        schema: schema.map_err(|e| not_json("the schema is", &e))?,
        tools: tools.map_err(|e| not_json("the tools are", &e))?,
        overflow,
        origin: wire.origin.map(origin_of).unwrap_or_default(),
        has_fixed_prefix: wire.has_fixed_prefix,
        logprobs: wire.logprobs,
        shares_prompt: wire.shares_prompt,
        template_kwargs: Arc::new(kwargs.map_err(|e| not_json("the variables of the template are", &e))?),
    })
}

fn origin(origin: engine::RequestOrigin) -> v1::RequestOrigin {
    let text = |value: Option<Arc<str>>| value.as_deref().map(str::to_owned);
    v1::RequestOrigin { task: text(origin.task), step: text(origin.step), role: text(origin.role) }
}

fn origin_of(wire: v1::RequestOrigin) -> engine::RequestOrigin {
    let v1::RequestOrigin { task, step, role } = wire;
    engine::RequestOrigin { task: task.map(Into::into), step: step.map(Into::into), role: role.map(Into::into) }
}

fn priority(priority: engine::Priority) -> v1::Priority {
    match priority {
        engine::Priority::Router => v1::Priority::Router,
        engine::Priority::Interactive => v1::Priority::Interactive,
        engine::Priority::Batch => v1::Priority::Batch,
        engine::Priority::Prefetch => v1::Priority::Prefetch,
        engine::Priority::Background => v1::Priority::Background,
    }
}

fn priority_of(wire: v1::Priority) -> engine::Priority {
    match wire {
        v1::Priority::Router => engine::Priority::Router,
        v1::Priority::Interactive => engine::Priority::Interactive,
        v1::Priority::Batch => engine::Priority::Batch,
        v1::Priority::Prefetch => engine::Priority::Prefetch,
        v1::Priority::Background => engine::Priority::Background,
    }
}

fn message(message: engine::Message) -> v1::Message {
    let role = match message.role {
        engine::ChatRole::System => v1::ChatRole::System,
        engine::ChatRole::User => v1::ChatRole::User,
        engine::ChatRole::Assistant => v1::ChatRole::Assistant,
        engine::ChatRole::Tool => v1::ChatRole::Tool,
    };
    let calls = message.calls.into_iter().map(tool_call).collect();
    v1::Message { role: role.into(), text: message.text, calls, answers: message.answers.map(tool_call) }
}

fn message_of(wire: v1::Message) -> engine::Message {
    let role = match wire.role() {
        v1::ChatRole::System => engine::ChatRole::System,
        v1::ChatRole::User => engine::ChatRole::User,
        v1::ChatRole::Assistant => engine::ChatRole::Assistant,
        v1::ChatRole::Tool => engine::ChatRole::Tool,
    };
    let calls = wire.calls.into_iter().map(tool_call_of).collect();
    engine::Message { role, text: wire.text, calls, answers: wire.answers.map(tool_call_of) }
}

pub(crate) fn adapters(adapters: &[(PathBuf, f32)]) -> Vec<v1::Adapter> {
    let adapter =
        |(path, scale): &(PathBuf, f32)| v1::Adapter { path: path.as_os_str().as_bytes().to_vec(), scale: *scale };
    adapters.iter().map(adapter).collect()
}

pub(crate) fn adapters_of(wire: &[v1::Adapter]) -> engine::ScaledAdapters {
    wire.iter().map(|adapter| (PathBuf::from(OsStr::from_bytes(&adapter.path)), adapter.scale)).collect()
}

/// `None` for label scores, which have their own call.
pub(crate) fn chunk(chunk: engine::Chunk) -> Option<v1::Chunk> {
    let chunk = match chunk {
        engine::Chunk::Prefill { done, total } => v1::chunk::Chunk::Prefill(v1::PrefillProgress { done, total }),
        engine::Chunk::Text { text, tokens, logprobs } => {
            let logprobs = logprobs.into_iter().map(logprob).collect();
            v1::chunk::Chunk::Text(v1::Text { text, tokens, logprobs })
        }
        engine::Chunk::Reasoning { text, tokens } => {
            v1::chunk::Chunk::Reasoning(v1::Text { text, tokens, logprobs: Vec::new() })
        }
        engine::Chunk::Calls(deltas) => v1::chunk::Chunk::Calls(calls(deltas)),
        engine::Chunk::Scores(_) => return None,
        engine::Chunk::Finished(summary) => v1::chunk::Chunk::Finished(finish(summary)),
        engine::Chunk::Failed(failure) => v1::chunk::Chunk::Failed(error(failure)),
    };
    Some(v1::Chunk { chunk: Some(chunk) })
}

pub(crate) fn chunk_of(wire: v1::Chunk) -> engine::Chunk {
    match wire.chunk {
        Some(v1::chunk::Chunk::Prefill(p)) => engine::Chunk::Prefill { done: p.done, total: p.total },
        Some(v1::chunk::Chunk::Text(t)) => {
            let logprobs = t.logprobs.into_iter().map(logprob_of).collect();
            engine::Chunk::Text { text: t.text, tokens: t.tokens, logprobs }
        }
        Some(v1::chunk::Chunk::Reasoning(t)) => engine::Chunk::Reasoning { text: t.text, tokens: t.tokens },
        Some(v1::chunk::Chunk::Calls(deltas)) => engine::Chunk::Calls(calls_of(deltas)),
        Some(v1::chunk::Chunk::Finished(summary)) => engine::Chunk::Finished(finish_of(&summary)),
        Some(v1::chunk::Chunk::Failed(failure)) => engine::Chunk::Failed(error_of(failure)),
        None => engine::Chunk::Failed(engine::Error::Model("its process sent an empty chunk".to_owned())),
    }
}

fn calls(deltas: Vec<engine::CallDelta>) -> v1::CallDeltas {
    use engine::CallDelta as D;
    use v1::call_delta::Delta as W;
    let delta = |delta: D| {
        let (index, delta) = match delta {
            // The engine sends text as text.
            D::Text(_) => return None,
            D::Begin { index, name } => (index, W::Begin(name)),
            D::Arguments { index, text } => (index, W::Arguments(text)),
            D::End { index } => (index, W::End(true)),
            D::Withdrawn { index } => (index, W::Withdrawn(true)),
        };
        Some(v1::CallDelta { index: u32::try_from(index).unwrap_or(u32::MAX), delta: Some(delta) })
    };
    v1::CallDeltas { deltas: deltas.into_iter().filter_map(delta).collect() }
}

fn calls_of(wire: v1::CallDeltas) -> Vec<engine::CallDelta> {
    use engine::CallDelta as D;
    use v1::call_delta::Delta as W;
    let delta = |wire: v1::CallDelta| {
        let index = usize::try_from(wire.index).unwrap_or(usize::MAX);
        Some(match wire.delta? {
            W::Begin(name) => D::Begin { index, name },
            W::Arguments(text) => D::Arguments { index, text },
            W::End(_) => D::End { index },
            W::Withdrawn(_) => D::Withdrawn { index },
        })
    };
    wire.deltas.into_iter().filter_map(delta).collect()
}

fn finish(summary: engine::FinishSummary) -> v1::FinishSummary {
    let reason = match summary.reason {
        engine::FinishReason::Stop => v1::FinishReason::Stop,
        engine::FinishReason::StopText => v1::FinishReason::StopText,
        engine::FinishReason::Length => v1::FinishReason::Length,
        engine::FinishReason::Calls => v1::FinishReason::Calls,
        engine::FinishReason::Cancelled => v1::FinishReason::Cancelled,
    };
    v1::FinishSummary {
        reason: reason.into(),
        usage: Some(usage(summary.usage)),
        timings: Some(timings(summary.timings)),
    }
}

fn finish_of(wire: &v1::FinishSummary) -> engine::FinishSummary {
    let reason = match wire.reason() {
        v1::FinishReason::Stop => engine::FinishReason::Stop,
        v1::FinishReason::StopText => engine::FinishReason::StopText,
        v1::FinishReason::Length => engine::FinishReason::Length,
        v1::FinishReason::Calls => engine::FinishReason::Calls,
        v1::FinishReason::Cancelled => engine::FinishReason::Cancelled,
    };
    engine::FinishSummary { reason, usage: usage_of(wire.usage.unwrap_or_default()), timings: timings_of(wire.timings) }
}

pub(crate) fn heartbeat(heartbeat: engine::Heartbeat) -> v1::Heartbeat {
    let (activity, expected) = match heartbeat.activity {
        engine::EngineActivity::Idle => (v1::EngineActivity::Idle, None),
        engine::EngineActivity::AwaitsCpu => (v1::EngineActivity::AwaitsCpu, None),
        engine::EngineActivity::Computes { expected } => (v1::EngineActivity::Computes, expected),
    };
    // 64 bits hold about 585 years.
    let expected_ns = expected.map(|expected| u64::try_from(expected.as_nanos()).unwrap_or(u64::MAX));
    v1::Heartbeat { beats: heartbeat.beats, activity: activity.into(), expected_ns }
}

pub(crate) fn heartbeat_of(wire: v1::Heartbeat) -> engine::Heartbeat {
    let activity = match wire.activity() {
        v1::EngineActivity::Idle => engine::EngineActivity::Idle,
        v1::EngineActivity::AwaitsCpu => engine::EngineActivity::AwaitsCpu,
        v1::EngineActivity::Computes => {
            engine::EngineActivity::Computes { expected: wire.expected_ns.map(Duration::from_nanos) }
        }
    };
    engine::Heartbeat { beats: wire.beats, activity }
}

pub(crate) fn timings(t: engine::RequestTimings) -> v1::RequestTimings {
    // 64 bits hold about 585 years.
    let nanos = |time: Duration| time.as_nanos() as u64;
    v1::RequestTimings {
        queue: nanos(t.queue),
        prefill: nanos(t.prefill),
        decode: nanos(t.decode),
        max_itl: nanos(t.max_itl),
    }
}

pub(crate) fn timings_of(wire: Option<v1::RequestTimings>) -> engine::RequestTimings {
    let t = wire.unwrap_or_default();
    let time = Duration::from_nanos;
    engine::RequestTimings {
        queue: time(t.queue),
        prefill: time(t.prefill),
        decode: time(t.decode),
        max_itl: time(t.max_itl),
    }
}

pub(crate) fn error(error: engine::Error) -> v1::Error {
    let error = match error {
        engine::Error::Overflow { prompt, output, context } => {
            v1::error::Error::Overflow(v1::OverflowError { prompt, output, context })
        }
        engine::Error::TextTooLong { index, tokens, limit } => {
            let index = index.map(|index| u32::try_from(index).unwrap_or(u32::MAX));
            v1::error::Error::TextTooLong(v1::TextTooLong { index, tokens, limit })
        }
        engine::Error::InvalidRequest(reason) => v1::error::Error::InvalidRequest(reason),
        engine::Error::QueueFull(queue) => v1::error::Error::QueueFull(queue as u64),
        engine::Error::Model(reason) => v1::error::Error::Model(reason),
        engine::Error::Ended(reason) => v1::error::Error::Ended(reason),
    };
    v1::Error { error: Some(error) }
}

pub(crate) fn error_of(wire: v1::Error) -> engine::Error {
    match wire.error {
        Some(v1::error::Error::Overflow(o)) => {
            engine::Error::Overflow { prompt: o.prompt, output: o.output, context: o.context }
        }
        Some(v1::error::Error::TextTooLong(text)) => engine::Error::TextTooLong {
            index: text.index.map(|index| index as usize),
            tokens: text.tokens,
            limit: text.limit,
        },
        Some(v1::error::Error::InvalidRequest(reason)) => engine::Error::InvalidRequest(reason),
        Some(v1::error::Error::QueueFull(queue)) => {
            engine::Error::QueueFull(usize::try_from(queue).unwrap_or(usize::MAX))
        }
        Some(v1::error::Error::Model(reason)) => engine::Error::Model(reason),
        Some(v1::error::Error::Ended(reason)) => engine::Error::Ended(reason),
        None => engine::Error::Model("its process sent an empty error".to_owned()),
    }
}

pub(crate) fn answer_tokens(tokens: Result<engine::AnswerTokens, engine::Error>) -> v1::TokenizeAnswerResponse {
    let ids = |tokens: Vec<engine::Token>| tokens.into_iter().map(|token| token.0).collect();
    match tokens {
        Ok(engine::AnswerTokens { prompt, answer }) => {
            v1::TokenizeAnswerResponse { prompt: ids(prompt), answer: ids(answer), error: None }
        }
        Err(failure) => {
            v1::TokenizeAnswerResponse { error: Some(error(failure)), ..v1::TokenizeAnswerResponse::default() }
        }
    }
}

pub(crate) fn answer_tokens_of(wire: v1::TokenizeAnswerResponse) -> Result<engine::AnswerTokens, engine::Error> {
    let tokens = |ids: Vec<i32>| ids.into_iter().map(engine::Token).collect();
    match wire.error {
        Some(failure) => Err(error_of(failure)),
        None => Ok(engine::AnswerTokens { prompt: tokens(wire.prompt), answer: tokens(wire.answer) }),
    }
}

pub(crate) fn load_error(error: &engine::LoadError) -> v1::LoadError {
    v1::LoadError {
        message: error.message().to_owned(),
        advice: error.advice().map(str::to_owned),
        is_transient: error.is_transient(),
    }
}

pub(crate) fn load_error_of(wire: v1::LoadError) -> engine::LoadError {
    let v1::LoadError { message, advice, is_transient } = wire;
    let error =
        if is_transient { engine::LoadError::transient(message) } else { engine::LoadError::permanent(message) };
    match advice {
        Some(advice) => error.with_advice(advice),
        None => error,
    }
}
