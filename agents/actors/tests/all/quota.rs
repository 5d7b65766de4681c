//! The quotas of callers: over a restart, over midnight, and with tasks that are forked, set aside and taken up again.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::Ordering;
use std::time::Duration;

use artel_actors::{CallerQuota, Error, Fork, Options, QuotaExcess, Runtime, Submission};
use artel_task::{CallerName, Event, EventKind, TaskId};
use tempfile::tempdir;

use super::clock::{HOUR_MS, settable_clock};
use super::fixtures::*;

fn ci() -> CallerName {
    CallerName::parse("ci").unwrap()
}

fn quota(open_tasks: u32, tokens_per_day: u64) -> CallerQuota {
    CallerQuota { open_tasks: NonZeroU32::new(open_tasks), tokens_per_day: NonZeroU64::new(tokens_per_day) }
}

fn loop_of_ci(quota: CallerQuota) -> Submission {
    Submission { owner: ci(), quota, ..submission(graph("loop"), "Where?") }
}

/// The tokens of the steps after the first so many events.
fn tokens(events: &[Event], copied: usize) -> u64 {
    let of = |event: &Event| match &event.kind {
        EventKind::StepFinished { usage, .. } => u64::from(usage.prompt) + u64::from(usage.output),
        _ => 0,
    };
    events.iter().skip(copied).map(of).sum()
}

/// What the caller has used today, and the time to midnight.
async fn used(runtime: &Runtime) -> (u64, Duration) {
    match runtime.submit(loop_of_ci(quota(0, 1))).await {
        Err(Error::Quota(QuotaExcess::Tokens { used, delay, .. })) => (used, delay),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tokens_are_those_of_today_also_after_a_restart_and_a_fork_counts_its_own_steps_alone() {
    let (dir, (clock, wall_ms)) = (tempdir().unwrap(), settable_clock());
    let start = async || {
        let options = Options { clock: clock.clone(), ..Options::default() };
        runtime_with(dir.path(), &ScriptedLoader::open(), options, catalog()).await
    };
    let runtime = start().await;
    let task = runtime.submit(loop_of_ci(quota(0, 1))).await.unwrap();
    let events = all_events(&runtime, task).await;
    let first = tokens(&events, 0);
    let till_midnight = Duration::from_millis(14 * HOUR_MS);
    assert_eq!(used(&runtime).await, (first, till_midnight));
    let fork = |from: &str, quota| Fork {
        task,
        from_step: Some(from.to_owned()),
        use_current_catalog: false,
        request_id: None,
        labels: Default::default(),
        owner: ci(),
        trace: None,
        quota,
    };
    assert!(matches!(runtime.fork(fork("check#2", quota(0, 1))).await, Err(Error::Quota(_))));
    let forked = runtime.fork(fork("check#2", quota(0, 0))).await.unwrap();
    let events = all_events(&runtime, forked).await;
    let EventKind::Accepted(spec) = &events[0].kind else { panic!("{events:?}") };
    let copied = spec.forked_from.as_ref().unwrap().copied as usize;
    let both = first + tokens(&events, 1 + copied);
    assert!(copied > 2 && both > first && both < 2 * first, "{copied} {both} {first}");
    assert_eq!(used(&runtime).await.0, both);
    runtime.drain(Duration::ZERO).await;
    let runtime = start().await;
    assert_eq!(used(&runtime).await, (both, till_midnight), "it is counted from the journal");
    let other = Submission { owner: CallerName::parse("other").unwrap(), ..loop_of_ci(quota(0, 1)) };
    let task = runtime.submit(other).await.unwrap();
    all_events(&runtime, task).await;
    wall_ms.fetch_add(24 * HOUR_MS, Ordering::SeqCst);
    let task = runtime.submit(loop_of_ci(quota(0, 1))).await.unwrap();
    let next_day = tokens(&all_events(&runtime, task).await, 0);
    assert_eq!(used(&runtime).await.0, next_day);
    runtime.drain(Duration::ZERO).await;
    let runtime = start().await;
    assert_eq!(used(&runtime).await.0, next_day, "yesterday's is over");
    runtime.drain(Duration::ZERO).await;
}

async fn cancelled(runtime: &Runtime, task: TaskId) {
    runtime.cancel(task, "the test").await.unwrap();
}

#[tokio::test]
async fn open_tasks_are_counted_after_a_restart_and_free_when_their_end_is_told() {
    let (dir, loader) = (tempdir().unwrap(), ScriptedLoader::gated());
    let start = async || runtime_with(dir.path(), &loader, Options::default(), catalog()).await;
    let is_refused = async |runtime: &Runtime| {
        matches!(
            runtime.submit(loop_of_ci(quota(2, 0))).await,
            Err(Error::Quota(QuotaExcess::OpenTasks { limit, .. })) if limit.get() == 2
        )
    };
    let runtime = start().await;
    let first = runtime.submit(loop_of_ci(quota(2, 0))).await.unwrap();
    let mut second = runtime.submit(loop_of_ci(quota(2, 0))).await.unwrap();
    assert!(is_refused(&runtime).await);
    for _ in 0..20 {
        cancelled(&runtime, second).await;
        second = runtime.submit(loop_of_ci(quota(2, 0))).await.unwrap();
    }
    let unknown = Submission { target: graph("nothing"), ..loop_of_ci(quota(0, 0)) };
    assert!(matches!(runtime.submit(unknown).await, Err(Error::NoGraph { .. })));
    let stopped = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.drain(Duration::ZERO).await }
    });
    loader.gate.open();
    stopped.await.unwrap();
    let loader = ScriptedLoader::gated();
    let runtime = runtime_with(dir.path(), &loader, Options::default(), catalog()).await;
    assert!(is_refused(&runtime).await, "both are open again");
    cancelled(&runtime, first).await;
    let third = runtime.submit(loop_of_ci(quota(2, 0))).await.unwrap();
    assert!(is_refused(&runtime).await);
    loader.gate.open();
    for task in [second, third] {
        all_events(&runtime, task).await;
    }
    runtime.submit(loop_of_ci(quota(1, 0))).await.unwrap();
    runtime.drain(Duration::ZERO).await;
}
