//! The standard error of an engine process: log records, which are forwarded to this process's log, and other output.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tracing::Span;

/// The tracing target of forwarded records, which the engine process has filtered already.
pub const LOG_TARGET: &str = "engine";
/// Kept lines of other output: an abort of llama.cpp prints its location first, and then a less useful stack.
const MAX_TAIL_LINES: usize = 4;
/// Bytes of a line; a longer one is split.
const MAX_LINE_BYTES: u64 = 4096;

/// The first lines that are not log records since the last log record.
#[derive(Debug, Clone, Default)]
pub(crate) struct StderrLog(Arc<Mutex<StderrTail>>);

#[derive(Debug, Default)]
struct StderrTail {
    lines: VecDeque<String>,
    /// The last log record, if it was an error: ggml logs the error of a GPU, and aborts with a shorter message.
    error: Option<String>,
}

impl StderrLog {
    /// The kept lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.0.lock().map(|tail| tail.lines.iter().cloned().collect()).unwrap_or_default()
    }

    /// Reads to the end of the stream; `model` is the name for the log.
    pub(crate) async fn read(self, model: String, from: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.line(&model, String::from_utf8_lossy(&line).trim_end()),
            }
        }
    }

    fn line(&self, model: &str, line: &str) {
        if line.is_empty() {
            return;
        }
        let Ok(mut tail) = self.0.lock() else { return };
        if let Some(record) = serde_json::from_str::<Value>(line).ok().filter(Value::is_object) {
            let text = forward(model, &record);
            let is_error = record.get("level").and_then(Value::as_str) == Some("ERROR");
            *tail = StderrTail { lines: VecDeque::new(), error: is_error.then_some(text) };
        } else {
            let line = without_directory(line);
            tracing::warn!(target: LOG_TARGET, model, "{line}");
            let error = tail.error.take();
            tail.lines.extend(error);
            if tail.lines.len() < MAX_TAIL_LINES {
                tail.lines.push_back(line.to_owned());
            }
        }
    }
}

/// Removes the build directory from the source location with which an abort message of llama.cpp begins.
fn without_directory(line: &str) -> &str {
    let location = line.split(':').next().filter(|location| line.starts_with('/') && location.contains('.'));
    location.and_then(|location| location.rfind('/')).map_or(line, |at| &line[at + 1..])
}

/// Forwards a log record of the engine process, in a span like that of the request it is about, and returns its text.
fn forward(model: &str, record: &Value) -> String {
    let _in_request = request_span(record).map(Span::entered);
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
        Some("ERROR") => tracing::error!(target: LOG_TARGET, model, "{line}"),
        Some("WARN") => tracing::warn!(target: LOG_TARGET, model, "{line}"),
        Some("INFO") => tracing::info!(target: LOG_TARGET, model, "{line}"),
        Some("DEBUG") => tracing::debug!(target: LOG_TARGET, model, "{line}"),
        _ => tracing::trace!(target: LOG_TARGET, model, "{line}"),
    }
    line
}

/// The span of the request that a record is about, as the engine opened it. The model is a field of every record.
fn request_span(record: &Value) -> Option<Span> {
    let fields = record.get("span").filter(|span| span.get("name").and_then(Value::as_str) == Some("request"))?;
    let text = |field: &str| fields.get(field).and_then(Value::as_str);
    let (task, step, role) = (text("task"), text("step"), text("role"));
    Some(tracing::info_span!(target: LOG_TARGET, "request", task, step, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_lines_after_the_last_log_record_are_kept() {
        let log = StderrLog::default();
        let text = "before\n{\"level\":\"INFO\",\"fields\":{\"message\":\"loading\"}}\n/some/where/ggml.c:7: GGML_ASSERT(x) failed\n\na\nb\nc\nd\n";
        log.clone().read("m".to_owned(), text.as_bytes()).await;
        assert_eq!(log.tail(), ["ggml.c:7: GGML_ASSERT(x) failed", "a", "b", "c"]);
    }

    #[tokio::test]
    async fn an_error_logged_just_before_the_last_lines_is_kept_too() {
        let log = StderrLog::default();
        let record = |level: &str, message: &str| {
            format!("{{\"level\":\"{level}\",\"fields\":{{\"message\":\"{message}\"}}}}\n")
        };
        let logged =
            [record("ERROR", "of old"), record("INFO", "a batch"), record("ERROR", "CUDA error: out of memory")];
        let text = format!("{}/some/where/ggml-cuda.cu:98: CUDA error\n", logged.concat());
        log.clone().read("m".to_owned(), text.as_bytes()).await;
        assert_eq!(log.tail(), ["CUDA error: out of memory", "ggml-cuda.cu:98: CUDA error"]);
        log.clone().read("m".to_owned(), record("ERROR", "of no moment").as_bytes()).await;
        assert!(log.tail().is_empty(), "an error record alone is not kept");
    }

    #[derive(Clone, Default)]
    struct ForwardedLog(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for ForwardedLog {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_about_a_request_is_forwarded_in_its_span() {
        let output = ForwardedLog::default();
        let writer = output.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let span = r#"{"model":"m","name":"request","step":"draft-1","task":"t"}"#;
            let log = StderrLog::default();
            log.line("m", &format!(r#"{{"level":"INFO","fields":{{"message":"admitted","slot":1}},"span":{span}}}"#));
            log.line("m", r#"{"level":"INFO","fields":{"message":"loading"}}"#);
        });
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [admitted, loading] = &records[..] else { panic!("{text}") };
        assert_eq!(admitted["fields"], serde_json::json!({"message": "admitted slot=1", "model": "m"}));
        assert_eq!(admitted["span"], serde_json::json!({"name": "request", "task": "t", "step": "draft-1"}));
        assert_eq!((&loading["fields"]["message"], loading.get("span")), (&"loading".into(), None));
    }
}
