//! One attempt at a step, as an expert gets it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_engine::RequestOrigin;
use artel_hosting::Loader;
use artel_metrics::RoleMetrics;
use artel_retrieval::{FoundPassages, Retrieval};
use artel_roles::template::TemplateContext;
use artel_roles::{Catalog, Role, Template};
use artel_stream::{StepProgress, StreamItem, TaskChannel};
use artel_task::event::{Conversation, ReasoningParams, RequestSampling, ResponseFormat, TaskPriority, ToolSet};
use artel_task::{CallerName, RoleName, StepId, TaskId};
use artel_traces::TraceScope;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::prefetch_target::PrefetchTarget;
use crate::commit_barrier::CommitBarrier;
use crate::completion::Completion;
use crate::response_cache::ScopedResponseCache;

/// The shortest time between two progress items of a step, and before the first: often enough for a display, and nothing is
/// published of steps that end before anyone could read it.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// One attempt at a step, with everything it needs.
pub(crate) struct StepJob {
    pub(crate) task: TaskId,
    pub(crate) step: StepId,
    pub(crate) role: Arc<Role>,
    /// A message template that replaces the role's own.
    pub(crate) message: Option<Template>,
    /// The context of templates; without a template, the role reads its input.
    pub(crate) context: TemplateContext,
    /// From the step's start to its end, without the time in which its model is not loaded.
    pub(crate) timeout: Duration,
    /// The longest time without a token.
    pub(crate) idle_timeout: Duration,
    /// The attempts before it whose output was not valid.
    pub(crate) invalid_outputs: u32,
    /// How the client wants the answer to be sampled.
    pub(crate) sampling: Option<Box<RequestSampling>>,
    /// The form that the client wants the answer to have.
    pub(crate) response: Option<Box<ResponseFormat>>,
    /// What its model may do of its reasoning, and whether that is shown.
    pub(crate) reasoning: ReasoningParams,
    /// Set if the node accepts a cached response.
    pub(crate) cache: Option<ScopedResponseCache>,
    pub(crate) priority: TaskPriority,
    /// Steps of its task after this one.
    pub(crate) remaining_steps: u32,
    /// The roles that may run next: the engine keeps their prefixes.
    pub(crate) next_roles: Vec<RoleName>,
    /// The successors that read its answer as soon as it ends, on the same model.
    pub(crate) prefetch_targets: Vec<PrefetchTarget>,
    /// What a search before it found, which its role answers from in place of what it would find itself.
    pub(crate) found: Option<FoundPassages>,
    /// Finds what its role answers from, in the knowledge of this catalog.
    pub(crate) retrieval: Option<(Retrieval, Arc<Catalog>)>,
    /// Whose task it is.
    pub(crate) owner: CallerName,
    /// Fetches the role's adapters.
    pub(crate) loader: Arc<dyn Loader>,
    /// The folder in which adapters' paths are resolved.
    pub(crate) models_dir: Arc<Path>,
    pub(crate) channel: TaskChannel,
    /// The metrics of its role.
    pub(crate) metrics: Arc<RoleMetrics>,
    /// The tools that its role may call.
    pub(crate) tools: Option<Arc<ToolSet>>,
    /// The conversation that its role continues: that of a task of this role alone.
    pub(crate) conversation: Option<Arc<Conversation>>,
    /// Its span, if its task is traced.
    pub(crate) trace: Option<TraceScope>,
    /// Opens when the step's start is committed; nothing of the step is published before.
    pub(crate) barrier: CommitBarrier,
    pub(crate) cancel: CancellationToken,
    pub(crate) completion: Completion,
}

impl StepJob {
    /// The span of the log lines about the step. It is a root: the spans of the actors that the step passes belong to others.
    pub(super) fn span(&self) -> Span {
        let Self { task, step, role, .. } = self;
        tracing::info_span!(parent: None, "step", %task, %step, role = %role.name, model = %role.model)
    }

    /// What its requests to the engine belong to.
    pub(super) fn origin(&self) -> RequestOrigin {
        RequestOrigin {
            task: Some(self.task.to_string().into()),
            step: Some(self.step.to_string().into()),
            role: Some(self.role.name.as_str().into()),
        }
    }

    /// Publishes the progress of the step; false if its start is not committed yet.
    pub(super) fn publish_progress(&self, progress: StepProgress) -> bool {
        let is_committed = self.barrier.since_commit().is_some();
        if is_committed {
            let (step, role): (StepId, RoleName) = (self.step.clone(), self.role.name.clone());
            self.channel.send(StreamItem::Progress { step, role, progress });
        }
        is_committed
    }
}
