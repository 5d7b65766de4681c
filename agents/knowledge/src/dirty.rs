//! Paths that may have changed, collected until they have been quiet for a while.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The paths that are told apart. Beyond it, everything is looked at, which is quicker.
const MAX_DIRTY_FILES: usize = 10_000;

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DirtyScope {
    /// These paths and what is below them.
    Paths(HashSet<PathBuf>),
    /// Anything.
    All,
}

#[derive(Debug, Default)]
struct Pending {
    paths: HashSet<PathBuf>,
    is_all: bool,
    /// The times of the first and the last report.
    reported: Option<(Instant, Instant)>,
}

/// Collects reports. They may come from any thread.
#[derive(Debug, Default)]
pub(crate) struct DirtyPaths {
    pending: Mutex<Pending>,
    reported: Notify,
}

impl DirtyPaths {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn report(&self, paths: impl IntoIterator<Item = PathBuf>) {
        self.add(|pending| {
            if !pending.is_all {
                pending.paths.extend(paths);
            }
            if pending.paths.len() > MAX_DIRTY_FILES {
                pending.paths.clear();
                pending.is_all = true;
            }
        });
    }

    pub(crate) fn report_all(&self) {
        self.add(|pending| {
            pending.paths.clear();
            pending.is_all = true;
        });
    }

    fn add(&self, add: impl FnOnce(&mut Pending)) {
        let now = Instant::now();
        let mut pending = self.pending();
        add(&mut pending);
        pending.reported = Some((pending.reported.map_or(now, |(first, _)| first), now));
        drop(pending);
        self.reported.notify_one();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending().reported.is_none()
    }

    /// Resolves when there are reports and none came for `quiet`, or the first is older than `longest`. Dropping the future
    /// loses nothing.
    pub(crate) async fn settled(&self, quiet: Duration, longest: Duration) {
        loop {
            let reported = self.pending().reported;
            let Some((first, last)) = reported else {
                self.reported.notified().await;
                continue;
            };
            let due = (last + quiet).min(first + longest);
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// What was reported since the last call.
    pub(crate) fn take(&self) -> DirtyScope {
        let Pending { paths, is_all, .. } = std::mem::take(&mut *self.pending());
        if is_all { DirtyScope::All } else { DirtyScope::Paths(paths) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET_PERIOD: Duration = Duration::from_millis(200);
    const LONGEST_PERIOD: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn reports_in_quick_succession_are_taken_together() {
        let dirty = DirtyPaths::default();
        let begin = Instant::now();
        dirty.report([PathBuf::from("/a")]);
        tokio::time::sleep(QUIET_PERIOD / 2).await;
        dirty.report([PathBuf::from("/b")]);
        dirty.settled(QUIET_PERIOD, LONGEST_PERIOD).await;
        assert_eq!(begin.elapsed(), QUIET_PERIOD * 3 / 2);
        assert_eq!(dirty.take(), DirtyScope::Paths(["/a".into(), "/b".into()].into()));
        assert!(dirty.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn reports_that_never_end_are_taken_after_a_while() {
        let dirty = std::sync::Arc::new(DirtyPaths::default());
        let reporter = dirty.clone();
        let begin = Instant::now();
        let reports = tokio::spawn(async move {
            loop {
                reporter.report([PathBuf::from("/a")]);
                tokio::time::sleep(QUIET_PERIOD / 2).await;
            }
        });
        dirty.settled(QUIET_PERIOD, LONGEST_PERIOD).await;
        assert_eq!(begin.elapsed(), LONGEST_PERIOD);
        reports.abort();
    }

    #[test]
    fn too_many_paths_are_everything() {
        let dirty = DirtyPaths::default();
        dirty.report((0..=MAX_DIRTY_FILES).map(|n| PathBuf::from(format!("/{n}"))));
        dirty.report([PathBuf::from("/a")]);
        assert_eq!(dirty.take(), DirtyScope::All);
    }
}
