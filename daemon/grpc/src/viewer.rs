//! The caller of a request, and the tasks that it sees.

use artel_access::{AccessScope, Caller};
use artel_actors::{CallerQuota, Viewer};
use tonic::Request;

/// The caller of a request, whom the gate put into its extensions; without a gate, the user whose daemon it is.
pub(crate) fn viewer_of<T>(request: &Request<T>) -> Viewer {
    request.extensions().get::<Caller>().map_or_else(Viewer::owner, |caller| Viewer {
        caller: caller.name.clone(),
        sees_all: caller.may(AccessScope::ReadAll),
        controls_all: caller.may(AccessScope::Admin),
        quota: CallerQuota { open_tasks: caller.limits.open_tasks, tokens_per_day: caller.limits.tokens_per_day },
    })
}
