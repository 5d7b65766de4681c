//! The dictionary of the value encoding: words that are stored as their index here.

use std::sync::LazyLock;

/// Part of the format: new words are appended, and no word is ever moved or removed. A text that is not in the dictionary is
/// written out, so a missing word only costs space. The first 96 words take one byte, the others two.
pub(crate) const WORDS: &[&str] = &[
    "kind",
    "accepted",
    "step",
    "visit",
    "node",
    "number",
    "attempt",
    "trigger",
    "direct",
    "round",
    "role",
    "step_started",
    "step_finished",
    "step_failed",
    "output",
    "text",
    "json",
    "usage",
    "prompt",
    "computed",
    "timings",
    "queue",
    "prefill",
    "decode",
    "secs",
    "nanos",
    "took",
    "edge",
    "to",
    "completed",
    "failed",
    "cancelled",
    "resumed",
    "routed",
    "decision",
    "confidence",
    "otherwise",
    "signal",
    "embedding",
    "scores",
    "score",
    "tokens",
    "failure",
    "code",
    "message",
    "retry_after",
    "reason",
    "graph",
    "input",
    "catalog",
    "request",
    "class",
    "interactive",
    "batch",
    "labels",
    "waiting",
    "question",
    "schema",
    "deadline",
    "inner",
    "items",
    "start",
    "source",
    "run",
    "person",
    "cache",
    "fallback",
    "wrote",
    "value",
    "how",
    "instead_of",
    "forked",
    "task",
    "timeout",
    "idle",
    "context_overflow",
    "model_unavailable",
    "template",
    "condition",
    "no_edge",
    "join_stuck",
    "limit_steps",
    "limit_tokens",
    "limit_time",
    "queue_full",
    "interrupted",
    "output_invalid",
    "router",
    "no_answer",
    "internal",
    "item",
    "from",
    "name",
    "id",
    "type",
    "verdict",
    "set_aside",
    "owner",
    "erased",
    "finish",
    "stop",
    "stop_text",
    "length",
];

/// The words of each length with their indices: comparing a few words is faster than hashing a text.
static INDICES_BY_LENGTH: LazyLock<Vec<Vec<(&str, usize)>>> = LazyLock::new(|| {
    let longest = WORDS.iter().map(|word| word.len()).max().unwrap_or(0);
    let mut indices = vec![Vec::new(); longest + 1];
    WORDS.iter().enumerate().for_each(|(index, word)| indices[word.len()].push((*word, index)));
    indices
});

/// The index of a word.
pub(crate) fn index_of(text: &str) -> Option<usize> {
    INDICES_BY_LENGTH.get(text.len())?.iter().find(|(word, _)| *word == text).map(|(_, index)| *index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_occurs_twice() {
        let once = WORDS.iter().enumerate().all(|(index, word)| index_of(word) == Some(index));
        assert!(once && index_of("no word").is_none() && index_of(&"x".repeat(99)).is_none());
    }

    /// A moved word would change the content of existing journals.
    #[test]
    fn words_keep_their_indices() {
        for (index, word) in [
            (0, "kind"),
            (11, "step_started"),
            (29, "completed"),
            (54, "labels"),
            (95, "verdict"),
            (98, "erased"),
            (102, "length"),
        ] {
            assert_eq!(WORDS[index], word);
        }
    }
}
