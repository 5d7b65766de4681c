//! The words that events are made of, which are on disk by their place here.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Part of the format: new words go to the end, and none is ever moved or taken out. A word that is missing here is written
/// out, so that nothing but room depends on it. The first 96 take a byte, the others two.
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
];

static PLACES: LazyLock<HashMap<&str, usize>> =
    LazyLock::new(|| WORDS.iter().enumerate().map(|(place, word)| (*word, place)).collect());

/// Where a word is.
pub(crate) fn place(text: &str) -> Option<usize> {
    PLACES.get(text).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_comes_twice() {
        assert_eq!(PLACES.len(), WORDS.len());
    }

    /// A word that moved would change what old journals say.
    #[test]
    fn words_stay_where_they_are() {
        for (at, word) in [(0, "kind"), (11, "step_started"), (29, "completed"), (54, "labels"), (95, "verdict")] {
            assert_eq!(WORDS[at], word);
        }
    }
}
