//! Converts values of the runtime to messages of `artel.v1`.

use std::collections::{BTreeMap, HashMap};

use artel_actors::{StepProgress, ToolCallPart};
use artel_proto::v1;
use artel_task::event::{
    CandidateScore, Citation, Decision, Failure, FailureCode, FinishReason, NoMatch, Output, ResultSource, Signal,
    TakenEdge, TaskPriority, TaskSpec, Timings, TokenLogprob, ToolCall, TopLogprob, Usage,
};
use artel_task::{EventKind, NodeName, RoleName, StepId};

use crate::server_paths::ServerPaths;
use crate::value::{duration, portable_struct, portable_value, timestamp};

pub(crate) fn priority(class: TaskPriority) -> v1::Priority {
    match class {
        TaskPriority::Interactive => v1::Priority::Interactive,
        TaskPriority::Batch => v1::Priority::Batch,
    }
}

pub(crate) fn output(output: &Output) -> v1::Output {
    v1::Output {
        text: output.text.clone(),
        // The text has the JSON too.
        json: output.json.as_ref().and_then(portable_value),
        role: output.role.as_ref().map(ToString::to_string).unwrap_or_default(),
        finish: output.finish.map(|reason| finish_reason(reason).into()),
        calls: output.calls.iter().map(tool_call).collect(),
        citations: output.citations.iter().map(citation).collect(),
        alternatives: output.alternatives.iter().map(self::output).collect(),
        logprobs: output
            .logprobs
            .as_ref()
            .map(|logprobs| v1::Logprobs { tokens: token_logprobs(&logprobs.tokens), truncated: logprobs.truncated }),
        reasoning: output.reasoning.clone().unwrap_or_default(),
    }
}

fn citation(citation: &Citation) -> v1::Citation {
    let Citation { number, knowledge, source, page, first_line, last_line, context, quote } = citation.clone();
    v1::Citation { number, knowledge, source, page: page.unwrap_or(0), first_line, last_line, context, quote }
}

pub(crate) fn token_logprobs(tokens: &[TokenLogprob]) -> Vec<v1::TokenLogprob> {
    let top = |top: &TopLogprob| v1::TopLogprob { bytes: top.bytes.clone(), logprob: top.logprob };
    let token = |token: &TokenLogprob| v1::TokenLogprob {
        bytes: token.bytes.clone(),
        logprob: token.logprob,
        forced: token.forced,
        top: token.top.iter().map(top).collect(),
    };
    tokens.iter().map(token).collect()
}

fn finish_reason(reason: FinishReason) -> v1::FinishReason {
    match reason {
        FinishReason::Stop => v1::FinishReason::Stop,
        FinishReason::StopText => v1::FinishReason::StopText,
        FinishReason::Length => v1::FinishReason::Length,
        FinishReason::Calls => v1::FinishReason::Calls,
        FinishReason::Cancelled => v1::FinishReason::Cancelled,
    }
}

fn tool_call(call: &ToolCall) -> v1::ToolCall {
    v1::ToolCall { id: call.id.clone(), name: call.name.clone(), arguments: call.arguments.clone() }
}

/// A part of a call of a tool.
pub(crate) fn tool_call_delta(step: &StepId, role: &str, index: u32, part: ToolCallPart) -> v1::ToolCallDelta {
    use v1::tool_call_delta::Part as P;
    let part = match part {
        ToolCallPart::Begin { id, name } => P::Begin(v1::ToolCallBegin { id: id.to_string(), name: name.to_string() }),
        ToolCallPart::Arguments(text) => P::Arguments(text.to_string()),
        ToolCallPart::End => P::End(v1::ToolCallEnd {}),
        ToolCallPart::Withdrawn => P::Withdrawn(v1::ToolCallWithdrawn {}),
    };
    let (step_id, node, role) = (step_id(step), step.visit.node_path(), role.to_owned());
    v1::ToolCallDelta { step_id, node, role, index, part: Some(part) }
}

/// The journal and the log have the message with the daemon's paths. Only messages about the daemon's own files have any;
/// others may quote a client or a model.
pub(crate) fn failure(failure: &Failure, paths: &ServerPaths) -> v1::Failure {
    use FailureCode as C;
    let names_files = matches!(failure.code, C::ModelUnavailable | C::Router | C::Interrupted | C::Internal);
    v1::Failure {
        code: code(failure.code).into(),
        message: if names_files { paths.hide(&failure.message) } else { failure.message.clone() },
        step_id: failure.step.as_ref().map(step_id).unwrap_or_default(),
    }
}

fn code(code: FailureCode) -> v1::FailureCode {
    use v1::FailureCode as F;
    match code {
        FailureCode::Timeout => F::Timeout,
        FailureCode::Idle => F::Idle,
        FailureCode::ContextOverflow => F::ContextOverflow,
        FailureCode::ModelUnavailable => F::ModelUnavailable,
        FailureCode::Template => F::Template,
        FailureCode::Condition => F::Condition,
        FailureCode::NoEdge => F::NoEdge,
        FailureCode::JoinStuck => F::JoinStuck,
        FailureCode::LimitSteps => F::LimitSteps,
        FailureCode::LimitTokens => F::LimitTokens,
        FailureCode::LimitTime => F::LimitTime,
        FailureCode::QueueFull => F::QueueFull,
        FailureCode::Interrupted => F::Interrupted,
        FailureCode::OutputInvalid => F::OutputInvalid,
        FailureCode::Router => F::Router,
        FailureCode::Cancelled => F::Cancelled,
        FailureCode::NoAnswer => F::NoAnswer,
        FailureCode::Items => F::Items,
        FailureCode::Internal => F::Internal,
    }
}

/// The task that it was forked from; empty if it was not.
pub(crate) fn forked_task(accepted: &TaskSpec) -> String {
    accepted.forked_from.as_ref().map(|forked| forked.task.to_string()).unwrap_or_default()
}

/// The first step that a fork runs again; empty if all are, or if it is no fork.
pub(crate) fn forked_step(accepted: &TaskSpec) -> String {
    accepted.forked_from.as_ref().and_then(|forked| forked.step.as_ref()).map(step_id).unwrap_or_default()
}

pub(crate) fn decision(decision: &Decision) -> v1::Decision {
    let (role, graph) = candidate_name(decision, &decision.role);
    let score = |score: &CandidateScore| {
        let (role, graph) = candidate_name(decision, &score.role);
        // Decisions in older journals have one signal and no map of signals.
        let signals = match score.signals.is_empty() {
            true => [(decision.signal.clone(), score.score)].into(),
            false => signal_values(&score.signals),
        };
        v1::Score { role, score: score.score, signals, graph }
    };
    let no_match = |none: &NoMatch| v1::NoMatch { score: none.score, signals: signal_values(&none.signals) };
    v1::Decision {
        role,
        confidence: decision.confidence,
        otherwise: decision.otherwise,
        scores: decision.scores.iter().map(score).collect(),
        signal: decision.signal.clone(),
        duration: Some(duration(decision.elapsed)),
        prefill_tokens: decision.tokens,
        roles: decision.roles.iter().map(ToString::to_string).collect(),
        graph,
        margin: decision.margin,
        no_match: decision.no_match.as_ref().map(no_match),
    }
}

/// The name of a candidate as a role or as a graph; the other one is empty.
fn candidate_name(decision: &Decision, name: &RoleName) -> (String, String) {
    let name = name.to_string();
    if decision.graphs { (String::new(), name) } else { (name, String::new()) }
}

fn signal_values(values: &BTreeMap<Signal, f64>) -> HashMap<String, f64> {
    values.iter().map(|(signal, value)| (signal.to_string(), *value)).collect()
}

pub(crate) fn usage(usage: Usage) -> v1::Usage {
    v1::Usage {
        prompt_tokens: usage.prompt.into(),
        prefill_tokens: usage.computed.into(),
        cached_tokens: usage.prompt.saturating_sub(usage.computed).into(),
        output_tokens: usage.output.into(),
        drafted_tokens: usage.drafted.into(),
        accepted_tokens: usage.accepted.into(),
        forced_tokens: usage.forced.into(),
        reasoning_tokens: usage.reasoning.into(),
    }
}

pub(crate) fn timings(timings: Timings, usage: Usage) -> v1::Timings {
    v1::Timings {
        queue: Some(duration(timings.queue)),
        prefill: Some(duration(timings.prefill)),
        decode: Some(duration(timings.decode)),
        time_to_first_token: (usage.output > 0).then(|| duration(timings.queue + timings.prefill)),
        max_inter_token_latency: (usage.output > 1).then(|| duration(timings.max_itl)),
    }
}

pub(crate) fn source(source: ResultSource) -> v1::ResultSource {
    match source {
        ResultSource::Run => v1::ResultSource::Run,
        ResultSource::Person => v1::ResultSource::Person,
        ResultSource::Otherwise => v1::ResultSource::Otherwise,
        ResultSource::Cache => v1::ResultSource::Cache,
        ResultSource::Fallback => v1::ResultSource::Fallback,
    }
}

/// What a step waits for, if the event is `Waiting`.
pub(crate) fn waiting(kind: &EventKind) -> Option<v1::Waiting> {
    let EventKind::Waiting { step, question, schema, deadline } = kind else { return None };
    Some(v1::Waiting {
        step_id: step_id(step),
        node: step.visit.node_path(),
        reason: v1::WaitingReason::Person.into(),
        message: question.clone(),
        schema: schema.as_ref().and_then(portable_struct),
        deadline: deadline.map(timestamp),
    })
}

/// The nodes that the task continues with.
pub(crate) fn next(took: &[TakenEdge]) -> Vec<String> {
    took.iter().map(|taken| taken.to.as_ref().map_or("done", NodeName::as_str).to_owned()).collect()
}

pub(crate) fn step_id(step: &StepId) -> String {
    step.to_string()
}

pub(crate) fn progress(step: &StepId, role: &str, stage: StepProgress) -> v1::Progress {
    use v1::progress::{Decode, Loading, Prefill, Queued, Stage as S};
    let stage = match stage {
        StepProgress::Queued { position } => S::Queued(Queued { position }),
        StepProgress::Loading { model, fraction: share } => {
            S::Loading(Loading { model: model.to_string(), fraction: f64::from(share) })
        }
        StepProgress::Prefill { done_tokens: done, total_tokens: total } => {
            S::Prefill(Prefill { done_tokens: done, total_tokens: total })
        }
        StepProgress::Decode { tokens, elapsed: took } => {
            let seconds = took.as_secs_f64();
            // The clock starts at the first token.
            let tokens_per_second = if seconds > 0.0 { f64::from(tokens.saturating_sub(1)) / seconds } else { 0.0 };
            S::Decode(Decode { output_tokens: tokens, tokens_per_second })
        }
    };
    let (step_id, node, role) = (step_id(step), step.visit.node_path(), role.to_owned());
    v1::Progress { step_id, node, role, stage: Some(stage) }
}
