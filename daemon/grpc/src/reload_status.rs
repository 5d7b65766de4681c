//! What is wrong with the catalog's directory.

use std::sync::{Arc, Mutex, MutexGuard};

use artel_roles::Problem;

/// The problems of the directory when it was last read; none while the catalog in use is what the directory says. The daemon
/// reads it and notes the result here, `Catalog.List` shows it. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct ReloadStatus(Arc<Mutex<Vec<Problem>>>);

impl ReloadStatus {
    /// Notes the problems of the directory, none if it is valid.
    pub fn set(&self, problems: Vec<Problem>) {
        *self.lock() = problems;
    }

    /// The problems when the directory was last read.
    pub fn problems(&self) -> Vec<Problem> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Problem>> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}
