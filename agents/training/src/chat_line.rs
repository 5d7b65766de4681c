//! A line of a file of samples: a chat, or an input of the role with its output.

use std::sync::Arc;

use artel_roles::template::TemplateContext;
use artel_roles::{Role, Template};
use serde_json::{Map, Value, json};

use crate::sample::SampleMessage;

/// The keys of a line that are read; others are counted and told.
const KEYS: [&str; 3] = ["messages", "input", "output"];
/// The keys of a message that are read.
const MESSAGE_KEYS: [&str; 2] = ["role", "content"];
/// The most messages of one chat, as in a request.
const MAX_MESSAGE_ITEMS: usize = 4096;

/// What a line gives.
#[derive(Debug, PartialEq)]
pub(crate) struct ChatLine {
    pub(crate) messages: Vec<SampleMessage>,
    pub(crate) answer: String,
    /// Keys that mean nothing here.
    pub(crate) unread_keys: Vec<String>,
}

impl ChatLine {
    /// Reads a line by the templates of the role that is to learn from it.
    ///
    /// # Errors
    /// Why it is no sample, as the end of a sentence on it.
    pub(crate) fn parse(line: &[u8], role: &Role) -> Result<Self, LineFault> {
        let value: Value =
            serde_json::from_slice(line.trim_ascii()).map_err(|error| LineFault::Json(json_fault(&error)))?;
        let Value::Object(fields) = value else { return Err(LineFault::NoObject) };
        let unread_keys = fields.keys().filter(|key| !KEYS.contains(&key.as_str())).cloned().collect();
        let (messages, answer) = match (fields.get("messages"), fields.get("input"), fields.get("output")) {
            (Some(messages), None, None) => chat(messages, role)?,
            (None, Some(input), Some(output)) => example(input, output, role)?,
            _ => return Err(LineFault::Keys),
        };
        if answer.is_empty() {
            return Err(LineFault::EmptyAnswer);
        }
        Ok(Self { messages, answer, unread_keys })
    }
}

/// What is wrong with JSON in one line.
pub(crate) fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    format!("{reason}, at column {}", error.column())
}

/// Why a line is no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineFault {
    #[error("it is no JSON: {0}")]
    Json(String),
    #[error("it is no JSON object")]
    NoObject,
    #[error("it has neither `messages` alone nor both `input` and `output`")]
    Keys,
    #[error("`messages` is no list of 2 to {MAX_MESSAGE_ITEMS} messages")]
    Messages,
    #[error("message {0} is no object with `role` and `content`")]
    Message(usize),
    #[error("message {at} has `{key}`, and a sample is text alone")]
    MessageKey { at: usize, key: String },
    #[error("the content of message {0} is no text")]
    Content(usize),
    #[error("message {at} is of `{role}`, and {expected} is expected there")]
    Order { at: usize, role: String, expected: &'static str },
    #[error("the answer is empty")]
    EmptyAnswer,
    #[error("`input` is no text")]
    Input,
    #[error("the role's prompt depends on the task: begin `messages` with a `system` message")]
    Prompt,
    #[error("the role's templates read what nodes of a graph have made, and a line has none of it: write `messages`")]
    Graph,
    #[error("the role's templates cannot be rendered for it: {0}")]
    Template(String),
}

/// A chat that ends with the answer. Without a system message it begins with the role's prompt.
fn chat(messages: &Value, role: &Role) -> Result<(Vec<SampleMessage>, String), LineFault> {
    let Some(list) = messages.as_array().filter(|list| (2..=MAX_MESSAGE_ITEMS).contains(&list.len())) else {
        return Err(LineFault::Messages);
    };
    let mut read = Vec::with_capacity(list.len() + 1);
    for (at, message) in (1..).zip(list) {
        read.push(self::message(message, at)?);
    }
    let is_system = |message: &SampleMessage| message.role == "system";
    if !read.first().is_some_and(is_system) {
        if !role.prompt.is_fixed() {
            return Err(LineFault::Prompt);
        }
        let prompt = render_prompt(role, &TemplateContext::default())?;
        read.insert(0, SampleMessage::new("system", &prompt));
    }
    let offset = read.len() - list.len();
    for (at, message) in read.iter().enumerate().skip(1) {
        let expected = if at % 2 == 1 { "`user`" } else { "`assistant`" };
        if message.role != expected.trim_matches('`') {
            let role = message.role.to_owned();
            return Err(LineFault::Order { at: at + 1 - offset, role, expected });
        }
    }
    match read.pop() {
        Some(SampleMessage { role: "assistant", content }) => Ok((read, content)),
        Some(last) => {
            Err(LineFault::Order { at: list.len(), role: last.role.to_owned(), expected: "the answer of `assistant`" })
        }
        None => Err(LineFault::Messages),
    }
}

fn message(message: &Value, at: usize) -> Result<SampleMessage, LineFault> {
    let fields = message.as_object().ok_or(LineFault::Message(at))?;
    // A null says that there is nothing.
    let other = fields.iter().find(|(key, value)| !MESSAGE_KEYS.contains(&key.as_str()) && !value.is_null());
    if let Some((key, _)) = other {
        return Err(LineFault::MessageKey { at, key: key.clone() });
    }
    let role = fields.get("role").and_then(Value::as_str).ok_or(LineFault::Message(at))?;
    let role = ["system", "user", "assistant"].into_iter().find(|known| *known == role).ok_or_else(|| {
        let expected = "`system`, `user` or `assistant`";
        LineFault::Order { at, role: role.chars().take(40).collect(), expected }
    })?;
    let content = content(fields).ok_or(LineFault::Content(at))?;
    Ok(SampleMessage::new(role, &content))
}

/// A text, or parts that are texts.
fn content(fields: &Map<String, Value>) -> Option<String> {
    match fields.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let text = |part: &Value| match part.get("type")?.as_str()? {
                "text" => part.get("text")?.as_str().map(str::to_owned),
                _ => None,
            };
            parts.iter().map(text).collect()
        }
        _ => None,
    }
}

/// What the role reads when this is the input of a task.
fn example(input: &Value, output: &Value, role: &Role) -> Result<(Vec<SampleMessage>, String), LineFault> {
    let input = input.as_str().ok_or(LineFault::Input)?;
    if role.message.as_ref().is_some_and(Template::reads_graph) {
        return Err(LineFault::Graph);
    }
    let task = json!({"id": "", "graph": role.name.as_str(), "input": input});
    let context =
        TemplateContext { task: Arc::new(task), input: input.to_owned(), attempt: 1, ..TemplateContext::default() };
    let system = render_prompt(role, &context)?;
    let user = match &role.message {
        Some(template) => {
            template.render(&with_role(role, &context)).map_err(|error| LineFault::Template(error.to_string()))?
        }
        None => input.to_owned(),
    };
    let answer = match output {
        // The answer of a role with a schema is JSON, also if it is one of several words.
        Value::String(text) if role.output.is_some() && serde_json::from_str::<Value>(text).is_err() => {
            output.to_string()
        }
        Value::String(text) => text.trim().to_owned(),
        value => value.to_string(),
    };
    Ok((vec![SampleMessage::new("system", &system), SampleMessage::new("user", &user)], answer))
}

fn render_prompt(role: &Role, context: &TemplateContext) -> Result<String, LineFault> {
    if role.prompt.reads_graph() {
        return Err(LineFault::Graph);
    }
    role.prompt.render(&with_role(role, context)).map_err(|error| LineFault::Template(error.to_string()))
}

fn with_role(role: &Role, context: &TemplateContext) -> TemplateContext {
    TemplateContext { role: Some(role.template_value()), ..context.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::role;

    fn parse(line: &str, role: &Role) -> Result<ChatLine, LineFault> {
        ChatLine::parse(line.as_bytes(), role)
    }

    fn texts(line: &ChatLine) -> Vec<(&str, &str)> {
        line.messages.iter().map(|message| (message.role, message.content.as_str())).collect()
    }

    #[test]
    fn an_input_is_what_the_role_reads_of_it() {
        let role = role("message: 'Message: {{ input }}'");
        let line = parse(r#"{"input": " A lamp.\n", "output": {"item": "lamp"}, "id": 7}"#, &role).unwrap();
        assert_eq!(texts(&line), [("system", "You sort."), ("user", "Message:  A lamp.")]);
        assert_eq!((line.answer.as_str(), line.unread_keys), (r#"{"item":"lamp"}"#, vec!["id".to_owned()]));
    }

    #[test]
    fn a_chat_has_the_prompt_of_the_role_before_it_unless_it_brings_its_own() {
        let role = role("message: 'Message: {{ input }}'");
        let chat = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": null},
                       {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]}, {"role": "assistant", "content": "e "}]}"#;
        let line = parse(chat, &role).unwrap();
        assert_eq!(texts(&line), [("system", "You sort."), ("user", "a"), ("assistant", "b"), ("user", "cd")]);
        assert_eq!(line.answer, "e");
        let own = r#"{"messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
        assert_eq!(texts(&parse(own, &role).unwrap())[0], ("system", "Own."));
    }

    #[test]
    fn what_is_no_sample_says_why() {
        let role = role("");
        for (line, reason) in [
            ("{", "it is no JSON: EOF while parsing an object, at column 1"),
            ("[]", "it is no JSON object"),
            (r#"{"prompt": "a", "completion": "b"}"#, "it has neither `messages` alone nor both `input` and `output`"),
            (
                r#"{"messages": [], "input": "a", "output": "b"}"#,
                "it has neither `messages` alone nor both `input` and `output`",
            ),
            (r#"{"messages": [{"role": "user", "content": "a"}]}"#, "`messages` is no list of 2 to 4096 messages"),
            (
                r#"{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}"#,
                "message 2 is of `user`, and `assistant` is expected there",
            ),
            (
                r#"{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}"#,
                "message 2 is of `user`, and the answer of `assistant` is expected there",
            ),
            (
                r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": []}]}"#,
                "message 2 has `tool_calls`, and a sample is text alone",
            ),
            (
                r#"{"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "b"}]}"#,
                "the content of message 1 is no text",
            ),
            (
                r#"{"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
                "message 1 is of `human`, and `system`, `user` or `assistant` is expected there",
            ),
            (r#"{"input": "a", "output": " "}"#, "the answer is empty"),
            (r#"{"input": 1, "output": "a"}"#, "`input` is no text"),
        ] {
            assert_eq!(parse(line, &role).map_err(|fault| fault.to_string()), Err(reason.to_owned()), "{line}");
        }
        let of_task = crate::collect::tests::role("message: M.").as_ref().clone();
        let prompt = Template::parse("You sort {{ input }}.").unwrap();
        let chat = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
        assert_eq!(parse(chat, &Role { prompt, ..of_task }), Err(LineFault::Prompt));
        let reads_nodes = crate::collect::tests::role("message: '{{ nodes.plan.text }}'");
        assert_eq!(parse(r#"{"input": "a", "output": "b"}"#, &reads_nodes), Err(LineFault::Graph));
        let fails = crate::collect::tests::role("message: '{{ 1 // 0 }}'");
        let fault = parse(r#"{"input": "a", "output": "b"}"#, &fails).unwrap_err();
        assert!(matches!(fault, LineFault::Template(_)), "{fault}");
    }
}
