//! Items that a client refers to instead of sending them: their tasks have them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use artel_proto::v1;
use artel_proto::v1::ChatRole;
use prost_types::FieldMask;
use tonic::Code;

use super::item_id::{ItemId, ItemKind};
use super::items::{InputItem, PlacedItem, message};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::field_names::FieldNames;
use crate::services::Services;

/// The tasks that one request may refer to: AI SDK refers to each text of a conversation, which has a task for each turn.
const MAX_REFERENCED_TASKS: usize = 512;
/// The bytes of their texts and calls together: as much text as a conversation may have.
const MAX_REFERENCED_BYTES: usize = 1024 * 1024;

/// The same items, with what references mean in their places. Found are the tasks that the caller may see: its own or, with
/// `read:all`, as an admin or the owner, those of others.
pub(super) async fn resolved<S: Services>(
    items: Vec<PlacedItem>,
    services: &S,
    call: &Call,
) -> Result<Vec<PlacedItem>, ApiError> {
    let mut outputs: BTreeMap<String, v1::Output> = BTreeMap::new();
    // What is kept of tasks, and what of it the items have: one text may be referred to many times.
    let (mut kept_bytes, mut item_bytes) = (0, 0);
    let mut resolved = Vec::with_capacity(items.len());
    for PlacedItem { place, item } in items {
        let InputItem::Reference(id) = item else {
            resolved.push(PlacedItem { place, item });
            continue;
        };
        let known = outputs.len();
        let output = match outputs.entry(id.task.clone()) {
            _ if id.kind == ItemKind::Reasoning => continue,
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(_) if known >= MAX_REFERENCED_TASKS => {
                let what =
                    format!("refers to more than {MAX_REFERENCED_TASKS} earlier responses: send the items themselves");
                return Err(ApiError::invalid("input", what));
            }
            Entry::Vacant(vacant) => {
                let output = output_of(&id, place, services, call).await?;
                kept_bytes += bytes_of(&output.text, &output.calls);
                vacant.insert(output)
            }
        };
        let item = item_of(output, &id, place)?;
        item_bytes += match &item {
            Some(InputItem::Message(message)) => message.text.len(),
            Some(InputItem::Call(call)) => bytes_of("", std::slice::from_ref(call)),
            Some(InputItem::Reference(_)) | None => 0,
        };
        let bytes = kept_bytes.max(item_bytes);
        if bytes > MAX_REFERENCED_BYTES {
            let what =
                format!("refers to earlier responses of {bytes} bytes so far, the limit is {MAX_REFERENCED_BYTES}");
            return Err(ApiError::invalid("input", what));
        }
        resolved.extend(item.map(|item| PlacedItem { place, item }));
    }
    Ok(resolved)
}

/// The text and the calls of a task's output; the rest of it is dropped.
async fn output_of<S: Services>(id: &ItemId, place: usize, services: &S, call: &Call) -> Result<v1::Output, ApiError> {
    let read_mask = Some(FieldMask { paths: ["result", "erase_time"].map(str::to_owned).to_vec() });
    let request = v1::GetTaskRequest { task_id: id.task.clone(), read_mask, max_bytes: 0 };
    let task = services.get(call.to_service(request)).await.map_err(|status| match status.code() {
        Code::NotFound => lost(id, place, "whose response is not retained"),
        Code::InvalidArgument => lost(id, place, "which is no id of an item that this daemon sent"),
        _ => ApiError::from_status(&status, &FieldNames::default()),
    })?;
    let task = task.into_inner();
    if task.erase_time.is_some() {
        return Err(lost(id, place, "whose response was erased"));
    }
    let output = task.result.ok_or_else(|| lost(id, place, "whose response was not completed"))?;
    Ok(v1::Output { text: output.text, calls: output.calls, ..v1::Output::default() })
}

fn bytes_of(text: &str, calls: &[v1::ToolCall]) -> usize {
    let calls = calls.iter().map(|call| call.id.len() + call.name.len() + call.arguments.len());
    text.len() + calls.sum::<usize>()
}

/// The item, unless another one of its task has its text already.
fn item_of(output: &v1::Output, id: &ItemId, place: usize) -> Result<Option<InputItem>, ApiError> {
    match id.kind {
        ItemKind::Reasoning => Ok(None),
        // The text of all messages of a response is that of its task.
        ItemKind::Message if id.number > 0 => Ok(None),
        ItemKind::Message => Ok(Some(InputItem::Message(message(ChatRole::Assistant, output.text.clone())))),
        ItemKind::Call => match output.calls.get(id.number) {
            Some(call) => Ok(Some(InputItem::Call(call.clone()))),
            None => Err(lost(id, place, "whose response has no such call")),
        },
    }
}

fn lost(id: &ItemId, place: usize, why: &str) -> ApiError {
    ApiError::invalid(format!("input[{place}].id"), format!("is `{id}`, {why}: send the item itself"))
}
