//! The messages of a conversation, as chat completions have them.

use artel_proto::v1::{ChatMessage, ChatRole, ToolCall};
use serde_json::Value;

use crate::api_error::ApiError;
use crate::fields::{Fields, text_of, wrong_type};
use crate::tools::shown;

/// The longest id of a call that the services take: those of other programs have some 40 characters.
const MAX_CALL_ID_BYTES: usize = 128;

/// The messages of a request, and their places in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct RequestedMessages {
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) places: Vec<usize>,
}

impl RequestedMessages {
    /// `messages` of chat completions. Messages of the program or of the model that say nothing are left out: some clients keep
    /// the empty answer of a stream that was stopped.
    pub(crate) fn of_chat(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let missing = || fields.invalid("messages", "is missing: it must be a list of messages");
        let mut parsed = Self::default();
        for (place, value) in fields.list("messages")?.ok_or_else(missing)?.iter().enumerate() {
            let message = message(&Fields::of(value, format!("messages[{place}]"))?)?;
            let may_be_empty = matches!(message.role(), ChatRole::System | ChatRole::Assistant);
            if !(may_be_empty && message.text.is_empty() && message.calls.is_empty()) {
                parsed.messages.push(message);
                parsed.places.push(place);
            }
        }
        Ok(parsed)
    }
}

fn message(fields: &Fields<'_>) -> Result<ChatMessage, ApiError> {
    let role = match fields.required_text("role")? {
        "system" | "developer" => ChatRole::System,
        "user" => ChatRole::User,
        "assistant" => ChatRole::Assistant,
        "tool" => ChatRole::Tool,
        "function" => {
            let why = "is `function`, of an interface before tools: send the result as a message of the role `tool`";
            return Err(fields.unsupported("role", why));
        }
        other => {
            let what =
                format!("is `{}`, and must be `system`, `developer`, `user`, `assistant` or `tool`", shown(other));
            return Err(fields.invalid("role", what));
        }
    };
    let text = content(fields, "content")?;
    let calls = if role == ChatRole::Assistant { calls(fields)? } else { Vec::new() };
    let call_id = if role == ChatRole::Tool { call_id(fields, "tool_call_id")? } else { String::new() };
    Ok(ChatMessage { role: role.into(), text, calls, call_id })
}

/// A text, or parts of which all are texts, which are joined by the end of a line.
pub(crate) fn content(fields: &Fields<'_>, name: &str) -> Result<String, ApiError> {
    match fields.value(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let parts = parts.iter().enumerate();
            let texts = parts.map(|(i, part)| part_text(part, fields.path(&format!("{name}[{i}]"))));
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        Some(other) => Err(wrong_type(fields.path(name), "a text or a list of parts", other)),
    }
}

fn part_text(part: &Value, path: String) -> Result<&str, ApiError> {
    if part.is_string() {
        return text_of(part, || path);
    }
    let part = Fields::of(part, path)?;
    match part.required_text("type")? {
        "text" | "input_text" | "output_text" => part.required_text("text"),
        "refusal" => part.required_text("refusal"),
        "image_url" | "input_image" => Err(not_text(&part, "an image")),
        "input_audio" => Err(not_text(&part, "audio")),
        "file" | "input_file" => Err(not_text(&part, "a file")),
        other => Err(not_text(&part, &format!("of type `{}`", shown(other)))),
    }
}

fn not_text(part: &Fields<'_>, what: &str) -> ApiError {
    part.unsupported(
        "type",
        format!("is {what}: the models of this daemon read text alone, so send parts of type `text`"),
    )
}

fn calls(fields: &Fields<'_>) -> Result<Vec<ToolCall>, ApiError> {
    if fields.value("function_call").is_some() {
        let why = "is of an interface before tools: send `tool_calls`";
        return Err(fields.unsupported("function_call", why));
    }
    let calls = fields.list("tool_calls")?.unwrap_or_default().iter().enumerate();
    let calls = calls.map(|(i, call)| {
        let call = Fields::of(call, fields.path(&format!("tool_calls[{i}]")))?;
        let function = call.object("function")?.ok_or_else(|| call.invalid("function", "is missing"))?;
        let name = function.required_text("name")?.to_owned();
        Ok(ToolCall { id: call_id(&call, "id")?, name, arguments: arguments(&function, "arguments")? })
    });
    calls.collect()
}

/// The arguments of a call, as the text of an object. Some programs send the object itself, or nothing.
pub(crate) fn arguments(fields: &Fields<'_>, name: &str) -> Result<String, ApiError> {
    match fields.value(name) {
        None => Ok("{}".to_owned()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok("{}".to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(object @ Value::Object(_)) => Ok(object.to_string()),
        Some(other) => Err(wrong_type(fields.path(name), "the text of a JSON object", other)),
    }
}

/// The id of a call: any text, since calls may come from other programs.
pub(crate) fn call_id(fields: &Fields<'_>, name: &str) -> Result<String, ApiError> {
    let id = fields.required_text(name)?;
    match id.len() {
        1..=MAX_CALL_ID_BYTES => Ok(id.to_owned()),
        bytes => Err(fields.invalid(name, format!("has {bytes} bytes, and must have 1 to {MAX_CALL_ID_BYTES}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(messages: &Value) -> Result<RequestedMessages, ApiError> {
        RequestedMessages::of_chat(&Fields::of(&json!({ "messages": messages }), "").unwrap())
    }

    #[test]
    fn every_role_is_taken() {
        let parsed = parsed(&json!([
            {"role": "system", "content": "Be short."},
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
            {"role": "user", "content": "Weather?", "name": "ada"},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get", "arguments": "{\"a\":1}"}},
                {"id": "call_2", "function": {"name": "now", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ]));
        let messages = parsed.unwrap().messages;
        let texts: Vec<(ChatRole, &str)> = messages.iter().map(|m| (m.role(), m.text.as_str())).collect();
        let expected = [
            (ChatRole::System, "Be short."),
            (ChatRole::System, "Be\nkind."),
            (ChatRole::User, "Weather?"),
            (ChatRole::Assistant, ""),
            (ChatRole::Tool, "sunny"),
        ];
        assert_eq!(texts, expected);
        assert_eq!(
            (messages[3].calls[0].id.as_str(), messages[3].calls[0].arguments.as_str()),
            ("call_1", "{\"a\":1}")
        );
        assert_eq!((messages[3].calls[1].arguments.as_str(), messages[4].call_id.as_str()), ("{}", "call_1"));
    }

    #[test]
    fn messages_that_say_nothing_are_left_out_but_for_those_of_users() {
        let parsed = parsed(&json!([
            {"role": "system", "content": ""},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": null},
            {"role": "user", "content": ""},
        ]));
        assert_eq!(parsed.unwrap().places, [1, 3]);
    }

    #[test]
    fn what_is_no_text_is_refused_in_words() {
        let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]);
        let audio = json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]);
        let file = json!([{"role": "user", "content": [{"type": "file", "file": {}}]}]);
        for (messages, told) in [
            (image, "`messages[0].content[0].type` is an image: the models of this daemon read text alone"),
            (audio, "is audio"),
            (file, "is a file"),
            (json!([{"role": "function", "content": "a"}]), "send the result as a message of the role `tool`"),
            (json!([{"role": "robot"}]), "must be `system`, `developer`, `user`, `assistant` or `tool`"),
            (json!([{"role": "tool", "content": "a"}]), "`messages[0].tool_call_id` is missing"),
            (json!([{"role": "tool", "content": "a", "tool_call_id": "ä".repeat(65)}]), "has 130 bytes"),
            (json!([{"role": "user", "content": 7}]), "must be a text or a list of parts, and is a number"),
            (json!([{"role": "assistant", "function_call": {"name": "f"}}]), "send `tool_calls`"),
            (json!(["hello"]), "`messages[0]` must be an object, and is a text"),
            (json!("hello"), "`messages` must be a list, and is a text"),
        ] {
            let refused = parsed(&messages).unwrap_err();
            assert!(refused.message.contains(told), "{}", refused.message);
        }
    }
}
