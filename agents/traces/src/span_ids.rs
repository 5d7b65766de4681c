//! The ids of spans. Those of tasks and steps follow from their own ids, so that they are the same in every process in which a task
//! runs: a step that ends after a restart is the parent of what ended before.

use artel_task::{SpanId, StepId, TaskId, TraceId};
use sha2::{Digest as _, Sha256};

/// A new id of a trace.
pub(crate) fn random_trace() -> TraceId {
    loop {
        if let Some(id) = TraceId::new(rand::random()) {
            return id;
        }
    }
}

/// A new id of a span.
pub(crate) fn random_span() -> SpanId {
    loop {
        if let Some(id) = SpanId::new(rand::random()) {
            return id;
        }
    }
}

/// The span of a task: the last 16 digits of the task's id, of which 62 bits are random.
pub(crate) fn task_span(task: TaskId) -> SpanId {
    let [.., a, b, c, d, e, f, g, h] = *task.as_bytes();
    SpanId::new([a, b, c, d, e, f, g, h]).unwrap_or_else(random_span)
}

/// The span of a step: the same for each start of the attempt, of which one ends at most.
pub(crate) fn step_span(task: TaskId, step: &StepId) -> SpanId {
    let mut hash = Sha256::new();
    hash.update(task.as_bytes());
    hash.update(step.to_string());
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.finalize());
    SpanId::new([a, b, c, d, e, f, g, h]).unwrap_or_else(random_span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_a_task_have_ids_that_follow_from_it() {
        let task = TaskId::parse("01a22746-defb-7da3-9254-044c42583223").unwrap();
        assert_eq!(task_span(task).to_string(), "9254044c42583223");
        let step = |text: &str| step_span(task, &StepId::parse(text).unwrap());
        // Written down: a task that an earlier version began keeps the ids of its spans.
        assert_eq!(step("record#2.2").to_string(), "bb740f7cac2faed7");
        let ids = [step("a"), step("a#2"), step("a#1.2"), step("a[0]"), task_span(task)];
        assert!(ids.iter().enumerate().all(|(at, id)| !ids[..at].contains(id)), "{ids:?}");
    }
}
