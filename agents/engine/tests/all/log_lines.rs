//! Log lines about a request say what it belongs to.

use std::io;
use std::sync::{Arc, Mutex};

use artel_engine::backend::{DecodeError, EngineLimits};
use artel_engine::scripted::ScriptedBackend;
use artel_engine::{Chunk, EngineHandle, Options, Request, RequestOrigin};
use serde_json::Value;
use tracing::Level;

use crate::requests::ask;

const LIMITS: EngineLimits = EngineLimits {
    context_tokens: 256,
    sequences: 2,
    batch_tokens: 32,
    prefill_multiple: 1,
    can_truncate_kv: true,
    can_shift: true,
};

/// The log of all tests of this binary.
#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogBuffer {
    /// The messages of the lines about a task, each with its span.
    fn lines_about(&self, task: &str) -> Vec<(String, Value)> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let about = records.filter(|record| record["span"]["task"] == task);
        about.map(|record| (record["fields"]["message"].as_str().unwrap().to_owned(), record["span"].clone())).collect()
    }
}

fn ask_for(task: &str, text: &str) -> Request {
    Request { origin: RequestOrigin { task: Some(task.into()), step: Some("draft-1".into()), role: None }, ..ask(text) }
}

#[tokio::test]
async fn lines_about_a_request_name_its_task_its_step_and_the_model() {
    let log = LogBuffer::default();
    let writer = log.clone();
    // The engine's thread logs too, so that a subscriber of this thread is not enough.
    let subscriber = tracing_subscriber::fmt().json().with_max_level(Level::DEBUG).with_writer(move || writer.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let faults = |_, batch: &[artel_engine::backend::BatchToken]| {
        let is_bad = batch.iter().any(|token| token.token.0 == '!' as i32);
        is_bad.then(|| DecodeError::Batch("it hurts".to_owned()))
    };
    let model = ScriptedBackend::new(LIMITS, |_| "well".to_owned()).with_faults(faults);
    let engine = EngineHandle::spawn("tiny", Options::default(), || Ok(model)).await.unwrap();
    for (task, text) in [("task-well", "hello"), ("task-ill", "hello!")] {
        let mut stream = engine.generate(ask_for(task, text)).await.unwrap();
        while !matches!(stream.recv().await, None | Some(Chunk::Finished(_) | Chunk::Failed(_))) {}
    }
    let messages = |task| log.lines_about(task).into_iter().map(|(message, _)| message).collect::<Vec<_>>();
    assert_eq!(messages("task-well"), ["the request is admitted to a slot", "the request is finished"]);
    assert_eq!(messages("task-ill"), ["the request is admitted to a slot", "the request failed"]);
    for (_, span) in log.lines_about("task-well") {
        assert_eq!((&span["step"], &span["model"], span.get("role")), (&"draft-1".into(), &"tiny".into(), None));
    }
}
