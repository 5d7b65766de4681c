//! Detects changes in the catalog's directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// A change is reported when no other follows for this long: editors and `git` write several files in a row.
const DEBOUNCE_PERIOD: Duration = Duration::from_millis(300);
/// The longest delay of a report while changes keep coming.
const MAX_DEBOUNCE_PERIOD: Duration = Duration::from_secs(5);

/// Reports changes below a directory; changes in quick succession are reported once.
pub(super) struct CatalogWatcher {
    changed: Arc<Notify>,
    _watcher: RecommendedWatcher,
    _debounce_task: AbortOnDropHandle<()>,
}

impl CatalogWatcher {
    /// # Errors
    /// If the system refuses the watch, such as when the limit on watches is reached.
    pub(super) fn new(dir: &Path) -> Result<Self, notify::Error> {
        // A capacity of one is enough: the message only says that something has changed.
        let (sender, receiver) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: Result<Event, notify::Error>| {
            // After an error, changes may have been missed: a superfluous reload is harmless.
            if event.as_ref().map_or(true, may_change_catalog) {
                // If the channel is full, a report is pending anyway.
                let _ = sender.try_send(());
            }
        })?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        let changed = Arc::new(Notify::new());
        let debounce_task = AbortOnDropHandle::new(tokio::spawn(debounce(receiver, changed.clone())));
        Ok(Self { changed, _watcher: watcher, _debounce_task: debounce_task })
    }

    /// Resolves when something has changed since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Whether an event can change the catalog: not if a file was only read, or is not YAML. A path without an extension may be a
/// directory, and its files move with it.
fn may_change_catalog(event: &Event) -> bool {
    let may_be_yaml = |path: &Path| path.extension().is_none_or(|ending| ending == "yaml" || ending == "yml");
    let affects_all = event.paths.is_empty() || event.need_rescan();
    !matches!(event.kind, EventKind::Access(_)) && (affects_all || event.paths.iter().any(|path| may_be_yaml(path)))
}

async fn debounce(mut receiver: mpsc::Receiver<()>, changed: Arc<Notify>) {
    while receiver.recv().await.is_some() {
        let end = Instant::now() + MAX_DEBOUNCE_PERIOD;
        while let Ok(Some(())) = timeout_at(end.min(Instant::now() + DEBOUNCE_PERIOD), receiver.recv()).await {}
        changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use notify::event::{AccessKind, CreateKind, ModifyKind};

    use super::*;

    #[test]
    fn only_written_yaml_may_change_the_catalog() {
        let event = |kind, path: &str| Event::new(kind).add_path(PathBuf::from(path));
        let (written, created) = (EventKind::Modify(ModifyKind::Any), EventKind::Create(CreateKind::Any));
        assert!(
            may_change_catalog(&event(written, "/c/roles/poet.yaml")) && may_change_catalog(&event(created, "/c/more"))
        );
        assert!(!may_change_catalog(&event(EventKind::Access(AccessKind::Any), "/c/roles/poet.yaml")));
        assert!(
            !may_change_catalog(&event(written, "/c/.poet.yaml.swp"))
                && !may_change_catalog(&event(created, "/c/model.gguf"))
        );
        assert!(may_change_catalog(&Event::new(EventKind::Other)), "an event without paths may concern any file");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_in_quick_succession_are_reported_once() {
        let (sender, receiver) = mpsc::channel(1);
        let changed = Arc::new(Notify::new());
        let debounce_task = tokio::spawn(debounce(receiver, changed.clone()));
        let start = Instant::now();
        for _ in 0..3 {
            sender.send(()).await.unwrap();
            tokio::time::sleep(DEBOUNCE_PERIOD / 2).await;
        }
        changed.notified().await;
        assert_eq!(start.elapsed(), DEBOUNCE_PERIOD * 2, "measured from the last change");
        let writer = tokio::spawn(async move {
            while sender.send(()).await.is_ok() {
                tokio::time::sleep(DEBOUNCE_PERIOD / 2).await;
            }
        });
        let start = Instant::now();
        changed.notified().await;
        assert!(start.elapsed() <= MAX_DEBOUNCE_PERIOD + DEBOUNCE_PERIOD, "{:?}", start.elapsed());
        debounce_task.abort();
        writer.await.unwrap();
    }
}
