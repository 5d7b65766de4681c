//! Watches the sources for changes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::dirty::DirtyPaths;
use crate::source::Source;

/// Reports changes below the sources until it is dropped.
pub(crate) struct SourceWatcher {
    _watcher: RecommendedWatcher,
    /// The roots and the directories that they were: another one with such a name is not watched.
    watched: Vec<(PathBuf, u64)>,
}

/// Why changes are looked for now and then instead of being reported.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("{path} is not there yet")]
    Missing { path: String },
    #[error("the system refuses to watch {path}: {reason}; raise fs.inotify.max_user_watches")]
    Refused { path: String, reason: String },
}

impl SourceWatcher {
    /// Watches all sources. Blocks while the system is asked for each directory.
    pub(crate) fn new(sources: &[Source], dirty: &Arc<DirtyPaths>) -> Result<Self, WatchError> {
        let reports = dirty.clone();
        let refused = |path: &Path, error: &notify::Error| WatchError::Refused {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let config = Config::default().with_follow_symlinks(false);
        let report = move |event: Result<Event, notify::Error>| match event {
            Ok(event) if event.need_rescan() => reports.report_all(),
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) => reports.report(event.paths),
            // Changes may have been missed.
            Err(_) => reports.report_all(),
        };
        let created = RecommendedWatcher::new(report, config);
        let mut watcher = created.map_err(|error| refused(Path::new("files"), &error))?;
        let mut watched = Vec::new();
        for source in sources {
            let root = source.root();
            // A file is watched through its directory, since programs replace it when they save.
            let (path, mode) = match root.symlink_metadata() {
                Ok(meta) if meta.is_dir() => (root, RecursiveMode::Recursive),
                Ok(_) => (root.parent().unwrap_or(root), RecursiveMode::NonRecursive),
                Err(_) => return Err(WatchError::Missing { path: root.display().to_string() }),
            };
            watcher.watch(path, mode).map_err(|error| refused(path, &error))?;
            watched.extend(inode(path).map(|inode| (path.to_owned(), inode)));
        }
        Ok(Self { _watcher: watcher, watched })
    }

    /// Whether the directories that are watched are still those of the sources.
    pub(crate) fn is_current(&self) -> bool {
        self.watched.iter().all(|(path, watched)| inode(path) == Some(*watched))
    }
}

fn inode(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().map(|meta| meta.ino())
}
