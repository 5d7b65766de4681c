//! Answers that people rate, with what their models read.

use std::sync::Arc;

use artel_engine::ChatRole;
use artel_retrieval::FoundPassages;
use artel_task::event::{Output, TaskSpec};
use artel_task::{CallerName, CatalogVersion, Event, EventKind, RoleName, State, StepId, TaskId};

use super::resume::RestoredCatalogs;
use super::{Error, Runtime};
use crate::expert::StepPrompt;
use crate::step_place::StepPlace;

/// The answer of a role.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerToRate {
    /// The step that gave it.
    pub step: StepId,
    /// The role that answered.
    pub role: RoleName,
    /// What its model read, as author and text, the oldest message first; `None` if that is not known any more: the passages that a
    /// role read are not kept, and neither are tools, what a caller added to the role's instructions, and the catalog of copied steps.
    pub messages: Option<Vec<(&'static str, String)>>,
    /// The answer.
    pub text: String,
    /// The catalog that the task runs under.
    pub catalog: CatalogVersion,
    /// The caller that the task belongs to.
    pub owner: CallerName,
}

impl Runtime {
    /// The answer of a step, or the last answer of the task.
    ///
    /// # Errors
    /// [`Error::NoTask`], [`Error::NoStep`], [`Error::Erased`]; [`Error::NoAnswer`] if the step has not been answered by a role; the
    /// errors of the journal.
    pub async fn answer_to_rate(&self, task: TaskId, wanted: Option<&str>) -> Result<AnswerToRate, Error> {
        let events = self.history(task).await?;
        let Some(EventKind::Accepted(spec)) = events.first().map(|event| &event.kind) else {
            return Err(Error::NoTask(task));
        };
        if spec.erased.is_some() {
            return Err(Error::Erased(task));
        }
        let no_answer = || Error::NoAnswer { task, step: wanted.map(str::to_owned) };
        let Some((start, step, role, output)) = last_answer(&events, wanted) else {
            let is_start = |event: &Event| matches!(&event.kind, EventKind::StepStarted { step, .. } if Some(step.to_string().as_str()) == wanted);
            return Err(match wanted {
                Some(step) if !events.iter().any(is_start) => Error::NoStep { task, step: step.to_owned() },
                _ => no_answer(),
            });
        };
        let messages = self.read_messages(spec, &events[..=start], step, output).await?;
        Ok(AnswerToRate {
            step: step.clone(),
            role: role.clone(),
            messages,
            text: output.text.clone(),
            catalog: spec.catalog.clone(),
            owner: spec.owner.clone(),
        })
    }

    /// What the model read that gave this output, from the events up to its step's start.
    async fn read_messages(
        &self,
        spec: &TaskSpec,
        events: &[Event],
        step: &StepId,
        output: &Output,
    ) -> Result<Option<Vec<(&'static str, String)>>, Error> {
        let current = self.catalog();
        let mut catalogs = RestoredCatalogs::from([(current.version().clone(), Ok(current))]);
        let Ok((catalog, graph)) = self.restore_accepted(spec, &mut catalogs).await? else { return Ok(None) };
        let Ok(state) = State::replay(events, graph.start()) else { return Ok(None) };
        let history = Arc::new(spec.conversation.as_ref().map(|known| known.history()).unwrap_or_default());
        let place = StepPlace { task: &state, graph: &graph, catalog: &catalog, history: &history };
        let (node, Some(role)) = (graph.node_at(&step.visit), place.role_of(&step.visit)) else { return Ok(None) };
        let reads_passages = !role.knowledge.is_empty() || node.is_none_or(|node| node.passages.is_some());
        // What a caller added to the role's own instructions would be learned as if the role did it unasked.
        let is_instructed = spec.response.is_some() || spec.conversation.as_ref().is_some_and(|c| !c.system.is_empty());
        // A fork may go on under another catalog than the events that it copied.
        let is_copied = spec.forked_from.as_ref().is_some_and(|fork| events.len() <= fork.copied as usize + 1);
        if reads_passages || is_instructed || is_copied || spec.tools.is_some() || !output.calls.is_empty() {
            return Ok(None);
        }
        let (message, context) = (place.message_of(&step.visit), place.context_at(&step.visit, step.attempt));
        let conversation = spec.conversation.as_deref().filter(|_| spec.role.is_some());
        let prompt = StepPrompt { role: &role, message: message.as_ref(), context: &context, conversation };
        let Ok(rendered) = prompt.render_prompt(&FoundPassages::default()) else { return Ok(None) };
        let author = |role: &ChatRole| match role {
            ChatRole::System => "system",
            ChatRole::User => "user",
            ChatRole::Assistant => "assistant",
            ChatRole::Tool => "tool",
        };
        let messages = rendered.into_messages();
        let is_plain = messages.iter().all(|message| message.calls.is_empty() && message.answers.is_none());
        let texts = messages.into_iter().map(|message| (author(&message.role), message.text.to_string()));
        Ok(is_plain.then(|| texts.collect()))
    }
}

/// The last answer of a role, or that of a step: where its step starts, the step, the role and the output.
fn last_answer<'e>(events: &'e [Event], wanted: Option<&str>) -> Option<(usize, &'e StepId, &'e RoleName, &'e Output)> {
    events.iter().rev().find_map(|event| {
        let EventKind::StepFinished { step, output, .. } = &event.kind else { return None };
        if wanted.is_some_and(|wanted| step.to_string() != wanted) {
            return None;
        }
        events.iter().enumerate().find_map(|(at, event)| match &event.kind {
            EventKind::StepStarted { step: started, role: Some(role), .. } if started == step => {
                Some((at, step, role, output))
            }
            _ => None,
        })
    })
}
