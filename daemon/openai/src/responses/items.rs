//! The `input` of a response: from items to the messages of a conversation.

use artel_proto::v1::{ChatMessage, ChatRole, ToolCall};
use serde_json::Value;

use super::item_id::ItemId;
use crate::api_error::ApiError;
use crate::fields::{Fields, wrong_type};
use crate::messages::{arguments, call_id, content};
use crate::tools::shown;

/// As many items as a conversation has messages at most, and as many calls and pieces of reasoning beside them.
const MAX_INPUT_ITEMS: usize = 8192;

/// An item of the input that says something to a model.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum InputItem {
    Message(ChatMessage),
    /// A call that the model made.
    Call(ToolCall),
    /// An item of an earlier response, which its task has.
    Reference(ItemId),
}

/// An item and its place in the list of the request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlacedItem {
    pub(super) place: usize,
    pub(super) item: InputItem,
}

/// The items of `input`; those that say nothing are left out.
pub(super) fn parse(fields: &Fields<'_>) -> Result<Vec<PlacedItem>, ApiError> {
    let items = match fields.value("input") {
        None => return Err(fields.invalid("input", "is missing: it must be a text or a list of items")),
        Some(Value::String(text)) if text.is_empty() => return Err(fields.invalid("input", "is empty")),
        Some(Value::String(text)) => {
            let item = InputItem::Message(message(ChatRole::User, text.clone()));
            return Ok(vec![PlacedItem { place: 0, item }]);
        }
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_type("input", "a text or a list of items", other)),
    };
    if items.is_empty() || items.len() > MAX_INPUT_ITEMS {
        let what = format!("has {} items, and must have 1 to {MAX_INPUT_ITEMS}", items.len());
        return Err(fields.invalid("input", what));
    }
    let mut parsed = Vec::with_capacity(items.len());
    for (place, value) in items.iter().enumerate() {
        let fields = Fields::of(value, format!("input[{place}]"))?;
        parsed.extend(item(&fields)?.map(|item| PlacedItem { place, item }));
    }
    Ok(parsed)
}

/// The messages of items without references, and the places of their first items: calls belong to the message of the model that
/// they follow.
pub(super) fn messages(items: Vec<PlacedItem>) -> (Vec<ChatMessage>, Vec<usize>) {
    let (mut messages, mut places): (Vec<ChatMessage>, Vec<usize>) = (Vec::new(), Vec::new());
    for PlacedItem { place, item } in items {
        let last = messages.last_mut().filter(|last| last.role() == ChatRole::Assistant);
        let next = match (item, last) {
            (InputItem::Reference(_), _) => continue,
            (InputItem::Call(call), Some(last)) => {
                last.calls.push(call);
                continue;
            }
            (InputItem::Call(call), None) => {
                ChatMessage { calls: vec![call], ..message(ChatRole::Assistant, String::new()) }
            }
            // The model wrote its text after its calls: one message has both.
            (InputItem::Message(next), Some(last)) if next.role() == ChatRole::Assistant && last.text.is_empty() => {
                last.text = next.text;
                continue;
            }
            (InputItem::Message(next), _) => next,
        };
        messages.push(next);
        places.push(place);
    }
    (messages, places)
}

pub(super) fn message(role: ChatRole, text: String) -> ChatMessage {
    ChatMessage { role: role.into(), text, ..ChatMessage::default() }
}

/// `None` for an item that says nothing to a model.
fn item(fields: &Fields<'_>) -> Result<Option<InputItem>, ApiError> {
    let kind = match fields.text("type")? {
        Some(kind) => kind,
        // A message without a type is how most clients write it.
        None if fields.value("role").is_some() => "message",
        None => return Err(fields.invalid("type", "is missing: it must be a text")),
    };
    match kind {
        "message" => {
            let message = message(role(fields)?, content(fields, "content")?);
            // Some clients keep the empty answer of a stream that was stopped.
            let says_something = !message.text.is_empty() || message.role() == ChatRole::User;
            Ok(says_something.then_some(InputItem::Message(message)))
        }
        "function_call" => Ok(Some(InputItem::Call(ToolCall {
            id: call_id(fields, "call_id")?,
            name: fields.required_text("name")?.to_owned(),
            arguments: arguments(fields, "arguments")?,
        }))),
        "function_call_output" => {
            let result = message(ChatRole::Tool, content(fields, "output")?);
            Ok(Some(InputItem::Message(ChatMessage { call_id: call_id(fields, "call_id")?, ..result })))
        }
        "reasoning" => Ok(None),
        "item_reference" => {
            let id = fields.required_text("id")?;
            let refused =
                |error| fields.invalid("id", format!("is `{}`, which {error}: send the item itself", shown(id)));
            Ok(Some(InputItem::Reference(id.parse::<ItemId>().map_err(refused)?)))
        }
        other => {
            let why = format!("is `{}`: this daemon runs no tools itself, and takes no items of them", shown(other));
            Err(fields.unsupported("type", why))
        }
    }
}

fn role(fields: &Fields<'_>) -> Result<ChatRole, ApiError> {
    match fields.required_text("role")? {
        "user" => Ok(ChatRole::User),
        "assistant" => Ok(ChatRole::Assistant),
        "system" | "developer" => Ok(ChatRole::System),
        other => {
            let what = format!("is `{}`: the roles are user, assistant, system, and developer", shown(other));
            Err(fields.invalid("role", what))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(input: &Value) -> Result<(Vec<ChatMessage>, Vec<usize>), ApiError> {
        let body = json!({"input": input});
        parse(&Fields::of(&body, "").unwrap()).map(messages)
    }

    #[test]
    fn items_become_messages_and_calls_belong_to_the_message_before_them() {
        let call =
            |id: &str| json!({"type": "function_call", "id": "fc_1", "call_id": id, "name": "add", "arguments": "{}"});
        let (messages, places) = parsed(&json!([
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "1+1"}, {"type": "input_text", "text": "2+2"}]},
            {"role": "assistant", "content": ""},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": null},
            {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "Both.", "annotations": []}]},
            call("a"),
            call("b"),
            {"type": "function_call_output", "call_id": "a", "output": "2"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "4"}]},
            call("c"),
            {"type": "function_call_output", "call_id": "c", "output": "6"},
        ]))
        .unwrap();
        let seen: Vec<_> =
            messages.iter().map(|m| (m.role(), m.text.as_str(), m.calls.len(), m.call_id.as_str())).collect();
        use ChatRole::{Assistant, System, Tool, User};
        let expected = [
            (System, "Be brief.", 0, ""),
            (User, "1+1\n2+2", 0, ""),
            (Assistant, "Both.", 2, ""),
            (Tool, "2", 0, "a"),
            (Tool, "4", 0, "b"),
            (Assistant, "", 1, ""),
            (Tool, "6", 0, "c"),
        ];
        assert_eq!(seen, expected);
        assert_eq!(places, [0, 1, 4, 7, 8, 9, 10]);
        let whole = parsed(&json!("Hello")).unwrap().0;
        assert_eq!((whole[0].role(), whole[0].text.as_str()), (User, "Hello"));
    }

    #[test]
    fn text_behind_calls_is_of_the_same_message() {
        let (messages, _) = parsed(&json!([
            {"role": "user", "content": "Hi"},
            {"type": "function_call", "call_id": "a", "name": "add", "arguments": "{}"},
            {"role": "assistant", "content": "One moment."},
            {"role": "assistant", "content": "Still here."},
        ]))
        .unwrap();
        assert_eq!((messages[1].text.as_str(), messages[1].calls.len()), ("One moment.", 1));
        assert_eq!((messages[2].text.as_str(), messages.len()), ("Still here.", 3));
    }

    #[test]
    fn what_is_not_taken_is_refused_by_name() {
        let user = |part: Value| json!([{"role": "user", "content": [part]}]);
        for (input, told) in [
            (Value::Null, "`input` is missing"),
            (json!(""), "`input` is empty"),
            (json!([]), "`input` has 0 items"),
            (json!(["a"]), "`input[0]` must be an object, and is a text"),
            (json!({"role": "user"}), "`input` must be a text or a list of items"),
            (json!([{"content": "a"}]), "`input[0].type` is missing"),
            (json!([{"role": "tool", "content": "a"}]), "`input[0].role` is `tool`"),
            (json!([{"role": "user", "content": 5}]), "`input[0].content` must be a text or a list of parts"),
            (user(json!({"type": "input_image", "image_url": "data:"})), "`input[0].content[0].type` is an image"),
            (user(json!({"type": "input_file", "file_id": "f"})), "read text alone"),
            (user(json!({"type": "input_text"})), "`input[0].content[0].text` is missing"),
            (json!([{"type": "web_search_call", "id": "ws_1"}]), "`input[0].type` is `web_search_call`"),
            (json!([{"type": "item_reference", "id": "msg_67ccd2bed1ec"}]), "send the item itself"),
            (json!([{"type": "function_call", "call_id": "a", "arguments": "{}"}]), "`input[0].name` is missing"),
            (json!([{"type": "function_call_output", "output": "a"}]), "`input[0].call_id` is missing"),
        ] {
            let refused = parsed(&input).unwrap_err();
            assert!(refused.message.contains(told), "{input}: {}", refused.message);
            assert!(refused.param.is_some_and(|param| param.starts_with("input")), "{input}");
        }
    }
}
