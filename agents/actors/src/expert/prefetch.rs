//! Prefetch: while a step generates its answer, the prompts of the steps that will read it are prefilled as far as the answer
//! has come, so that little is left to prefill when it ends.

use std::sync::Arc;

use artel_engine as engine;
use artel_roles::template::TemplateContext;
use artel_roles::{Role, Template};
use artel_task::event::Output;
use artel_task::{NodeName, output_value};
use tokio_util::task::AbortOnDropHandle;

use super::StepJob;
use super::step_run::request;
use crate::engine_host::EngineLease;

/// Tokens of the answer between two prefetches: smaller pieces of a prompt are prefilled less efficiently.
const MIN_GROWTH_TOKENS: u32 = 16;
/// A long answer must also grow by this fraction of itself: each prefetch costs in proportion to the whole prompt.
const GROWTH_DIVISOR: u32 = 8;

/// A successor that will read a step's answer as soon as it ends.
pub(crate) struct PrefetchTarget {
    pub(crate) role: Arc<Role>,
    /// A message template that replaces the role's own.
    pub(crate) message: Option<Template>,
    /// The template context without the answer.
    pub(crate) context: TemplateContext,
    /// The node that generates the answer.
    pub(crate) node: NodeName,
}

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
        let output = Output::text(answer.trim());
        let output = Output { role: Some(self.job.role.name.clone()), ..output };
        let requests: Vec<engine::Request> =
            self.job.prefetch_targets.iter().filter_map(|target| target.request(&output, self.job)).collect();
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

impl PrefetchTarget {
    /// The part of its prompt that stays the same while the answer grows; `None` if it cannot be determined.
    fn request(&self, answer: &Output, job: &StepJob) -> Option<engine::Request> {
        let (system, user) = self.render(answer)?;
        let longer = Output { text: format!("{}x", answer.text), ..answer.clone() };
        let (longer_system, longer_user) = self.render(&longer)?;
        let common = user.chars().zip(longer_user.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        let user = user.get(..common)?.to_owned();
        (system == longer_system)
            .then(|| request(&self.role, &job.models_dir, engine::Priority::Prefetch, system, user).ok())?
    }

    /// Its system and user prompt if this were the answer.
    fn render(&self, answer: &Output) -> Option<(String, String)> {
        let mut context = TemplateContext { input: answer.text.clone(), ..self.context.clone() };
        Arc::make_mut(&mut context.nodes).insert(self.node.clone(), Arc::new(output_value(answer, &[])));
        let system = self.role.prompt.render(&context).ok()?;
        let user = match self.message.as_ref().or(self.role.message.as_ref()) {
            Some(template) => template.render(&context).ok()?,
            None => context.input,
        };
        Some((system, user))
    }
}
