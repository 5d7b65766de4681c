//! What a runtime counts of the tasks that it runs.

use std::sync::Arc;
use std::time::Duration;

use artel_actors::{Options, Runtime};
use artel_engine::LoadError;
use artel_metrics::{Metrics, ScrapeSample};
use artel_task::{CallerName, EventKind, Seq};
use tempfile::tempdir;

use super::fixtures::*;

/// The value of a sample; none if there is no such series.
fn value(metrics: &Metrics, sample: &str) -> Option<f64> {
    let text = metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// A runtime that counts here.
async fn counted(dir: &std::path::Path, loader: &ScriptedLoader, metrics: &Arc<Metrics>) -> Runtime {
    runtime_with(dir, loader, Options { metrics: metrics.clone(), ..Options::default() }, catalog()).await
}

#[tokio::test]
async fn a_task_counts_with_its_steps_its_tokens_and_its_engine() {
    let (dir, metrics) = (tempdir().unwrap(), Metrics::new());
    let runtime = counted(dir.path(), &ScriptedLoader::open(), &metrics).await;
    let task = runtime.submit(submission(graph("loop"), "Where?")).await.unwrap();
    let events = all_events(&runtime, task).await;
    let (mut prompt, mut output) = (0, 0);
    for event in &events {
        if let EventKind::StepFinished { usage, .. } = &event.kind {
            prompt += usage.prompt;
            output += usage.output;
        }
    }
    let of_roles = |name: &str| {
        let of = |role| value(&metrics, &format!("{name}{{role=\"{role}\"}}")).unwrap();
        of("writer") + of("critic")
    };
    assert_eq!(of_roles("artel_prompt_tokens_total"), f64::from(prompt));
    assert_eq!(of_roles("artel_generated_tokens_total"), f64::from(output));
    assert_eq!(of_roles("artel_time_to_first_token_seconds_count"), 4.0);
    assert!(of_roles("artel_inter_token_latency_seconds_count") > 4.0, "each answer has several pieces");
    for (sample, expected) in [
        ("artel_tasks_accepted_total{priority=\"interactive\"}", 1.0),
        ("artel_tasks_ended_total{outcome=\"completed\"}", 1.0),
        ("artel_steps_total{role=\"writer\",outcome=\"finished\"}", 2.0),
        ("artel_steps_total{role=\"critic\",outcome=\"finished\"}", 2.0),
        ("artel_steps_waiting{role=\"writer\"}", 0.0),
        ("artel_engine_loads_total{model=\"talk\",outcome=\"loaded\"}", 1.0),
    ] {
        assert_eq!(value(&metrics, sample), Some(expected), "{sample}");
    }
    runtime.unload("talk", true).await.unwrap();
    assert_eq!(value(&metrics, "artel_engine_ends_total{model=\"talk\",reason=\"requested\"}"), Some(1.0));
}

#[tokio::test]
async fn what_is_read_again_at_a_start_does_not_count_twice() {
    let dir = tempdir().unwrap();
    let [first, second, third] = [Metrics::new(), Metrics::new(), Metrics::new()];
    let runtime = counted(dir.path(), &ScriptedLoader::open(), &first).await;
    let done = runtime.submit(submission(graph("loop"), "Where?")).await.unwrap();
    all_events(&runtime, done).await;
    runtime.drain(Duration::ZERO).await;
    let loader = ScriptedLoader::gated();
    let runtime = counted(dir.path(), &loader, &second).await;
    let task = runtime.submit(submission(role("writer"), "Where?")).await.unwrap();
    wait_for_events(&runtime, task, 1, is_started).await;
    let mut subscription = runtime.subscribe(task, Seq(2), false).await.unwrap();
    let stopped = tokio::spawn(async move { runtime.drain(Duration::ZERO).await });
    while subscription.next().await.unwrap().is_some() {}
    // The step is cut off; only now can its engine end.
    loader.gate.open();
    stopped.await.unwrap();
    let runtime = counted(dir.path(), &ScriptedLoader::open(), &third).await;
    all_events(&runtime, task).await;
    let (accepted, resumed) = ("artel_tasks_accepted_total{priority=\"interactive\"}", "artel_tasks_resumed_total");
    let completed = "artel_tasks_ended_total{outcome=\"completed\"}";
    let finished = "artel_steps_total{role=\"writer\",outcome=\"finished\"}";
    let values = |metrics: &Metrics| [accepted, resumed, completed, finished].map(|sample| value(metrics, sample));
    assert_eq!(values(&first), [Some(1.0), Some(0.0), Some(1.0), Some(2.0)]);
    assert_eq!(values(&second), [Some(1.0), Some(0.0), Some(0.0), Some(0.0)]);
    assert_eq!(values(&third), [Some(0.0), Some(1.0), Some(1.0), Some(1.0)]);
}

#[tokio::test]
async fn a_fork_counts_as_a_task_and_not_what_it_copies() {
    let (dir, metrics) = (tempdir().unwrap(), Metrics::new());
    let runtime = counted(dir.path(), &ScriptedLoader::open(), &metrics).await;
    let task = runtime.submit(submission(graph("routed"), "Which sail for a storm?")).await.unwrap();
    all_events(&runtime, task).await;
    let fork = artel_actors::Fork {
        task,
        from_step: Some("work".to_owned()),
        use_current_catalog: false,
        request_id: None,
        labels: Default::default(),
        owner: CallerName::owner(),
        trace: None,
        quota: artel_actors::CallerQuota::default(),
    };
    let forked = runtime.fork(fork).await.unwrap();
    all_events(&runtime, forked).await;
    for (sample, expected) in [
        ("artel_tasks_accepted_total{priority=\"interactive\"}", 2.0),
        ("artel_router_decisions_total{outcome=\"chosen\"}", 1.0),
        ("artel_steps_total{role=\"sailor\",outcome=\"finished\"}", 2.0),
    ] {
        assert_eq!(value(&metrics, sample), Some(expected), "{sample}");
    }
}

#[tokio::test]
async fn loads_that_fail_and_tasks_that_are_cancelled_count_as_such() {
    let (dir, metrics) = (tempdir().unwrap(), Metrics::new());
    let loader = ScriptedLoader { load_error: Some(LoadError::permanent("broken")), ..ScriptedLoader::open() };
    let runtime = counted(dir.path(), &loader, &metrics).await;
    let task = runtime.submit(submission(role("sailor"), "Where?")).await.unwrap();
    wait_for_events(&runtime, task, 1, |kind| matches!(kind, EventKind::StepFailed { .. })).await;
    runtime.cancel(task, "enough").await.unwrap();
    let failures = value(&metrics, "artel_step_failures_total{role=\"sailor\",code=\"model_unavailable\"}");
    assert!(failures >= Some(1.0), "{failures:?}");
    assert!(value(&metrics, "artel_engine_loads_total{model=\"talk\",outcome=\"failed\"}") >= Some(1.0));
    let end = all_events(&runtime, task).await.last().unwrap().kind.clone();
    let outcome = if matches!(end, EventKind::Cancelled { .. }) { "cancelled" } else { "failed" };
    assert_eq!(value(&metrics, &format!("artel_tasks_ended_total{{outcome=\"{outcome}\"}}")), Some(1.0));
}

#[tokio::test]
async fn a_scrape_has_the_engines_and_the_limit_of_tasks() {
    let (dir, metrics) = (tempdir().unwrap(), Metrics::new());
    let runtime = counted(dir.path(), &ScriptedLoader::open(), &metrics).await;
    runtime.load("talk").await.unwrap();
    let reports = runtime.engines_within(Duration::from_secs(10)).await.unwrap();
    assert!(reports.iter().any(|report| report.id == "talk"), "{reports:?}");
    let sample = ScrapeSample { tasks: runtime.task_counts(), ..ScrapeSample::default() };
    metrics.scrape(&sample);
    assert_eq!(value(&metrics, "artel_tasks_limit"), Some(1000.0));
}
