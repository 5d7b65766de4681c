//! Steps as text: role, timings and decisions.

use artel_proto::v1;
use artel_terminal::{BAD, BOLD, DIM, StyledText, WARN, one_line, span};

use crate::json::EnumName;
use crate::render::time::{from_proto, rate};

/// The most candidates of a decision that a line shows.
const MAX_CANDIDATES: usize = 6;

/// The node and its role: `answer (lora)`; only the node if both have the same name or there is no role.
pub(crate) fn node_label(node: &str, role: &str) -> String {
    if role.is_empty() || node == role { node.to_owned() } else { format!("{node} ({role})") }
}

/// The source or the costs of a result, after a colon; empty if unknown.
pub(crate) fn result_summary(
    source: v1::ResultSource,
    usage: Option<&v1::Usage>,
    timings: Option<&v1::Timings>,
) -> String {
    let costs = match source {
        v1::ResultSource::Person => "answered by a person".to_owned(),
        v1::ResultSource::Otherwise => "no answer in time; the node's `otherwise` was used".to_owned(),
        v1::ResultSource::Cache => "reused from an earlier run".to_owned(),
        v1::ResultSource::Fallback => "its graph failed; that graph's `fallback` was used".to_owned(),
        v1::ResultSource::Run | v1::ResultSource::Unspecified => costs(usage, timings),
    };
    if costs.is_empty() { costs } else { format!(": {costs}") }
}

/// Times and tokens by phase, such as `queue 3.0 ms, prefill 120 ms (45 tokens, 32 cached), decode 1.20 s (64 tokens,
/// 53.3 t/s)`. Empty if nothing was measured.
fn costs(usage: Option<&v1::Usage>, timings: Option<&v1::Timings>) -> String {
    let usage = usage.copied().unwrap_or_default();
    let timings = timings.copied().unwrap_or_default();
    let mut parts = Vec::new();
    let queue = from_proto(timings.queue.as_ref());
    if !queue.is_zero() {
        parts.push(format!("queue {}", span(queue)));
    }
    if usage.prompt_tokens > 0 {
        let cached = if usage.cached_tokens > 0 { format!(", {} cached", usage.cached_tokens) } else { String::new() };
        let time = span(from_proto(timings.prefill.as_ref()));
        parts.push(format!("prefill {time} ({}{cached})", tokens(usage.prompt_tokens)));
    }
    if usage.output_tokens > 0 {
        let time = from_proto(timings.decode.as_ref());
        let rate = rate(usage.output_tokens, time).map_or_else(String::new, |rate| format!(", {rate:.1} t/s"));
        let mut details = String::new();
        if usage.reasoning_tokens > 0 {
            details += &format!(", {} of reasoning", usage.reasoning_tokens);
        }
        if usage.forced_tokens > 0 {
            details += &format!(", {} forced", usage.forced_tokens);
        }
        if usage.drafted_tokens > 0 {
            details += &format!(", {} of {} drafted accepted", usage.accepted_tokens, usage.drafted_tokens);
        }
        parts.push(format!("decode {} ({}{details}{rate})", span(time), tokens(usage.output_tokens)));
    }
    parts.join(", ")
}

/// A count of tokens.
pub(crate) fn tokens(count: u64) -> String {
    if count == 1 { "1 token".to_owned() } else { format!("{count} tokens") }
}

/// A count of steps.
pub(crate) fn steps(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

/// The nodes that follow.
pub(crate) fn transitions(next: &[String]) -> String {
    if next.is_empty() { String::new() } else { format!(" → {}", next.join(", ")) }
}

/// Why an output is not a whole one; empty if it is.
pub(crate) fn cut(output: Option<&v1::Output>) -> &'static str {
    match output.map(v1::Output::finish) {
        Some(v1::FinishReason::Length) => ", cut at max_tokens",
        Some(v1::FinishReason::Cancelled) => ", cancelled",
        Some(v1::FinishReason::Calls) => ", waits for the results of its calls",
        _ => "",
    }
}

/// The calls of tools in an output, a line each: `calls get_weather {"city": "Paris"} (id 4f2kd81sX)`.
pub(crate) fn calls(output: Option<&v1::Output>, indent: &str, out: &mut StyledText) {
    for call in output.map_or(&[][..], |output| output.calls.as_slice()) {
        out.push(indent)
            .push("calls ")
            .push_styled(BOLD, one_line(&call.name))
            .push(" ")
            .push(one_line(&call.arguments));
        out.push_styled(DIM, format_args!(" (id {})", one_line(&call.id))).newline();
    }
}

/// A decision of a router, for the end of a line: `→ lora, confidence 0.82 by embedding in 4.2 ms: lora 0.82, gguf 0.41`.
pub(crate) fn decision(decision: &v1::Decision, out: &mut StyledText) {
    out.push("→ ").push_styled(BOLD, selected(decision));
    if decision.otherwise {
        let kind = if decision.graph.is_empty() { "role" } else { "graph" };
        out.push_styled(WARN, format_args!(", no {kind} reached the threshold"));
    }
    let mut details = format!(", confidence {:.2}", decision.confidence);
    if !decision.signal.is_empty() {
        details += &format!(" by {}", decision.signal);
    }
    if decision.duration.is_some() {
        details += &format!(" in {}", span(from_proto(decision.duration.as_ref())));
    }
    out.push(one_line(&details));
    for (index, score) in decision.scores.iter().take(MAX_CANDIDATES).enumerate() {
        out.push_styled(
            DIM,
            format_args!("{}{} {:.2}", if index == 0 { ": " } else { ", " }, candidate(score), score.score),
        );
    }
    if let Some(more @ 1..) = decision.scores.len().checked_sub(MAX_CANDIDATES) {
        out.push_styled(DIM, format_args!(", {more} more"));
    }
}

/// The selected roles or graph.
pub(crate) fn selected(decision: &v1::Decision) -> String {
    match decision.roles.as_slice() {
        [] if decision.role.is_empty() => format!("graph {}", decision.graph),
        [] => decision.role.clone(),
        roles => roles.join(", "),
    }
}

/// The name of a candidate.
pub(crate) fn candidate(score: &v1::Score) -> &str {
    if score.role.is_empty() { &score.graph } else { &score.role }
}

/// A failure, for the end of a line: `failed (timeout): it took longer than 60 s`.
pub(crate) fn failure(failure: Option<&v1::Failure>, out: &mut StyledText) {
    let unspecified = v1::Failure::default();
    let failure = failure.unwrap_or(&unspecified);
    out.push_styled(BAD, "failed").push(format_args!(" ({})", failure.code().enum_name()));
    if !failure.message.is_empty() {
        out.push(": ").push(one_line(&failure.message));
    }
}

/// The reason why a step waits, for the end of a line, and below it the command that answers.
pub(crate) fn waiting(task: &str, waiting: &v1::Waiting, indent: &str, out: &mut StyledText) {
    let is_question = waiting.reason() == v1::WaitingReason::Person;
    out.push_styled(WARN, format_args!("waits for a {}", waiting.reason().enum_name()));
    if !waiting.message.is_empty() {
        out.push(": ").push(one_line(&waiting.message));
    }
    if let Some(deadline) = &waiting.deadline {
        out.push(format_args!(" (until {deadline})"));
    }
    out.newline();
    if is_question {
        let answer = if waiting.schema.is_some() { "--value JSON" } else { "TEXT" };
        let step = one_line(&waiting.step_id);
        out.push_styled(DIM, format_args!("{indent}answer with: artel task answer {task} --step {step} {answer}"))
            .newline();
    }
}

/// The numbers of an attempt: `visit 2, attempt 3, item 0`. Empty for the first attempt of the first visit without items.
pub(crate) fn attempt_label(visit: u32, attempt: u32, item: Option<u32>) -> String {
    let mut parts: Vec<String> = [("visit", visit), ("attempt", attempt)]
        .into_iter()
        .filter(|(_, number)| *number > 1)
        .map(|(name, number)| format!("{name} {number}"))
        .collect();
    parts.extend(item.map(|item| format!("item {item}")));
    parts.join(", ")
}
