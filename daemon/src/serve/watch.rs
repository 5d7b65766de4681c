//! Changes in the catalog's directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// After a change, others are waited for so long: editors and `git` write one file after the other.
const QUIET: Duration = Duration::from_millis(300);
/// But not longer than this, if there is no end to them.
const LONGEST: Duration = Duration::from_secs(5);

/// Tells of changes below a directory, once for those that come together.
pub(super) struct Watch {
    changed: Arc<Notify>,
    _watcher: RecommendedWatcher,
    _gathers: AbortOnDropHandle<()>,
}

impl Watch {
    /// # Errors
    /// If the system does not watch for us, such as when all of its watches are in use.
    pub(super) fn of(dir: &Path) -> Result<Self, notify::Error> {
        // One place is enough: that something has changed is all that is told.
        let (tell, told) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: Result<Event, notify::Error>| {
            // After an error some changes may not be told: better to look once too often.
            if event.as_ref().map_or(true, matters) {
                // If it is full, somebody will look anyway.
                let _ = tell.try_send(());
            }
        })?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        let changed = Arc::new(Notify::new());
        let gathers = AbortOnDropHandle::new(tokio::spawn(gather(told, changed.clone())));
        Ok(Self { changed, _watcher: watcher, _gathers: gathers })
    }

    /// Resolves when something has changed since the last time.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Reading a file is no change of it, and what is not YAML is no part of the catalog. Directories have no such ending, and what is
/// in them moves with them.
fn matters(event: &Event) -> bool {
    let may_be_yaml = |path: &Path| path.extension().is_none_or(|ending| ending == "yaml" || ending == "yml");
    let all_seen = event.paths.is_empty() || event.need_rescan();
    !matches!(event.kind, EventKind::Access(_)) && (all_seen || event.paths.iter().any(|path| may_be_yaml(path)))
}

async fn gather(mut told: mpsc::Receiver<()>, changed: Arc<Notify>) {
    while told.recv().await.is_some() {
        let end = Instant::now() + LONGEST;
        while let Ok(Some(())) = timeout_at(end.min(Instant::now() + QUIET), told.recv()).await {}
        changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use notify::event::{AccessKind, CreateKind, ModifyKind};

    use super::*;

    #[test]
    fn yaml_that_is_written_matters_and_nothing_else() {
        let event = |kind, path: &str| Event::new(kind).add_path(PathBuf::from(path));
        let (written, made) = (EventKind::Modify(ModifyKind::Any), EventKind::Create(CreateKind::Any));
        assert!(matters(&event(written, "/c/roles/poet.yaml")) && matters(&event(made, "/c/more")));
        assert!(!matters(&event(EventKind::Access(AccessKind::Any), "/c/roles/poet.yaml")));
        assert!(!matters(&event(written, "/c/.poet.yaml.swp")) && !matters(&event(made, "/c/model.gguf")));
        assert!(matters(&Event::new(EventKind::Other)), "who says nothing may mean anything");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_come_together_are_told_once() {
        let (tell, told) = mpsc::channel(1);
        let changed = Arc::new(Notify::new());
        let gathers = tokio::spawn(gather(told, changed.clone()));
        let began = Instant::now();
        for _ in 0..3 {
            tell.send(()).await.unwrap();
            tokio::time::sleep(QUIET / 2).await;
        }
        changed.notified().await;
        assert_eq!(began.elapsed(), QUIET * 2, "from the last one");
        let busy = tokio::spawn(async move {
            while tell.send(()).await.is_ok() {
                tokio::time::sleep(QUIET / 2).await;
            }
        });
        let began = Instant::now();
        changed.notified().await;
        assert!(began.elapsed() <= LONGEST + QUIET, "{:?}", began.elapsed());
        gathers.abort();
        busy.await.unwrap();
    }
}
