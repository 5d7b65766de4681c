//! Reading along: while a step writes, the prompts of those who will read its answer are computed as far as the answer goes, so
//! that little is left to compute when it ends.

use std::sync::Arc;

use artel_engine as engine;
use artel_roles::template::TemplateContext;
use artel_roles::{Role, Template};
use artel_task::event::Output;
use artel_task::{NodeName, output_value};
use tokio_util::task::AbortOnDropHandle;

use super::Job;
use super::work::request;
use crate::keeper::Lease;

/// Tokens between two looks at an answer: fewer of a prompt at once are computed at a worse speed.
const EVERY: u32 = 16;
/// A longer answer is looked at when it has grown by this part of itself: each look costs as much as the whole prompt is long.
const PART: u32 = 8;

/// Who will read a step's answer as soon as that ends.
pub(crate) struct Reader {
    pub(crate) role: Arc<Role>,
    /// A message template that replaces the role's own.
    pub(crate) message: Option<Template>,
    /// What templates see but for the answer.
    pub(crate) context: TemplateContext,
    /// The node that answers.
    pub(crate) node: NodeName,
}

/// Those who read one step's answer along; dropping it ends that.
pub(super) struct Along<'a> {
    job: &'a Job,
    handle: engine::EngineHandle,
    /// Tokens of the answer when it was last looked at.
    seen: u32,
    reading: Option<AbortOnDropHandle<()>>,
}

impl<'a> Along<'a> {
    pub(super) fn new(job: &'a Job, lease: &Lease) -> Self {
        Self { job, handle: engine::EngineHandle::clone(lease), seen: 0, reading: None }
    }

    /// The answer so far, of so many tokens.
    pub(super) fn hear(&mut self, answer: &str, tokens: u32) {
        let reads = self.reading.as_ref().is_some_and(|reading| !reading.is_finished());
        if self.job.readers.is_empty() || reads || tokens < self.seen + EVERY.max(self.seen / PART) {
            return;
        }
        self.seen = tokens;
        let output = Output::text(answer.trim());
        let output = Output { role: Some(self.job.role.name.clone()), ..output };
        let requests: Vec<engine::Request> =
            self.job.readers.iter().filter_map(|reader| reader.request(&output, self.job)).collect();
        let handle = self.handle.clone();
        let read = async move {
            for request in requests {
                if let Err(error) = handle.prefill(request).await {
                    tracing::debug!(%error, "an answer is not read along");
                }
            }
        };
        self.reading = Some(AbortOnDropHandle::new(tokio::spawn(read)));
    }
}

impl Reader {
    /// What is certain of its prompt while the answer goes on; none if that cannot be known.
    fn request(&self, answer: &Output, job: &Job) -> Option<engine::Request> {
        let (system, user) = self.words(answer)?;
        let longer = Output { text: format!("{}x", answer.text), ..answer.clone() };
        let (other, longer) = self.words(&longer)?;
        let same = user.chars().zip(longer.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        let user = user.get(..same)?.to_owned();
        (system == other).then(|| request(&self.role, &job.models, engine::Priority::Prefetch, system, user).ok())?
    }

    /// What it would be told if this were the answer.
    fn words(&self, answer: &Output) -> Option<(String, String)> {
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
