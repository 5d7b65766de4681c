//! Reading the catalog's directory again.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use artel_actors::Runtime;
use artel_roles::{Catalog, Problem};

/// What was wrong with the directory when it was read last. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wrong(Arc<Mutex<Vec<Problem>>>);

/// Why it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Somebody asked for it.
    Asked,
    /// Something has changed there.
    Changed,
}

impl Wrong {
    pub(crate) fn list(&self) -> Vec<Problem> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Problem>> {
        self.0.lock().expect("nothing panics while it holds the problems")
    }
}

/// The new catalog is valid as a whole and serves, or nothing changes but what is wrong.
pub(super) async fn reload(crew: &Runtime, dir: Option<&Path>, wrong: &Wrong, cause: Cause) {
    let catalog = match Catalog::load(dir) {
        Ok(catalog) => catalog,
        Err(problems) => {
            for problem in problems.iter() {
                tracing::error!(%problem, "the catalog stays as it was");
            }
            *wrong.lock() = problems.iter().cloned().collect();
            return;
        }
    };
    wrong.lock().clear();
    // A file that was touched and is as before is no new catalog.
    if cause == Cause::Changed && catalog.version() == crew.catalog().version() {
        return;
    }
    log_warnings(&catalog);
    match crew.replace_catalog(catalog, None).await {
        Ok(catalog) => tracing::info!(version = catalog.version().short(), "the catalog was read again"),
        Err(error) => tracing::error!(%error, "the catalog stays as it was"),
    }
}

/// Logs what is wrong with a catalog that is valid all the same.
pub(super) fn log_warnings(catalog: &Catalog) {
    for warning in catalog.warnings().iter() {
        tracing::warn!(%warning, "the catalog has a warning");
    }
}
