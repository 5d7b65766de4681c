//! Parses the conversation of a request.

use std::sync::Arc;

use artel_proto::v1;
use artel_task::event::{Conversation, InvalidConversation, Speaker, ToolCall, Turn};

use crate::status::Violations;

/// The text of the request and the conversation around it. `path` is the prefix of field names in violations.
pub(super) fn parse(
    messages: Vec<v1::ChatMessage>,
    input: &str,
    path: &str,
    violations: &mut Violations,
) -> Option<(String, Arc<Conversation>)> {
    let field = format!("{path}messages");
    if !input.is_empty() {
        violations.add(&field, "is given beside `input`: the text of the request is that of its user's last message");
        return None;
    }
    let known: Option<Vec<Turn>> = messages.into_iter().map(turn).collect();
    let Some(turns) = known else {
        violations.add(&field, "has a message without a known `role`");
        return None;
    };
    match Conversation::of(turns) {
        Ok((text, conversation)) => Some((text, Arc::new(conversation))),
        Err(InvalidConversation::Turn { index, fault }) => {
            violations.add(&format!("{field}[{index}]"), fault);
            None
        }
        Err(error) => {
            violations.add(&field, error);
            None
        }
    }
}

fn turn(message: v1::ChatMessage) -> Option<Turn> {
    let speaker = match message.role() {
        v1::ChatRole::Unspecified => return None,
        v1::ChatRole::System => Speaker::System,
        v1::ChatRole::User => Speaker::User,
        v1::ChatRole::Assistant => Speaker::Assistant,
        v1::ChatRole::Tool => Speaker::Tool,
    };
    let v1::ChatMessage { text, calls, call_id, .. } = message;
    let call = |call: v1::ToolCall| ToolCall { id: call.id, name: call.name, arguments: call.arguments };
    let call_id = Some(call_id).filter(|id| !id.is_empty());
    Some(Turn { speaker, text, calls: calls.into_iter().map(call).collect(), call_id, tool: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: v1::ChatRole, text: &str) -> v1::ChatMessage {
        v1::ChatMessage { role: role.into(), text: text.to_owned(), ..v1::ChatMessage::default() }
    }

    fn refused(messages: Vec<v1::ChatMessage>, input: &str) -> String {
        let mut violations = Violations::default();
        assert_eq!(parse(messages, input, "submit.", &mut violations), None);
        violations.finish().unwrap_err().message().to_owned()
    }

    #[test]
    fn a_conversation_is_parsed_and_a_fault_names_its_message() {
        let messages = vec![
            message(v1::ChatRole::User, "Hi"),
            message(v1::ChatRole::Assistant, "Hello."),
            message(v1::ChatRole::User, "How are you?"),
        ];
        let (text, conversation) = parse(messages.clone(), "", "", &mut Violations::default()).unwrap();
        assert_eq!((text.as_str(), conversation.before.len()), ("How are you?", 2));
        assert!(refused(messages.clone(), "Hi").starts_with("submit.messages: is given beside `input`"));
        let with = |extra| [messages.clone(), vec![extra]].concat();
        assert_eq!(
            refused(with(message(v1::ChatRole::Tool, "4")), ""),
            "submit.messages[3]: is the result of a tool, and says not of which call"
        );
        assert!(refused(with(message(v1::ChatRole::Unspecified, "4")), "").contains("without a known `role`"));
        assert!(refused(vec![message(v1::ChatRole::System, "Be brief.")], "").contains("no message is of the user"));
    }
}
