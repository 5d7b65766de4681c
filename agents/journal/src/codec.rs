//! Events and ids as the database has them.

use std::collections::BTreeMap;
use std::path::Path;

use artel_task::event::Timestamp;
use artel_task::{Event, Kind, Seq, TaskId};

use crate::Error;

/// The columns `at` and `body` of an event; its task and number are the key.
pub(crate) struct Stored {
    pub(crate) at: i64,
    pub(crate) body: String,
}

/// Refuses what could not be read back: an event that is on disk and unreadable would make its task unreadable.
pub(crate) fn encode(event: &Event) -> Result<Stored, Error> {
    let unstorable = |why: String| Error::Unstorable { task: event.task, seq: event.seq, why };
    let at = i64::try_from(event.at.0).map_err(|_| unstorable(format!("no clock shows {} ms", event.at.0)))?;
    let body = serde_json::to_string(&event.kind).map_err(|e| unstorable(e.to_string()))?;
    if may_be_unreadable(&event.kind) {
        let read: Kind = serde_json::from_str(&body).map_err(|e| unstorable(format!("not readable again: {e}")))?;
        if read != event.kind {
            return Err(unstorable("it would read differently".to_owned()));
        }
    }
    Ok(Stored { at, body })
}

/// JSON has no NaN and no infinity, and its reader stops at a depth of 128; everything else that events hold survives.
fn may_be_unreadable(kind: &Kind) -> bool {
    match kind {
        Kind::Routed { .. } => true,
        Kind::StepFinished { output, .. } | Kind::Completed { output, .. } => output.json.is_some(),
        Kind::StepStarted { inner, .. } => inner.is_some(),
        Kind::Waiting { schema, .. } => schema.is_some(),
        _ => false,
    }
}

pub(crate) fn decode(path: &Path, task: TaskId, seq: i64, at: i64, body: &str) -> Result<Event, Error> {
    let corrupt = |what: String| corrupt(path, format!("event {seq} of task {task}: {what}"));
    let kind = serde_json::from_str(body).map_err(|e| corrupt(e.to_string()))?;
    let seq = u64::try_from(seq).map_err(|e| corrupt(e.to_string()))?;
    let at = u64::try_from(at).map_err(|e| corrupt(e.to_string()))?;
    Ok(Event { task, seq: Seq(seq), at: Timestamp(at), kind })
}

/// Labels as the database has them, both where they are kept and where they are looked for.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).expect("a map of texts is always JSON")
}

pub(crate) fn task_id(path: &Path, bytes: &[u8]) -> Result<TaskId, Error> {
    let bytes = bytes.try_into().map_err(|_| corrupt(path, format!("a task id of {} bytes", bytes.len())))?;
    Ok(TaskId::from_bytes(bytes))
}

pub(crate) fn corrupt(path: &Path, what: String) -> Error {
    Error::Corrupt { path: path.to_owned(), what }
}
