//! What the engine's own types are on the wire.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artel_engine as engine;
use artel_engine::backend::EngineLimits;
use artel_proto::engine::v1;

/// Values that have the same fields on both sides.
macro_rules! mirrored {
    ($out:ident, $back:ident, $ours:path, $wire:path { $($field:ident),+ $(,)? }) => {
        pub(crate) fn $out(value: $ours) -> $wire {
            $wire { $($field: value.$field),+ }
        }

        pub(crate) fn $back(value: $wire) -> $ours {
            $ours { $($field: value.$field),+ }
        }
    };
}

mirrored!(usage, usage_of, engine::RequestUsage, v1::Usage { prompt, computed, output, forced, drafted, accepted });
mirrored!(limits, limits_of, EngineLimits, v1::Limits { context_tokens, sequences, batch_tokens, prefill_multiple, can_truncate_kv, can_shift });
mirrored!(memory, memory_of, crate::Memory, v1::Memory { device, weights, cache, compute });
mirrored!(
    stats,
    stats_of,
    engine::EngineStats,
    v1::Stats {
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
        compute_ns
    }
);
mirrored!(
    sampling,
    sampling_of,
    engine::SamplingParams,
    v1::Sampling { temperature, top_p, top_k, min_p, repeat_penalty, seed }
);

pub(crate) fn request(request: engine::Request) -> v1::GenerateRequest {
    v1::GenerateRequest {
        flow: request.flow.to_string(),
        class: class(request.class).into(),
        left: request.left,
        messages: request.messages.into_iter().map(message).collect(),
        adapter: request.adapter.as_ref().map(|(path, scale)| adapter(path, *scale)),
        sampling: Some(sampling(request.sampling)),
        max_tokens: request.max_tokens,
        stop: request.stop,
        schema: request.schema.map(|schema| schema.to_string()),
        overflow: match request.overflow {
            engine::ContextOverflow::Reject => v1::Overflow::Reject,
            engine::ContextOverflow::Truncate => v1::Overflow::Truncate,
            engine::ContextOverflow::Shift => v1::Overflow::Shift,
        }
        .into(),
    }
}

pub(crate) fn request_of(wire: v1::GenerateRequest) -> Result<engine::Request, engine::Error> {
    let overflow = match wire.overflow() {
        v1::Overflow::Reject => engine::ContextOverflow::Reject,
        v1::Overflow::Truncate => engine::ContextOverflow::Truncate,
        v1::Overflow::Shift => engine::ContextOverflow::Shift,
    };
    let class = match wire.class() {
        v1::Class::Router => engine::Priority::Router,
        v1::Class::Interactive => engine::Priority::Interactive,
        v1::Class::Batch => engine::Priority::Batch,
        v1::Class::Along => engine::Priority::Prefetch,
        v1::Class::Ahead => engine::Priority::Background,
    };
    let schema = wire.schema.map(|text| serde_json::from_str(&text).map(Arc::new)).transpose();
    Ok(engine::Request {
        flow: wire.flow.into(),
        priority: class,
        remaining_steps: wire.left,
        messages: wire.messages.into_iter().map(message_of).collect(),
        adapter: wire.adapter.as_ref().map(adapter_of),
        sampling: sampling_of(wire.sampling.unwrap_or_default()),
        max_tokens: wire.max_tokens,
        stop: wire.stop,
        schema: schema.map_err(|e| engine::Error::InvalidRequest(format!("the schema is not JSON: {e}")))?,
        overflow,
    })
}

fn class(class: engine::Priority) -> v1::Class {
    match class {
        engine::Priority::Router => v1::Class::Router,
        engine::Priority::Interactive => v1::Class::Interactive,
        engine::Priority::Batch => v1::Class::Batch,
        engine::Priority::Prefetch => v1::Class::Along,
        engine::Priority::Background => v1::Class::Ahead,
    }
}

fn message(message: engine::Message) -> v1::Message {
    let speaker = match message.role {
        engine::ChatRole::System => v1::Speaker::System,
        engine::ChatRole::User => v1::Speaker::User,
        engine::ChatRole::Assistant => v1::Speaker::Assistant,
    };
    v1::Message { speaker: speaker.into(), text: message.text }
}

fn message_of(wire: v1::Message) -> engine::Message {
    let speaker = match wire.speaker() {
        v1::Speaker::System => engine::ChatRole::System,
        v1::Speaker::User => engine::ChatRole::User,
        v1::Speaker::Assistant => engine::ChatRole::Assistant,
    };
    engine::Message { role: speaker, text: wire.text }
}

pub(crate) fn adapter(path: &Path, scale: f32) -> v1::Adapter {
    v1::Adapter { path: path.as_os_str().as_bytes().to_vec(), scale }
}

pub(crate) fn adapter_of(wire: &v1::Adapter) -> (PathBuf, f32) {
    (PathBuf::from(OsStr::from_bytes(&wire.path)), wire.scale)
}

/// Scores belong to choices, which have a call of their own: none for these.
pub(crate) fn chunk(chunk: engine::Chunk) -> Option<v1::Chunk> {
    let chunk = match chunk {
        engine::Chunk::Prefill { done, total } => v1::chunk::Chunk::Prefill(v1::Prefill { done, total }),
        engine::Chunk::Text { text, tokens } => v1::chunk::Chunk::Text(v1::Text { text, tokens }),
        engine::Chunk::Scores(_) => return None,
        engine::Chunk::Finished(end) => v1::chunk::Chunk::Finished(finish(end)),
        engine::Chunk::Failed(failure) => v1::chunk::Chunk::Failed(error(failure)),
    };
    Some(v1::Chunk { chunk: Some(chunk) })
}

pub(crate) fn chunk_of(wire: v1::Chunk) -> engine::Chunk {
    match wire.chunk {
        Some(v1::chunk::Chunk::Prefill(p)) => engine::Chunk::Prefill { done: p.done, total: p.total },
        Some(v1::chunk::Chunk::Text(t)) => engine::Chunk::Text { text: t.text, tokens: t.tokens },
        Some(v1::chunk::Chunk::Finished(end)) => engine::Chunk::Finished(finish_of(&end)),
        Some(v1::chunk::Chunk::Failed(failure)) => engine::Chunk::Failed(error_of(failure)),
        None => engine::Chunk::Failed(engine::Error::Model("its process sent an empty chunk".to_owned())),
    }
}

fn finish(end: engine::FinishSummary) -> v1::Finish {
    let reason = match end.reason {
        engine::FinishReason::End => v1::Reason::End,
        engine::FinishReason::Stop => v1::Reason::Stop,
        engine::FinishReason::Length => v1::Reason::Length,
    };
    v1::Finish { reason: reason.into(), usage: Some(usage(end.usage)), timings: Some(timings(end.timings)) }
}

fn finish_of(wire: &v1::Finish) -> engine::FinishSummary {
    let reason = match wire.reason() {
        v1::Reason::End => engine::FinishReason::End,
        v1::Reason::Stop => engine::FinishReason::Stop,
        v1::Reason::Length => engine::FinishReason::Length,
    };
    engine::FinishSummary { reason, usage: usage_of(wire.usage.unwrap_or_default()), timings: timings_of(wire.timings) }
}

pub(crate) fn timings(t: engine::RequestTimings) -> v1::Timings {
    // Half a millennium fits.
    let nanos = |time: Duration| time.as_nanos() as u64;
    v1::Timings { queue: nanos(t.queue), prefill: nanos(t.prefill), decode: nanos(t.decode), gap: nanos(t.max_itl) }
}

pub(crate) fn timings_of(wire: Option<v1::Timings>) -> engine::RequestTimings {
    let t = wire.unwrap_or_default();
    let time = Duration::from_nanos;
    engine::RequestTimings { queue: time(t.queue), prefill: time(t.prefill), decode: time(t.decode), max_itl: time(t.gap) }
}

pub(crate) fn error(error: engine::Error) -> v1::Error {
    let error = match error {
        engine::Error::Overflow { prompt, output, context } => {
            v1::error::Error::Overflow(v1::OverflowError { prompt, output, context })
        }
        engine::Error::InvalidRequest(what) => v1::error::Error::Bad(what),
        engine::Error::QueueFull(queue) => v1::error::Error::Busy(queue as u64),
        engine::Error::Model(what) => v1::error::Error::Model(what),
        engine::Error::Ended(what) => v1::error::Error::Gone(what),
    };
    v1::Error { error: Some(error) }
}

pub(crate) fn error_of(wire: v1::Error) -> engine::Error {
    match wire.error {
        Some(v1::error::Error::Overflow(o)) => {
            engine::Error::Overflow { prompt: o.prompt, output: o.output, context: o.context }
        }
        Some(v1::error::Error::Bad(what)) => engine::Error::InvalidRequest(what),
        Some(v1::error::Error::Busy(queue)) => engine::Error::QueueFull(usize::try_from(queue).unwrap_or(usize::MAX)),
        Some(v1::error::Error::Model(what)) => engine::Error::Model(what),
        Some(v1::error::Error::Gone(what)) => engine::Error::Ended(what),
        None => engine::Error::Model("its process sent an error without a word".to_owned()),
    }
}
