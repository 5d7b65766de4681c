//! The texts of a step's prompt: those of its role's templates, with the conversation that its caller brought.

use std::sync::Arc;

use artel_engine::{ChatRole, Message};
use artel_hosting::prompt;
use artel_retrieval::FoundPassages;
use artel_roles::template::TemplateContext;
use artel_roles::{Role, Template};
use artel_task::event::{Conversation, Failure, FailureCode, Speaker, ToolCall, Turn};
use serde_json::json;

use super::grounding;
use super::step_job::StepJob;

/// Between the instructions of a role and those of its caller.
const PARAGRAPH: &str = "\n\n";
/// The most that the turns of a prompt have together, once they are rendered: more than any context holds.
const MAX_TURNS_BYTES: usize = 4 * 1024 * 1024;

/// What the prompt of a step is made from.
pub(crate) struct StepPrompt<'a> {
    pub(crate) role: &'a Role,
    /// A message template that replaces the role's own.
    pub(crate) message: Option<&'a Template>,
    pub(crate) context: &'a TemplateContext,
    /// The conversation that the role continues.
    pub(crate) conversation: Option<&'a Conversation>,
}

/// The rendered texts of a step's prompt.
pub(crate) struct RenderedPrompt {
    pub(super) system: String,
    /// The turns before the user's text.
    before: Vec<Message>,
    pub(super) user: String,
    /// The turns after it.
    after: Vec<Message>,
}

impl RenderedPrompt {
    /// The messages for a model.
    pub(crate) fn into_messages(self) -> Vec<Message> {
        let Self { system, mut before, user, after } = self;
        let mut messages = vec![prompt::message(ChatRole::System, &system)];
        messages.append(&mut before);
        messages.push(prompt::message(ChatRole::User, &user));
        messages.extend(after);
        messages
    }
}

impl StepJob {
    /// What its prompt is made from.
    pub(super) fn prompt(&self) -> StepPrompt<'_> {
        let Self { role, message, context, conversation, .. } = self;
        StepPrompt { role, message: message.as_ref(), context, conversation: conversation.as_deref() }
    }
}

impl StepPrompt<'_> {
    /// The passages that were found come right before the text of the user, unless the role's templates place them: what comes before is
    /// the same for each question, and is computed once.
    pub(crate) fn render_prompt(&self, found: &FoundPassages) -> Result<RenderedPrompt, Failure> {
        let passages = Arc::new(grounding::template_values(found));
        let context = TemplateContext { passages, ..self.context.clone() };
        let mut system = self.render(&self.role.prompt, &context)?;
        let user = self.user_text(&context)?;
        let user = if self.places(Template::reads_passages) { user } else { grounding::prompt_text(found) + &user };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        if let Some(conversation) = self.conversation {
            after = self.turns(&conversation.after)?;
            if !self.places(Template::reads_history) {
                before = self.turns(&conversation.before)?;
                let has_own = !system.trim().is_empty() && !conversation.system.is_empty();
                system = [system.as_str(), &conversation.system].join(if has_own { PARAGRAPH } else { "" });
            }
        }
        Ok(RenderedPrompt { system, before, user, after })
    }

    /// Whether the templates of the step place what this function asks for themselves.
    fn places(&self, reads: fn(&Template) -> bool) -> bool {
        let message = self.message.or(self.role.message.as_ref());
        reads(&self.role.prompt) || message.is_some_and(reads)
    }

    fn render(&self, template: &Template, context: &TemplateContext) -> Result<String, Failure> {
        let text = template.render(context);
        text.map_err(|e| Failure::new(FailureCode::Template, format!("role `{}`: {e}", self.role.name)))
    }

    fn user_text(&self, context: &TemplateContext) -> Result<String, Failure> {
        match self.message.or(self.role.message.as_ref()) {
            Some(template) => self.render(template, context),
            None => Ok(context.input.clone()),
        }
    }

    /// These turns as messages. The texts of a user are in the role's own message, as the last one was when it was the last: so a
    /// prompt begins as the one before it did.
    fn turns(&self, turns: &[Turn]) -> Result<Vec<Message>, Failure> {
        let mut bytes = 0;
        let message = |turn: &Turn| {
            let message = self.turn(turn)?;
            bytes += message.text.len();
            if bytes > MAX_TURNS_BYTES {
                let limit =
                    format!("role `{}`: its conversation has more than {MAX_TURNS_BYTES} bytes", self.role.name);
                return Err(Failure::new(FailureCode::Template, limit));
            }
            Ok(message)
        };
        turns.iter().map(message).collect()
    }

    fn turn(&self, turn: &Turn) -> Result<Message, Failure> {
        let message = match turn.speaker {
            Speaker::System => prompt::message(ChatRole::System, &turn.text),
            Speaker::User => match &self.role.message {
                Some(template) => prompt::message(ChatRole::User, &self.render(template, &self.context_of(turn))?),
                None => prompt::message(ChatRole::User, &turn.text),
            },
            Speaker::Assistant => prompt::message(ChatRole::Assistant, &turn.text),
            // What a program gave is not trimmed.
            Speaker::Tool => Message::new(ChatRole::Tool, turn.text.as_str()),
        };
        let answered = turn.call_id.clone().zip(turn.tool.clone());
        let answers = answered.map(|(id, name)| ToolCall { id, name, arguments: String::new() });
        Ok(Message { calls: turn.calls.clone(), answers, ..message })
    }

    /// What the role's message reads when this turn is the last one of the user.
    fn context_of(&self, turn: &Turn) -> TemplateContext {
        let TemplateContext { task, nodes, values, item, role, attempt, history, .. } = self.context;
        let task = json!({"id": task["id"], "graph": task["graph"], "input": turn.text});
        TemplateContext {
            task: task.into(),
            nodes: nodes.clone(),
            values: values.clone(),
            input: turn.text.clone(),
            item: item.clone(),
            role: role.clone(),
            attempt: *attempt,
            history: history.clone(),
            // Those of the last question: what was found for an earlier one is not known any more.
            passages: Arc::default(),
        }
    }
}
