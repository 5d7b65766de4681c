//! What happens in a graph, as lines for people.

use artel_proto::v1::event::Kind as K;
use artel_proto::v1::{Decision, WaitingReason};

/// As much of a text is shown in a line: what people read at a glance.
const MAX_LINE_CHARS: usize = 300;

/// The line of an event, if people want to know of it.
pub(super) fn step_line(kind: &K) -> Option<String> {
    let line = match kind {
        K::Accepted(accepted) => {
            let decision = accepted.decision.as_ref()?;
            format!("graph {} chosen ({})", accepted.graph, confidence(decision))
        }
        K::Routed(routed) => {
            let decision = routed.decision.as_ref()?;
            let chosen = if decision.role.is_empty() { &decision.graph } else { &decision.role };
            format!("{}: {chosen} chosen ({})", routed.node, confidence(decision))
        }
        K::StepStarted(step) => {
            let role = if step.role.is_empty() { String::new() } else { format!(" ({})", step.role) };
            let item = step.item.map(|item| format!(", item {item}")).unwrap_or_default();
            let attempt = if step.attempt > 1 { format!(", attempt {}", step.attempt) } else { String::new() };
            format!("{}{role}: started{item}{attempt}", step.node)
        }
        K::StepFinished(step) if step.cached => format!("{}: finished, from the cache", step.node),
        K::StepFinished(step) => format!("{}: finished", step.node),
        K::StepFailed(step) => {
            let message = step.failure.as_ref().map(|failure| failure.message.as_str()).unwrap_or_default();
            let retry = if step.will_retry { ", and is tried again" } else { "" };
            format!("{}: failed{retry}: {message}", step.node)
        }
        K::Waiting(waiting) => match waiting.reason() {
            WaitingReason::Person => format!("{}: waits for a person: {}", waiting.node, waiting.message),
            _ => format!("{}: waits: {}", waiting.node, waiting.message),
        },
        K::Resumed(_) => "resumed".to_owned(),
        _ => return None,
    };
    Some(one_line(&line))
}

fn confidence(decision: &Decision) -> String {
    if decision.otherwise { "otherwise".to_owned() } else { format!("{:.0} %", decision.confidence * 100.0) }
}

/// A comment of a stream ends with its line.
fn one_line(text: &str) -> String {
    text.chars().take(MAX_LINE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
