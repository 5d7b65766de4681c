//! Where the text of a prompt's last message begins, remembered for prompts with the same instructions. No text is kept.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use artel_engine::{Message, ToolSet};
use serde_json::{Map, Value};

/// The most prompts that are remembered: the roles of a large crew.
const MAX_REMEMBERED_ENTRIES: usize = 256;

/// What a prompt is rendered from, without the text of its last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrefixKey(u64);

impl PrefixKey {
    pub(crate) fn of(
        messages: &[Message],
        kwargs: &Map<String, Value>,
        tools: Option<&ToolSet>,
        reasons: bool,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        reasons.hash(&mut hasher);
        for (at, message) in messages.iter().enumerate() {
            (message.role as u8).hash(&mut hasher);
            for call in message.calls.iter().chain(&message.answers) {
                (&call.id, &call.name, &call.arguments).hash(&mut hasher);
            }
            if at + 1 < messages.len() {
                message.text.hash(&mut hasher);
            }
        }
        kwargs.iter().for_each(|(name, value)| (name, value.to_string()).hash(&mut hasher));
        if let Some(tools) = tools {
            tools.single.hash(&mut hasher);
            format!("{:?}", tools.choice).hash(&mut hasher);
            let told = tools.tools.iter().map(|tool| (&tool.name, &tool.description, tool.parameters.to_string()));
            told.for_each(|tool| tool.hash(&mut hasher));
        }
        Self(hasher.finish())
    }
}

/// The lengths in bytes of the prefixes of some prompts, and their hashes.
#[derive(Default)]
pub(crate) struct PrefixLengths(Mutex<VecDeque<(PrefixKey, usize, u64)>>);

impl PrefixLengths {
    /// The length of a prompt's prefix, if this text begins with it.
    pub(crate) fn get(&self, key: PrefixKey, text: &str) -> Option<usize> {
        let known = self.entries().iter().find(|(other, ..)| *other == key).copied();
        let (_, bytes, hash) = known?;
        text.get(..bytes).is_some_and(|prefix| hashed(prefix) == hash).then_some(bytes)
    }

    pub(crate) fn insert(&self, key: PrefixKey, prefix: &str) {
        let mut entries = self.entries();
        entries.retain(|(other, ..)| *other != key);
        if entries.len() == MAX_REMEMBERED_ENTRIES {
            entries.pop_front();
        }
        entries.push_back((key, prefix.len(), hashed(prefix)));
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<(PrefixKey, usize, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hashed(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// How many bytes two texts begin with that are the same characters.
pub(crate) fn common_text(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    a.floor_char_boundary(same)
}

#[cfg(test)]
mod tests {
    use artel_engine::ChatRole;

    use super::*;

    fn key(instructions: &str, question: &str) -> PrefixKey {
        let message = |role, text: &str| Message::new(role, text);
        let messages = [message(ChatRole::System, instructions), message(ChatRole::User, question)];
        PrefixKey::of(&messages, &Map::new(), None, true)
    }

    #[test]
    fn a_prefix_is_remembered_for_the_same_instructions_and_text() {
        let lengths = PrefixLengths::default();
        lengths.insert(key("a", "x"), "a: ");
        assert_eq!(lengths.get(key("a", "y"), "a: y"), Some(3));
        assert_eq!(lengths.get(key("a", "y"), "b: y"), None, "the template has told another date");
        assert_eq!(lengths.get(key("b", "y"), "a: y"), None);
        (0..MAX_REMEMBERED_ENTRIES).for_each(|at| lengths.insert(key(&at.to_string(), ""), ""));
        assert_eq!(lengths.get(key("a", "y"), "a: y"), None);
    }

    #[test]
    fn texts_have_whole_characters_in_common() {
        assert_eq!(common_text("a\u{E000}", "a\u{E001}"), 1);
        assert_eq!(common_text("ab", "ab"), 2);
    }
}
