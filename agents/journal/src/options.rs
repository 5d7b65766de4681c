//! The options of a journal.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use artel_metrics::JournalMetrics;
use artel_task::Clock;

use crate::CommitHook;

/// The options of a journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// The limits of ended tasks.
    pub retention: Retention,
    /// Retention runs after this many ended tasks; it also runs when the journal is opened.
    pub prune_interval_tasks: NonZeroU32,
    /// The wall time, which the ages of ended tasks are measured with.
    pub clock: Clock,
    /// What is called around each commit; for tests.
    pub hook: Option<Arc<dyn CommitHook>>,
    /// Counts and measures commits.
    pub metrics: JournalMetrics,
}

impl Default for Options {
    /// Retention after every 256 ended tasks: often enough to keep the file size flat, rarely enough to cost nothing.
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            prune_interval_tasks: NonZeroU32::new(256).expect("256 is not 0"),
            clock: Clock::default(),
            hook: None,
            metrics: JournalMetrics::default(),
        }
    }
}

/// The limits of ended tasks. Running tasks are always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The maximum number of ended tasks.
    pub tasks: u64,
    /// The maximum time since a task ended.
    pub age: Duration,
    /// The maximum size of the database in bytes, running tasks included.
    pub bytes: u64,
}

impl Default for Retention {
    /// 10,000 tasks, 30 days, 4 GiB: what a user may still look up, on any disk that holds models.
    fn default() -> Self {
        Self { tasks: 10_000, age: Duration::from_secs(30 * 24 * 3600), bytes: 4 << 30 }
    }
}
