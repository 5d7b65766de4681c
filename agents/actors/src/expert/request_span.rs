//! What is told of a step's request to its engine, as the span of a trace.

use artel_engine as engine;
use artel_roles::Role;
use artel_traces::{RequestSpan, SpanAttributes, TraceScope};

/// A request of this role begins.
pub(super) fn begin(scope: &TraceScope, role: &Role, request: &engine::Request) -> RequestSpan {
    let engine::Request { sampling, max_tokens, schema, .. } = request;
    let attributes = SpanAttributes::default()
        .text("gen_ai.agent.name", role.name.as_str())
        .text("gen_ai.output.type", if schema.is_some() { "json" } else { "text" })
        .boolean("gen_ai.request.stream", true)
        .integer("gen_ai.request.max_tokens", *max_tokens)
        .number("gen_ai.request.temperature", f64::from(sampling.temperature))
        .number("gen_ai.request.top_p", f64::from(sampling.top_p))
        .number("gen_ai.request.top_k", f64::from(sampling.top_k));
    let attributes = match sampling.seed {
        Some(seed) => attributes.integer("gen_ai.request.seed", seed),
        None => attributes,
    };
    RequestSpan::begin(scope, "chat", role.model.as_str()).with(attributes)
}

/// What the engine reports at the end. Its times are told in seconds.
pub(super) fn report(finish: &engine::FinishSummary) -> SpanAttributes {
    let engine::FinishSummary { reason, usage, timings } = finish;
    let reason = match reason {
        engine::FinishReason::Stop | engine::FinishReason::StopText => "stop",
        engine::FinishReason::Length => "length",
        // The word of the conventions for generative AI.
        engine::FinishReason::Calls => "tool_call",
        engine::FinishReason::Cancelled => "cancelled",
    };
    SpanAttributes::default()
        .texts("gen_ai.response.finish_reasons", &[reason])
        .number("gen_ai.response.time_to_first_chunk", (timings.queue + timings.prefill).as_secs_f64())
        .integer("gen_ai.usage.input_tokens", usage.prompt)
        .integer("gen_ai.usage.output_tokens", usage.output)
        .integer("gen_ai.usage.reasoning.output_tokens", usage.reasoning)
        .integer("gen_ai.usage.cache_read.input_tokens", usage.prompt.saturating_sub(usage.computed))
        .number("artel.engine.queue", timings.queue.as_secs_f64())
        .number("artel.engine.prefill", timings.prefill.as_secs_f64())
        .number("artel.engine.decode", timings.decode.as_secs_f64())
        .number("artel.engine.max_inter_token_latency", timings.max_itl.as_secs_f64())
}
