//! What a program puts around the parts of a daemon.

use std::sync::Arc;

use artel_actors::Loader;
use artel_journal::CommitHook;

/// Makes a loader of engines from the daemon's own, such as one that loads some models in another way.
pub type LoaderWrapper = Box<dyn FnOnce(Arc<dyn Loader>) -> Arc<dyn Loader> + Send>;

/// What a program puts around the parts of a daemon. By default nothing, as in the released program.
#[derive(Default)]
pub struct ServeHooks {
    /// Replaces the loader of engines.
    pub wrap_loader: Option<LoaderWrapper>,
    /// Is called around every commit of the journal.
    pub journal_hook: Option<Arc<dyn CommitHook>>,
}
