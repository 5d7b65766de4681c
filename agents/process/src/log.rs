//! What a process writes to standard error: its log, which becomes part of ours, and the words of those who cannot log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// Under this name stands what engines say, which they have filtered themselves.
pub const TARGET: &str = "engine";
/// Last words that are kept: an abort of llama.cpp tells its place in one line, and a stack that says less follows.
const WORDS: usize = 4;
/// Characters of a line that are kept.
const LENGTH: u64 = 4096;

/// The lines that were no log, the first ones since the last line that was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Words>>);

#[derive(Debug, Default)]
struct Words {
    said: VecDeque<String>,
    /// What was logged last, if that was an error: ggml logs what a GPU said, and aborts with fewer words.
    error: Option<String>,
}

impl Lines {
    /// The words that were said last.
    pub(crate) fn last(&self) -> Vec<String> {
        self.0.lock().map(|words| words.said.iter().cloned().collect()).unwrap_or_default()
    }

    /// Reads to the end; `model` says whose words these are.
    pub(crate) async fn read(self, model: String, from: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(LENGTH).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.line(&model, String::from_utf8_lossy(&line).trim_end()),
            }
        }
    }

    fn line(&self, model: &str, line: &str) {
        if line.is_empty() {
            return;
        }
        let Ok(mut words) = self.0.lock() else { return };
        if let Some(record) = serde_json::from_str::<Value>(line).ok().filter(Value::is_object) {
            let told = pass_on(model, &record);
            let error = record.get("level").and_then(Value::as_str) == Some("ERROR");
            *words = Words { said: VecDeque::new(), error: error.then_some(told) };
        } else {
            let line = without_directory(line);
            tracing::warn!(target: TARGET, model, "{line}");
            let before = words.error.take();
            words.said.extend(before);
            if words.said.len() < WORDS {
                words.said.push_back(line.to_owned());
            }
        }
    }
}

/// Aborts of llama.cpp begin with the place in its source, with a directory that only whoever compiled it knows.
fn without_directory(line: &str) -> &str {
    let place = line.split(':').next().filter(|place| line.starts_with('/') && place.contains('.'));
    place.and_then(|place| place.rfind('/')).map_or(line, |at| &line[at + 1..])
}

/// A record of a process's log as one of ours, and what it says.
fn pass_on(model: &str, record: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fields = record.get("fields").and_then(Value::as_object);
    let message = fields.and_then(|fields| fields.get("message")).map(text).unwrap_or_default();
    let others: Vec<String> = fields
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "message")
        .map(|(key, value)| format!(" {key}={}", text(value)))
        .collect();
    let line = format!("{}{}", message.trim_end(), others.concat());
    match record.get("level").and_then(Value::as_str) {
        Some("ERROR") => tracing::error!(target: TARGET, model, "{line}"),
        Some("WARN") => tracing::warn!(target: TARGET, model, "{line}"),
        Some("INFO") => tracing::info!(target: TARGET, model, "{line}"),
        Some("DEBUG") => tracing::debug!(target: TARGET, model, "{line}"),
        _ => tracing::trace!(target: TARGET, model, "{line}"),
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_words_after_the_log_are_kept() {
        let lines = Lines::default();
        let text = "before\n{\"level\":\"INFO\",\"fields\":{\"message\":\"loading\"}}\n/some/where/ggml.c:7: GGML_ASSERT(x) failed\n\na\nb\nc\nd\n";
        lines.clone().read("m".to_owned(), text.as_bytes()).await;
        assert_eq!(lines.last(), ["ggml.c:7: GGML_ASSERT(x) failed", "a", "b", "c"]);
    }

    #[tokio::test]
    async fn an_error_that_was_logged_before_the_last_words_is_one_of_them() {
        let lines = Lines::default();
        let record =
            |level: &str, words: &str| format!("{{\"level\":\"{level}\",\"fields\":{{\"message\":\"{words}\"}}}}\n");
        let logged =
            [record("ERROR", "of old"), record("INFO", "a batch"), record("ERROR", "CUDA error: out of memory")];
        let text = format!("{}/some/where/ggml-cuda.cu:98: CUDA error\n", logged.concat());
        lines.clone().read("m".to_owned(), text.as_bytes()).await;
        assert_eq!(lines.last(), ["CUDA error: out of memory", "ggml-cuda.cu:98: CUDA error"]);
        lines.clone().read("m".to_owned(), record("ERROR", "of no moment").as_bytes()).await;
        assert!(lines.last().is_empty(), "it did not die of it");
    }
}
