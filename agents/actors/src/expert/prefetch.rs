//! Prefetch: while a step generates its answer, the prompts of the steps that will read it are prefilled as far as the answer
//! has come, so that little is left to prefill when it ends.

use artel_engine as engine;
use artel_hosting::engine_host::EngineLease;
use artel_task::event::Output;
use tokio_util::task::AbortOnDropHandle;

use super::prefetch_target::PrefetchTarget;
use super::step_job::StepJob;

/// Tokens of the answer between two prefetches: smaller pieces of a prompt are prefilled less efficiently.
const MIN_GROWTH_TOKENS: u32 = 16;
/// A long answer must also grow by this fraction of itself: each prefetch costs in proportion to the whole prompt.
const GROWTH_DIVISOR: u32 = 8;

/// Prefetches the successors of one step; dropping it cancels the prefetch in progress.
pub(super) struct SuccessorPrefetch<'a> {
    job: &'a StepJob,
    handle: engine::EngineHandle,
    /// Tokens of the answer at the last prefetch.
    prefetched_tokens: u32,
    prefill: Option<AbortOnDropHandle<()>>,
}

impl<'a> SuccessorPrefetch<'a> {
    pub(super) fn new(job: &'a StepJob, lease: &EngineLease) -> Self {
        Self { job, handle: engine::EngineHandle::clone(lease), prefetched_tokens: 0, prefill: None }
    }

    /// Starts a prefetch if the answer, which has so many tokens now, has grown enough since the last one.
    pub(super) fn on_text(&mut self, answer: &str, tokens: u32) {
        let is_running = self.prefill.as_ref().is_some_and(|prefill| !prefill.is_finished());
        let growth = MIN_GROWTH_TOKENS.max(self.prefetched_tokens / GROWTH_DIVISOR);
        if self.job.prefetch_targets.is_empty() || is_running || tokens < self.prefetched_tokens + growth {
            return;
        }
        self.prefetched_tokens = tokens;
        let output = Output::text(answer);
        let output = Output { role: Some(self.job.role.name.clone()), ..output };
        let request = |target: &PrefetchTarget| {
            let request = target.request(&output, &self.job.models_dir)?;
            // It is computed for the task of this step, by the role of the next one.
            let origin = engine::RequestOrigin { task: self.job.origin().task, ..request.origin };
            Some(engine::Request { origin, ..request })
        };
        let requests: Vec<engine::Request> = self.job.prefetch_targets.iter().filter_map(request).collect();
        let handle = self.handle.clone();
        let prefill = async move {
            for request in requests {
                if let Err(error) = handle.prefill(request).await {
                    tracing::debug!(%error, "failed to prefetch a successor's prompt");
                }
            }
        };
        self.prefill = Some(AbortOnDropHandle::new(tokio::spawn(prefill)));
    }
}
