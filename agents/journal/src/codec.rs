//! Events and ids as the database has them.
//!
//! What one request appends is one row: a checksum, and then for each event its time and its kind, packed together.

use std::collections::BTreeMap;
use std::path::Path;

use artel_task::event::Timestamp;
use artel_task::{Event, EventKind, Seq, TaskId};

use crate::Error;
use crate::pack::{Garbled, Packer, Unpacker};

/// Bytes of the checksum before each row's events.
const SUM: usize = 4;

/// Events of one task that follow each other, as the column `body` has them.
///
/// Refuses what could not be read back: an event that is on disk and unreadable would make its task unreadable.
pub(crate) fn encode(events: &[Event]) -> Result<Vec<u8>, Error> {
    let mut packer = Packer::default();
    for event in events {
        let unstorable = |why: String| Error::Unstorable { task: event.task, seq: event.seq, why };
        let at = i64::try_from(event.at.0).map_err(|_| unstorable(format!("no clock shows {} ms", event.at.0)))?;
        packer.number(zigzag(at.wrapping_sub(birth(event.task))));
        if !may_read_differently(&event.kind) {
            packer.fact(&event.kind).map_err(|e| unstorable(e.to_string()))?;
            continue;
        }
        let value = serde_json::to_value(&event.kind).map_err(|e| unstorable(e.to_string()))?;
        packer.value(&value).map_err(|_| unstorable("it nests too deep".to_owned()))?;
        let read: EventKind = serde_json::from_value(value).map_err(|e| unstorable(format!("not readable again: {e}")))?;
        if read != event.kind {
            return Err(unstorable("it would read differently".to_owned()));
        }
    }
    let packed = packer.bytes();
    let Some(last) = events.last() else { return Ok(Vec::new()) };
    let mut body = Vec::with_capacity(SUM + packed.len());
    body.extend(sum(last.task, last.seq.0, &packed).to_le_bytes());
    body.extend(packed);
    Ok(body)
}

/// Whether an event can be stored in its place. What a row holds is known to be storable one by one.
pub(crate) fn check(event: &Event) -> Result<(), Error> {
    if may_read_differently(&event.kind) { encode(std::slice::from_ref(event)).map(drop) } else { Ok(()) }
}

/// JSON has no NaN, no infinity and no nothing beside null; events without free values have none of them either.
fn may_read_differently(kind: &EventKind) -> bool {
    match kind {
        EventKind::Accepted(_) | EventKind::StepFailed { .. } | EventKind::Resumed => false,
        EventKind::StepStarted { nested: inner, .. } => inner.is_some(),
        EventKind::Waiting { schema, .. } => schema.is_some(),
        EventKind::StepFinished { output, .. } | EventKind::Completed { output, .. } => output.json.is_some(),
        _ => true,
    }
}

/// The events of a row, of which the last has this number.
pub(crate) fn decode(path: &Path, task: TaskId, last: i64, body: &[u8]) -> Result<Vec<Event>, Error> {
    let corrupt = |what: String| corrupt(path, format!("the events of task {task} up to {last}: {what}"));
    let garbled = |_: Garbled| corrupt("they are garbled".to_owned());
    let last = u64::try_from(last).map_err(|e| corrupt(e.to_string()))?;
    let (expected, packed) = body.split_at_checked(SUM).ok_or_else(|| corrupt("they are cut off".to_owned()))?;
    if expected != sum(task, last, packed).to_le_bytes() {
        return Err(corrupt("their checksum is wrong".to_owned()));
    }
    let mut unpacker = Unpacker::new(packed);
    let mut facts = Vec::new();
    while !unpacker.is_empty() {
        let at = birth(task).wrapping_add(unzigzag(unpacker.number().map_err(garbled)?));
        let at = u64::try_from(at).map_err(|e| corrupt(e.to_string()))?;
        let value = unpacker.value().map_err(garbled)?;
        facts.push((at, serde_json::from_value::<EventKind>(value).map_err(|e| corrupt(e.to_string()))?));
    }
    let before = last.checked_sub(facts.len() as u64).ok_or_else(|| corrupt("they are too many".to_owned()))?;
    let event = |((at, kind), seq)| Event { task, seq: Seq(seq), at: Timestamp(at), kind };
    Ok(facts.into_iter().zip(before + 1..).map(event).collect())
}

/// A row in another place is as wrong as one with other bytes.
fn sum(task: TaskId, last: u64, packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(task.as_bytes());
    hasher.update(&last.to_le_bytes());
    hasher.update(packed);
    hasher.finalize()
}

/// The time in a task's id, in milliseconds since 1970: the times of its events lie close to it.
fn birth(task: TaskId) -> i64 {
    task.as_bytes()[..6].iter().fold(0, |time, byte| time << 8 | i64::from(*byte))
}

fn zigzag(n: i64) -> u64 {
    (n << 1 ^ n >> 63).cast_unsigned()
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
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
