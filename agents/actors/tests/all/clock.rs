//! A wall clock that is set while tasks run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use artel_actors::{Clock, Options};
use artel_engine::backend::{BatchToken, DecodeError};
use artel_task::event::Timestamp;
use artel_task::{Event, EventKind};
use tempfile::tempdir;

use super::fixtures::*;

pub(super) const HOUR_MS: u64 = 3_600_000;
/// A day of the year 2100: the journal deletes tasks that ended long before the system's time.
const DAY_MS: u64 = 4_102_444_800_000;

/// A wall clock that stands at ten o'clock until it is set.
pub(super) fn settable_clock() -> (Clock, Arc<AtomicU64>) {
    let wall_ms = Arc::new(AtomicU64::new(DAY_MS + 10 * HOUR_MS));
    let now = wall_ms.clone();
    (Clock::new(move || Timestamp(now.load(Ordering::SeqCst))), wall_ms)
}

fn is_failed(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StepFailed { .. })
}

fn is_ordered(events: &[Event]) -> bool {
    events.windows(2).all(|pair| pair[0].at <= pair[1].at)
}

#[tokio::test]
async fn a_wall_clock_that_is_set_by_hours_delays_no_retry_and_uses_up_no_limit() {
    let limited = "---\ngraph: limited\ndescription: D.\nstart: go\nnodes:\n  go: {role: sailor, next: done}\n\
                   limits: {time: 10m}\n";
    for hours in [9, 12] {
        let (dir, (clock, wall_ms)) = (tempdir().unwrap(), settable_clock());
        let fault_hook = |n: u64, _: &[BatchToken]| (n == 1).then(|| DecodeError::Batch("hiccup".to_owned()));
        let loader = ScriptedLoader { fault_hook: Some(Arc::new(fault_hook)), ..ScriptedLoader::open() };
        let options = Options { clock, ..Options::default() };
        let runtime = runtime_with(dir.path(), &loader, options, parse(&format!("{CATALOG}{limited}"))).await;
        let task = runtime.submit(submission(graph("limited"), "Go")).await.unwrap();
        wait_for_events(&runtime, task, 1, is_failed).await;
        wall_ms.store(DAY_MS + hours * HOUR_MS, Ordering::SeqCst);
        let events = tokio::time::timeout(Duration::from_secs(120), all_events(&runtime, task)).await;
        let events = events.expect("the retry is due within a second");
        assert_eq!(end(&events), ("completed", "<Go>".to_owned()), "set to {hours} o'clock");
        assert!(is_ordered(&events), "{events:?}");
        assert!(
            events[events.len() - 2].at.0 < DAY_MS + 10 * HOUR_MS + 120_000,
            "times go on from the start of the run"
        );
    }
}

#[tokio::test]
async fn a_task_that_is_resumed_after_the_clock_was_set_back_has_its_events_in_order() {
    let dir = tempdir().unwrap();
    let (clock, wall_ms) = settable_clock();
    let options = || Options { clock: clock.clone(), ..Options::default() };
    let loader = ScriptedLoader::gated();
    let first = runtime_with(dir.path(), &loader, options(), catalog()).await;
    let task = first.submit(submission(role("sailor"), "Go")).await.unwrap();
    wait_for_events(&first, task, 1, is_started).await;
    let drained = tokio::spawn(async move { first.drain(Duration::ZERO).await });
    loader.gate.open();
    drained.await.unwrap();
    wall_ms.store(DAY_MS + HOUR_MS, Ordering::SeqCst);
    let again = runtime_with(dir.path(), &ScriptedLoader::open(), options(), catalog()).await;
    let events = all_events(&again, task).await;
    assert_eq!(end(&events), ("completed", "<Go>".to_owned()));
    assert!(is_ordered(&events), "{events:?}");
}
