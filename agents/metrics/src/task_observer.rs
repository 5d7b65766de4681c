//! What the events of one task say: the observer at the point where they are committed.

use std::collections::HashMap;
use std::sync::Arc;

use artel_task::event::{FailureCode, ResultSource, Timestamp};
use artel_task::{Event, EventKind, StepId};

use crate::callers::{CallerTokens, TokenKind};
use crate::metrics::Metrics;
use crate::role::{RoleMetrics, StepEnd};
use crate::tasks::seconds_between;

/// Counts the events of one task as they are committed.
///
/// Whatever runs the task gives it each event once, after the commit. What it read from the journal at a start was counted by
/// the process that committed it, and is not given. An attempt that a restart interrupted has no end, and starts again.
#[derive(Debug)]
pub struct TaskObserver {
    metrics: Arc<Metrics>,
    tokens: CallerTokens,
    /// The attempts of roles that run.
    started: HashMap<StepId, StartedAttempt>,
}

#[derive(Debug)]
struct StartedAttempt {
    role: Arc<RoleMetrics>,
    at: Timestamp,
}

impl TaskObserver {
    /// An observer of a task of this caller that starts or is resumed.
    pub fn new(metrics: Arc<Metrics>, owner: &str) -> Self {
        Self { tokens: metrics.callers.tokens(owner), metrics, started: HashMap::new() }
    }

    /// An event was committed.
    pub fn committed(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Accepted(spec) => self.metrics.tasks.accepted(spec),
            EventKind::StepStarted { step, role: Some(role), .. } => {
                let started = StartedAttempt { role: self.metrics.tasks.role(role.as_str()), at: event.at };
                self.started.insert(step.clone(), started);
            }
            EventKind::Routed { decision, .. } => self.metrics.tasks.router.decided(decision),
            EventKind::StepFinished { step, usage, timings, source, .. } => {
                if *source == ResultSource::Run {
                    self.tokens.of(TokenKind::Prompt).inc_by(u64::from(usage.prompt));
                    self.tokens.of(TokenKind::Generated).inc_by(u64::from(usage.output));
                }
                let Some(StartedAttempt { role, at }) = self.started.remove(step) else { return };
                role.ended(if *source == ResultSource::Cache { StepEnd::Cached } else { StepEnd::Finished });
                role.took(seconds_between(at, event.at), timings);
                role.used(usage, timings);
            }
            EventKind::StepFailed { step, failure, retry_after, .. } => {
                let Some(StartedAttempt { role, at }) = self.started.remove(step) else { return };
                role.ended(match (failure.code, retry_after) {
                    (FailureCode::Cancelled, _) => StepEnd::Cancelled,
                    (_, Some(_)) => StepEnd::Retried,
                    (_, None) => StepEnd::Failed,
                });
                role.failed(failure.code);
                role.took_without_result(seconds_between(at, event.at));
            }
            _ => self.metrics.tasks.committed_alone(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use artel_task::event::{Failure, Output, Timings, Usage};
    use artel_task::{RoleName, Seq, TaskId};

    use super::*;

    /// The events of a task that was accepted at 1 s, one each 500 ms.
    struct TaskEvents {
        task: TaskId,
        seq: u64,
    }

    impl TaskEvents {
        fn next(&mut self, kind: EventKind) -> Event {
            self.seq += 1;
            Event { task: self.task, seq: Seq(self.seq), at: Timestamp(1000 + 500 * self.seq), kind }
        }
    }

    fn events() -> TaskEvents {
        TaskEvents { task: TaskId::new(1000, [0; 10]), seq: 0 }
    }

    fn step(id: &str) -> StepId {
        StepId::parse(id).unwrap()
    }

    fn started(id: &str, role: &str) -> EventKind {
        EventKind::StepStarted { step: step(id), trigger: None, role: RoleName::parse(role).ok(), nested: None }
    }

    fn finished(id: &str) -> EventKind {
        let millis = Duration::from_millis;
        EventKind::StepFinished {
            step: step(id),
            output: Output::text("So."),
            usage: Usage { prompt: 30, computed: 10, output: 7, ..Usage::default() },
            timings: Timings { queue: millis(50), prefill: millis(100), decode: millis(300), max_itl: millis(9) },
            taken: Vec::new(),
            source: ResultSource::Run,
            write: None,
        }
    }

    fn failed(id: &str, retry_after: Option<Duration>) -> EventKind {
        let failure = Failure::new(FailureCode::Timeout, "too long");
        EventKind::StepFailed { step: step(id), failure, retry_after, taken: Vec::new(), partial: None }
    }

    fn observe(metrics: &Arc<Metrics>, kinds: Vec<EventKind>) {
        let (mut observer, mut events) = (TaskObserver::new(metrics.clone(), "ci"), events());
        for kind in kinds {
            observer.committed(&events.next(kind));
        }
    }

    /// The value of a sample.
    fn value(metrics: &Metrics, sample: &str) -> String {
        let text = metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in\n{text}")).to_owned()
    }

    #[test]
    fn a_step_counts_with_its_tokens_its_times_and_what_it_reused() {
        let metrics = Metrics::new();
        let retry = Some(Duration::from_secs(1));
        let kinds = vec![started("a", "cook"), failed("a", retry), started("a", "cook"), finished("a")];
        let last = EventKind::Completed { output: Output::text("So."), instead_of: None };
        observe(&metrics, kinds.into_iter().chain([last]).collect());
        for (sample, expected) in [
            ("artel_steps_total{role=\"cook\",outcome=\"finished\"}", "1"),
            ("artel_steps_total{role=\"cook\",outcome=\"retried\"}", "1"),
            ("artel_steps_total{role=\"cook\",outcome=\"failed\"}", "0"),
            ("artel_step_failures_total{role=\"cook\",code=\"timeout\"}", "1"),
            ("artel_step_seconds_sum{role=\"cook\"}", "1.0"),
            ("artel_step_seconds_count{role=\"cook\"}", "2"),
            ("artel_step_stage_seconds_total{role=\"cook\",stage=\"decode\"}", "0.3"),
            // 500 ms of the attempt that finished, without its 450 ms at the engine.
            ("artel_step_stage_seconds_total{role=\"cook\",stage=\"outside\"}", "0.04999999999999999"),
            ("artel_step_stage_seconds_total{role=\"cook\",stage=\"failed\"}", "0.5"),
            ("artel_prompt_tokens_total{role=\"cook\"}", "30"),
            ("artel_cached_prompt_tokens_total{role=\"cook\"}", "20"),
            ("artel_generated_tokens_total{role=\"cook\"}", "7"),
            ("artel_caller_tokens_total{caller=\"ci\",kind=\"prompt\"}", "30"),
            ("artel_caller_tokens_total{caller=\"ci\",kind=\"generated\"}", "7"),
            ("artel_prefix_cache_queries_total{role=\"cook\"}", "1"),
            ("artel_prefix_cache_hits_total{role=\"cook\"}", "1"),
            ("artel_time_to_first_token_seconds_count{role=\"cook\"}", "1"),
            ("artel_time_to_first_token_seconds_bucket{le=\"0.25\",role=\"cook\"}", "1"),
            ("artel_time_to_first_token_seconds_bucket{le=\"0.1\",role=\"cook\"}", "0"),
            ("artel_tasks_ended_total{outcome=\"completed\"}", "1"),
            ("artel_task_seconds_sum{outcome=\"completed\"}", "2.5"),
        ] {
            assert_eq!(value(&metrics, sample), expected, "{sample}");
        }
    }

    #[test]
    fn the_end_of_a_step_whose_start_was_not_given_counts_nothing() {
        let metrics = Metrics::new();
        observe(&metrics, vec![EventKind::Resumed, finished("a")]);
        assert_eq!(value(&metrics, "artel_tasks_resumed_total"), "1");
        assert!(!metrics.encode().contains("artel_steps_total"));
    }

    #[test]
    fn beyond_the_bound_roles_are_added_up() {
        let metrics = Metrics::new();
        for number in 0..crate::MAX_ROLE_VALUES + 50 {
            let role = format!("role-{number}");
            observe(&metrics, vec![started("a", &role), finished("a")]);
        }
        let text = metrics.encode();
        let roles = text.lines().filter(|line| line.starts_with("artel_prompt_tokens_total{")).count();
        assert_eq!(roles, crate::MAX_ROLE_VALUES + 1);
        assert_eq!(value(&metrics, "artel_prompt_tokens_total{role=\"other\"}"), (50 * 30).to_string());
        assert_eq!(value(&metrics, "artel_prompt_tokens_total{role=\"role-0\"}"), "30");
    }
}
