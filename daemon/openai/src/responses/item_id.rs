//! The ids of a response's items, which name the task that has them.

use std::fmt;
use std::str::FromStr;

/// The id of an item: its kind, its task, and its number among the items of its kind there.
///
/// A client may refer to an item by it (`item_reference`) instead of sending the item: the task has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ItemId {
    pub(super) kind: ItemKind,
    pub(super) task: String,
    pub(super) number: usize,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemKind {
    Reasoning,
    Message,
    Call,
}

/// Text that is no id of an item of this daemon.
#[derive(Debug, thiserror::Error)]
#[error("is no id of an item that this daemon sent")]
pub(super) struct InvalidItemId;

impl ItemKind {
    const ALL: [Self; 3] = [Self::Reasoning, Self::Message, Self::Call];

    /// As OpenAI's ids begin: some clients tell the kinds of items apart by it.
    fn prefix(self) -> &'static str {
        match self {
            Self::Reasoning => "rs_",
            Self::Message => "msg_",
            Self::Call => "fc_",
        }
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}_{}", self.kind.prefix(), self.task, self.number)
    }
}

impl FromStr for ItemId {
    type Err = InvalidItemId;

    fn from_str(text: &str) -> Result<Self, InvalidItemId> {
        let kinds = ItemKind::ALL.into_iter();
        let (kind, rest) =
            kinds.filter_map(|kind| Some((kind, text.strip_prefix(kind.prefix())?))).next().ok_or(InvalidItemId)?;
        let (task, number) = rest.rsplit_once('_').ok_or(InvalidItemId)?;
        let number = number.parse().map_err(|_| InvalidItemId)?;
        if task.is_empty() {
            return Err(InvalidItemId);
        }
        Ok(Self { kind, task: task.to_owned(), number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for (kind, text) in
            [(ItemKind::Reasoning, "rs_a-b_0"), (ItemKind::Message, "msg_a-b_1"), (ItemKind::Call, "fc_a-b_12")]
        {
            let id: ItemId = text.parse().unwrap();
            assert_eq!((id.kind, id.task.as_str(), id.to_string().as_str()), (kind, "a-b", text));
        }
        for foreign in ["", "msg_", "msg_67ccd2bed1ec8190b14f964abc054267", "msg__1", "ws_a_1", "fc_a_-1"] {
            assert!(foreign.parse::<ItemId>().is_err(), "{foreign}");
        }
    }
}
