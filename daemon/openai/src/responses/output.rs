//! The items of a response's `output`.

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::item_id::{ItemId, ItemKind};

/// An item, as far as it is written.
#[derive(Debug, Clone)]
pub(super) struct OutputItem {
    pub(super) id: String,
    pub(super) content: ItemContent,
    pub(super) status: ItemStatus,
}

/// What an item has.
#[derive(Debug, Clone)]
pub(super) enum ItemContent {
    Reasoning { text: String },
    Message { text: String, logprobs: Vec<Value> },
    Call { call_id: String, name: String, arguments: String },
}

/// Whether more of an item comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemStatus {
    InProgress,
    Completed,
    /// Its end is cut off.
    Incomplete,
}

impl ItemContent {
    pub(super) fn kind(&self) -> ItemKind {
        match self {
            Self::Reasoning { .. } => ItemKind::Reasoning,
            Self::Message { .. } => ItemKind::Message,
            Self::Call { .. } => ItemKind::Call,
        }
    }

    /// Whether it may end here: the arguments of a call are JSON.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Reasoning { .. } | Self::Message { .. } => true,
            Self::Call { arguments, .. } => serde_json::from_str::<IgnoredAny>(arguments).is_ok(),
        }
    }
}

impl ItemStatus {
    fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

impl OutputItem {
    /// The item of a task that has `number` items of this kind already.
    pub(super) fn begin(task: &str, number: usize, content: ItemContent) -> Self {
        let id = ItemId { kind: content.kind(), task: task.to_owned(), number };
        Self { id: id.to_string(), content, status: ItemStatus::InProgress }
    }

    /// As it stands in `output`. While it is written, it has no parts: they come by events of their own.
    pub(super) fn to_json(&self) -> Value {
        let Self { id, content, status } = self;
        let is_begun = *status == ItemStatus::InProgress;
        match content {
            ItemContent::Reasoning { .. } => {
                let summary = if is_begun { Vec::new() } else { self.part().into_iter().collect() };
                json!({"id": id, "type": "reasoning", "status": status.name(), "summary": summary})
            }
            ItemContent::Message { .. } => {
                let content: Vec<_> = if is_begun { Vec::new() } else { self.part().into_iter().collect() };
                json!({"id": id, "type": "message", "status": status.name(), "role": "assistant", "content": content})
            }
            ItemContent::Call { call_id, name, arguments } => json!({
                "id": id, "type": "function_call", "status": status.name(), "call_id": call_id, "name": name,
                "arguments": arguments,
            }),
        }
    }

    /// The part of an item that has parts, as far as it is written.
    pub(super) fn part(&self) -> Option<Value> {
        match &self.content {
            ItemContent::Reasoning { text } => Some(json!({"type": "summary_text", "text": text})),
            ItemContent::Message { text, logprobs } => {
                Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}))
            }
            ItemContent::Call { .. } => None,
        }
    }
}
