//! Reloading the catalog from its directory.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use artel_actors::Runtime;
use artel_roles::{Catalog, Problem};

/// The problems of the directory when it was last read. Clones share the state.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReloadStatus(Arc<Mutex<Vec<Problem>>>);

/// Why the directory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadCause {
    /// A signal requested it.
    Requested,
    /// A file has changed there.
    FilesChanged,
}

impl ReloadStatus {
    pub(crate) fn problems(&self) -> Vec<Problem> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Problem>> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

/// Serves the new catalog if it is valid; otherwise only `status` changes.
pub(super) async fn reload(runtime: &Runtime, dir: Option<&Path>, status: &ReloadStatus, cause: ReloadCause) {
    let catalog = match Catalog::load(dir) {
        Ok(catalog) => catalog,
        Err(problems) => {
            for problem in problems.iter() {
                tracing::error!(%problem, "failed to reload; the catalog stays as it was");
            }
            *status.lock() = problems.iter().cloned().collect();
            return;
        }
    };
    status.lock().clear();
    // Unchanged content is not a new catalog, even if a file was touched.
    if cause == ReloadCause::FilesChanged && catalog.version() == runtime.catalog().version() {
        return;
    }
    log_warnings(&catalog);
    match runtime.replace_catalog(catalog, None).await {
        Ok(catalog) => tracing::info!(version = catalog.version().short(), "reloaded the catalog"),
        Err(error) => tracing::error!(%error, "failed to reload; the catalog stays as it was"),
    }
}

/// Logs what is wrong with a catalog that is valid all the same.
pub(super) fn log_warnings(catalog: &Catalog) {
    for warning in catalog.warnings().iter() {
        tracing::warn!(%warning, "the catalog has a warning");
    }
}
