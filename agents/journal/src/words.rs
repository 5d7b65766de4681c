//! The words that events are made of, which are on disk by their place here.

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

/// The words of each length, with their places: to look at a few is less work than to hash a text.
static PLACES: LazyLock<Vec<Vec<(&str, usize)>>> = LazyLock::new(|| {
    let longest = WORDS.iter().map(|word| word.len()).max().unwrap_or(0);
    let mut places = vec![Vec::new(); longest + 1];
    WORDS.iter().enumerate().for_each(|(place, word)| places[word.len()].push((*word, place)));
    places
});

/// Where a word is.
pub(crate) fn place(text: &str) -> Option<usize> {
    PLACES.get(text.len())?.iter().find(|(word, _)| *word == text).map(|(_, place)| *place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_comes_twice() {
        let once = WORDS.iter().enumerate().all(|(at, word)| place(word) == Some(at));
        assert!(once && place("no word").is_none() && place(&"x".repeat(99)).is_none());
    }

    /// A word that moved would change what old journals say.
    #[test]
    fn words_stay_where_they_are() {
        for (at, word) in [(0, "kind"), (11, "step_started"), (29, "completed"), (54, "labels"), (95, "verdict")] {
            assert_eq!(WORDS[at], word);
        }
    }
}
