//! What a request belongs to, for the log.

use std::sync::Arc;

use tracing::Span;

/// The task, the step and the role that a request belongs to, as far as there are any. They stand in the log lines about it
/// and are not interpreted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestOrigin {
    /// The id of a task.
    pub task: Option<Arc<str>>,
    /// The id of a step of it.
    pub step: Option<Arc<str>>,
    /// The name of a role.
    pub role: Option<Arc<str>>,
}

impl RequestOrigin {
    /// The span of the log lines about a request to this model. It is a root: the caller's span, if any, is of another process
    /// or says the same.
    pub(crate) fn span(&self, model: &str) -> Span {
        let Self { task, step, role } = self;
        let (task, step, role) = (task.as_deref(), step.as_deref(), role.as_deref());
        tracing::info_span!(parent: None, "request", task, step, role, model)
    }
}
