//! Steps in words: who worked, where the time went, what was decided.

use artel_proto::v1;

use super::page::{BAD, BOLD, DIM, Page, WARN, one_line};
use super::time::{rate, sent, span};
use crate::client::json::Word;

/// The most candidates of a decision that one line shows.
const SHOWN: usize = 6;

/// Who works where: `answer (lora)`, or one name where both are the same or there is no role.
pub(crate) fn who(node: &str, role: &str) -> String {
    if role.is_empty() || node == role { node.to_owned() } else { format!("{node} ({role})") }
}

/// What a result took, behind a colon; empty if that is not known.
pub(crate) fn took(source: v1::ResultSource, usage: Option<&v1::Usage>, timings: Option<&v1::Timings>) -> String {
    let costs = match source {
        v1::ResultSource::Person => "answered by a person".to_owned(),
        v1::ResultSource::Otherwise => "nobody answered in time, so the node's `otherwise` holds".to_owned(),
        v1::ResultSource::Cache => "taken from an earlier run".to_owned(),
        v1::ResultSource::Fallback => "its graph failed, so that graph's `fallback` holds".to_owned(),
        v1::ResultSource::Run | v1::ResultSource::Unspecified => costs(usage, timings),
    };
    if costs.is_empty() { costs } else { format!(": {costs}") }
}

/// Where the time and the tokens went, such as `queue 3.0 ms, prefill 120 ms (45 tokens, 32 shared), decode 1.20 s (64
/// tokens, 53.3 t/s)`. Empty if nothing was measured.
fn costs(usage: Option<&v1::Usage>, timings: Option<&v1::Timings>) -> String {
    let usage = usage.copied().unwrap_or_default();
    let timings = timings.copied().unwrap_or_default();
    let mut parts = Vec::new();
    let queue = sent(timings.queue.as_ref());
    if !queue.is_zero() {
        parts.push(format!("queue {}", span(queue)));
    }
    if usage.prompt_tokens > 0 {
        let shared = if usage.shared_tokens > 0 { format!(", {} shared", usage.shared_tokens) } else { String::new() };
        let time = span(sent(timings.prefill.as_ref()));
        parts.push(format!("prefill {time} ({}{shared})", tokens(usage.prompt_tokens)));
    }
    if usage.output_tokens > 0 {
        let time = sent(timings.decode.as_ref());
        let rate = rate(usage.output_tokens, time).map_or_else(String::new, |rate| format!(", {rate:.1} t/s"));
        let mut how = String::new();
        if usage.forced_tokens > 0 {
            how += &format!(", {} forced", usage.forced_tokens);
        }
        if usage.drafted_tokens > 0 {
            how += &format!(", {} of {} drafted accepted", usage.accepted_tokens, usage.drafted_tokens);
        }
        parts.push(format!("decode {} ({}{how}{rate})", span(time), tokens(usage.output_tokens)));
    }
    parts.join(", ")
}

/// A number of tokens.
pub(crate) fn tokens(count: u64) -> String {
    if count == 1 { "1 token".to_owned() } else { format!("{count} tokens") }
}

/// A number of steps.
pub(crate) fn steps(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

/// Where the task goes from here.
pub(crate) fn ways(next: &[String]) -> String {
    if next.is_empty() { String::new() } else { format!(" → {}", next.join(", ")) }
}

/// A router's decision, on the rest of a line: `→ lora, confidence 0.82 by embedding in 4.2 ms: lora 0.82, gguf 0.41`.
pub(crate) fn decision(decision: &v1::Decision, page: &mut Page) {
    page.put("→ ").paint(BOLD, chosen(decision));
    if decision.otherwise {
        let who = if decision.graph.is_empty() { "role" } else { "graph" };
        page.paint(WARN, format_args!(", as no {who} was sure enough"));
    }
    let mut how = format!(", confidence {:.2}", decision.confidence);
    if !decision.signal.is_empty() {
        how += &format!(" by {}", decision.signal);
    }
    if decision.duration.is_some() {
        how += &format!(" in {}", span(sent(decision.duration.as_ref())));
    }
    page.put(one_line(&how));
    for (at, score) in decision.scores.iter().take(SHOWN).enumerate() {
        page.paint(DIM, format_args!("{}{} {:.2}", if at == 0 { ": " } else { ", " }, candidate(score), score.score));
    }
    if let Some(more @ 1..) = decision.scores.len().checked_sub(SHOWN) {
        page.paint(DIM, format_args!(", {more} more"));
    }
}

/// What won.
pub(crate) fn chosen(decision: &v1::Decision) -> String {
    match decision.roles.as_slice() {
        [] if decision.role.is_empty() => format!("graph {}", decision.graph),
        [] => decision.role.clone(),
        roles => roles.join(", "),
    }
}

/// What had a chance.
pub(crate) fn candidate(score: &v1::Score) -> &str {
    if score.role.is_empty() { &score.graph } else { &score.role }
}

/// A failure, on the rest of a line: `failed (timeout): it took longer than 60 s`.
pub(crate) fn failure(failure: Option<&v1::Failure>, page: &mut Page) {
    let unknown = v1::Failure::default();
    let failure = failure.unwrap_or(&unknown);
    page.paint(BAD, "failed").put(format_args!(" ({})", failure.code().word()));
    if !failure.message.is_empty() {
        page.put(": ").put(one_line(&failure.message));
    }
}

/// What a step waits for, on the rest of a line, and below it how to answer.
pub(crate) fn waiting(task: &str, waiting: &v1::Waiting, indent: &str, page: &mut Page) {
    let person = waiting.reason() == v1::WaitingReason::Person;
    page.paint(WARN, format_args!("waits for a {}", waiting.reason().word()));
    if !waiting.message.is_empty() {
        page.put(": ").put(one_line(&waiting.message));
    }
    if let Some(deadline) = &waiting.deadline {
        page.put(format_args!(" (until {deadline})"));
    }
    page.end();
    if person {
        let answer = if waiting.schema.is_some() { "--value JSON" } else { "TEXT" };
        let step = one_line(&waiting.step_id);
        page.paint(DIM, format_args!("{indent}answer with: artel task answer {task} --step {step} {answer}")).end();
    }
}

/// The numbers of an attempt that is not the first: `visit 2, attempt 3, item 0`. Empty for a first one.
pub(crate) fn numbers(visit: u32, attempt: u32, item: Option<u32>) -> String {
    let mut parts: Vec<String> = [("visit", visit), ("attempt", attempt)]
        .into_iter()
        .filter(|(_, number)| *number > 1)
        .map(|(what, number)| format!("{what} {number}"))
        .collect();
    parts.extend(item.map(|item| format!("item {item}")));
    parts.join(", ")
}
