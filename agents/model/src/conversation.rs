//! The conversation that a request continues.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::tools::{MAX_TOOL_NAME_BYTES, ToolCall, is_tool_name};

/// The most messages of a conversation: more than a context holds, of a few tokens each.
pub const MAX_CONVERSATION_ITEMS: usize = 4096;
/// The most bytes of all its texts and calls together: as many as a request's own text may have.
pub const MAX_CONVERSATION_BYTES: usize = 1024 * 1024;
/// The longest id of a call: those of other servers have some 30 characters.
pub const MAX_CALL_ID_BYTES: usize = 128;

/// The author of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// The caller's program, with instructions.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called.
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Its author.
    pub speaker: Speaker,
    /// Its text.
    pub text: String,
    /// The calls of tools that the model made with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    /// The id of the call whose result it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// The tool of that call: of the last one before it with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
}

/// A conversation around a request, whose own text is the last one of its user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// What the caller adds to the instructions of a role.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// The turns before the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Turn>,
    /// The turns after it: calls of tools, and their results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Turn>,
}

/// Why a conversation is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConversation {
    /// It has too many messages.
    #[error("{0} messages are more than the limit of {MAX_CONVERSATION_ITEMS}")]
    TooMany(usize),
    /// Its messages are too long.
    #[error("the messages have {0} bytes, the limit is {MAX_CONVERSATION_BYTES}: leave out the oldest ones")]
    TooLarge(usize),
    /// There is nothing to answer.
    #[error("no message is of the user")]
    NoUser,
    /// One of its messages cannot be what it is.
    #[error("{fault}")]
    Turn {
        /// Which, from 0.
        index: usize,
        /// Why.
        fault: TurnFault,
    },
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnFault {
    /// It says nothing.
    #[error("has no text")]
    Empty,
    /// Only a model calls tools.
    #[error("has calls of tools, which only those of the assistant have")]
    Calls,
    /// Only a tool answers a call.
    #[error("answers a call, which only those of a tool do")]
    Answers,
    /// It answers no call.
    #[error("is the result of a tool, and says not of which call")]
    NoCall,
    /// It answers a call that was not made.
    #[error("is the result of call `{0}`, which no earlier message makes")]
    UnknownCall(String),
    /// A call has no id, or a long one.
    #[error("has a call whose id has {0} bytes, and must have 1 to {MAX_CALL_ID_BYTES}")]
    CallId(usize),
    /// A call is of no tool.
    #[error(
        "has a call of `{0}`, which is no name of a tool: it has 1 to {MAX_TOOL_NAME_BYTES} letters, digits, `_` and `-`"
    )]
    CallName(String),
    /// The arguments of a call cannot be read.
    #[error("has a call of `{0}` whose arguments are no JSON object")]
    Arguments(String),
}

impl Turn {
    /// A text.
    pub fn new(speaker: Speaker, text: impl Into<String>) -> Self {
        Self { speaker, text: text.into(), calls: Vec::new(), call_id: None, tool: None }
    }

    fn bytes(&self) -> usize {
        let of_call = |call: &ToolCall| call.id.len() + call.name.len() + call.arguments.len();
        self.text.len() + self.call_id.as_ref().map_or(0, String::len) + self.calls.iter().map(of_call).sum::<usize>()
    }
}

impl Conversation {
    /// The conversation that these messages are, the oldest first, and the text of its user's last one.
    ///
    /// # Errors
    /// It is beyond a limit, or a message does not fit its author.
    pub fn of(mut turns: Vec<Turn>) -> Result<(String, Self), InvalidConversation> {
        if turns.len() > MAX_CONVERSATION_ITEMS {
            return Err(InvalidConversation::TooMany(turns.len()));
        }
        let bytes = turns.iter().map(Turn::bytes).sum();
        if bytes > MAX_CONVERSATION_BYTES {
            return Err(InvalidConversation::TooLarge(bytes));
        }
        let mut made = HashMap::new();
        for (index, turn) in turns.iter_mut().enumerate() {
            check(turn, &made).map_err(|fault| InvalidConversation::Turn { index, fault })?;
            made.extend(turn.calls.iter().map(|call| (call.id.clone(), call.name.clone())));
        }
        let (system, mut turns): (Vec<Turn>, Vec<Turn>) =
            turns.into_iter().partition(|turn| turn.speaker == Speaker::System);
        let texts: Vec<&str> = system.iter().map(|turn| turn.text.trim()).filter(|text| !text.is_empty()).collect();
        let system = texts.join("\n\n");
        let last = turns.iter().rposition(|turn| turn.speaker == Speaker::User).ok_or(InvalidConversation::NoUser)?;
        let after = turns.split_off(last + 1);
        let input = turns.pop().map(|turn| turn.text).unwrap_or_default();
        Ok((input, Self { system, before: turns, after }))
    }

    /// The turns before the request as templates read them, the caller's instructions first.
    pub fn history(&self) -> Vec<Value> {
        let system = Some(Turn::new(Speaker::System, self.system.as_str())).filter(|turn| !turn.text.is_empty());
        system.iter().chain(&self.before).map(Turn::value).collect()
    }
}

impl Turn {
    /// As templates read it.
    fn value(&self) -> Value {
        let call = |call: &ToolCall| {
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            json!({"id": call.id, "name": call.name, "arguments": arguments})
        };
        json!({
            "role": self.speaker.as_str(),
            "content": self.text,
            "calls": self.calls.iter().map(call).collect::<Value>(),
            "tool": self.tool,
        })
    }
}

impl Speaker {
    /// Its name in chat templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// Checks a turn against the calls before it, whose ids have the names of their tools. Arguments that are left out are an empty
/// object.
fn check(turn: &mut Turn, made: &HashMap<String, String>) -> Result<(), TurnFault> {
    if turn.speaker != Speaker::Assistant && !turn.calls.is_empty() {
        return Err(TurnFault::Calls);
    }
    match (&turn.call_id, turn.speaker == Speaker::Tool) {
        (None, true) => return Err(TurnFault::NoCall),
        (Some(_), false) => return Err(TurnFault::Answers),
        (Some(id), true) => match made.get(id) {
            Some(name) => turn.tool = Some(name.clone()),
            None => return Err(TurnFault::UnknownCall(shown(id))),
        },
        (None, false) => turn.tool = None,
    }
    if turn.speaker == Speaker::User && turn.text.trim().is_empty() {
        return Err(TurnFault::Empty);
    }
    for call in &mut turn.calls {
        if !(1..=MAX_CALL_ID_BYTES).contains(&call.id.len()) {
            return Err(TurnFault::CallId(call.id.len()));
        }
        if !is_tool_name(&call.name) {
            return Err(TurnFault::CallName(shown(&call.name)));
        }
        if call.arguments.trim().is_empty() {
            call.arguments = "{}".to_owned();
        }
        let is_object = serde_json::from_str::<serde_json::Map<String, Value>>(&call.arguments).is_ok();
        if !is_object {
            return Err(TurnFault::Arguments(call.name.clone()));
        }
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_TOOL_NAME_BYTES).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calling(id: &str, name: &str, arguments: &str) -> Turn {
        let call = ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() };
        Turn { calls: vec![call], ..Turn::new(Speaker::Assistant, "") }
    }

    fn result(id: &str) -> Turn {
        Turn { call_id: Some(id.to_owned()), ..Turn::new(Speaker::Tool, "4") }
    }

    #[test]
    fn the_last_text_of_the_user_is_the_request_and_all_instructions_come_first() {
        let turns = vec![
            Turn::new(Speaker::System, "Be brief."),
            Turn::new(Speaker::User, "Hi"),
            Turn::new(Speaker::Assistant, "Hello."),
            Turn::new(Speaker::System, " Be kind.\n"),
            Turn::new(Speaker::User, "2+2?"),
            calling("c1", "add", ""),
            result("c1"),
        ];
        let (input, conversation) = Conversation::of(turns).unwrap();
        assert_eq!((input.as_str(), conversation.system.as_str()), ("2+2?", "Be brief.\n\nBe kind."));
        assert_eq!((conversation.before.len(), conversation.after.len()), (2, 2));
        assert_eq!(conversation.after[0].calls[0].arguments, "{}", "arguments that are left out");
        assert_eq!(conversation.after[1].tool.as_deref(), Some("add"));
        let history = json!([
            {"role": "system", "content": "Be brief.\n\nBe kind.", "calls": [], "tool": null},
            {"role": "user", "content": "Hi", "calls": [], "tool": null},
            {"role": "assistant", "content": "Hello.", "calls": [], "tool": null},
        ]);
        assert_eq!(Value::from(conversation.history()), history);
        let stored = serde_json::to_value(&conversation).unwrap();
        assert_eq!(serde_json::from_value::<Conversation>(stored).unwrap(), conversation);
    }

    /// Some servers number the calls of each answer anew.
    #[test]
    fn a_result_is_of_the_last_call_with_its_id() {
        let user = || Turn::new(Speaker::User, "Go on.");
        let turns = vec![user(), calling("0", "add", ""), result("0"), user(), calling("0", "send", ""), result("0")];
        let (_, conversation) = Conversation::of(turns).unwrap();
        let tool = |turn: &Turn| turn.tool.clone().unwrap();
        assert_eq!(
            (tool(&conversation.before[2]), tool(&conversation.after[1])),
            ("add".to_owned(), "send".to_owned())
        );
    }

    #[test]
    fn what_is_no_conversation_is_refused_in_words() {
        let user = || Turn::new(Speaker::User, "Hi");
        for (turns, told) in [
            (vec![user(); MAX_CONVERSATION_ITEMS + 1], "4097 messages are more than the limit of 4096"),
            (vec![Turn::new(Speaker::User, "x".repeat(MAX_CONVERSATION_BYTES + 1))], "the limit is 1048576"),
            (vec![Turn::new(Speaker::System, "Be brief.")], "no message is of the user"),
            (vec![Turn::new(Speaker::User, " ")], "has no text"),
            (vec![Turn { calls: calling("a", "b", "").calls, ..user() }], "only those of the assistant"),
            (vec![Turn { call_id: Some("a".to_owned()), ..user() }], "only those of a tool"),
            (vec![user(), Turn::new(Speaker::Tool, "4")], "says not of which call"),
            (vec![user(), result("c2"), calling("c2", "add", "")], "call `c2`, which no earlier message makes"),
            (vec![user(), calling("", "add", "")], "whose id has 0 bytes"),
            (vec![user(), calling("a", "a b", "")], "no name of a tool"),
            (vec![user(), calling("a", "add", "[1]")], "no JSON object"),
        ] {
            let refused = Conversation::of(turns).unwrap_err().to_string();
            assert!(refused.contains(told), "{refused}");
        }
        let fault = Conversation::of(vec![user(), result("c")]).unwrap_err();
        assert!(matches!(fault, InvalidConversation::Turn { index: 1, .. }));
    }
}
