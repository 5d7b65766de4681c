//! The stored form of events and ids.
//!
//! The events of one request are one row: a checksum, and then for each event its time and its kind, encoded together by
//! [`value`].

mod dictionary;
mod value;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use artel_task::event::Timestamp;
use artel_task::{Event, EventKind, Seq, TaskId};

use crate::{Damage, Error, RowDamage, UnstorableReason};
use value::{CorruptValue, ValueDecoder, ValueEncoder};

/// The checksum before the events of a row.
const CHECKSUM_BYTES: usize = 4;

/// Encodes successive events of one task for the column `body`.
///
/// Refuses events that could not be decoded: such an event on disk would make its task unreadable.
pub(crate) fn encode(events: &[Event]) -> Result<Vec<u8>, Error> {
    let mut encoder = ValueEncoder::default();
    for event in events {
        let unstorable = |reason| Error::Unstorable { task: event.task, seq: event.seq, reason };
        let at = i64::try_from(event.at.0).map_err(|_| unstorable(UnstorableReason::Time(event.at.0)))?;
        encoder.varint(zigzag(at.wrapping_sub(created_ms(event.task))));
        if !needs_read_back(&event.kind) {
            encoder.serialize(&event.kind).map_err(|e| unstorable(UnstorableReason::Encoding(Arc::new(e))))?;
            continue;
        }
        let value = serde_json::to_value(&event.kind);
        let value = value.map_err(|e| unstorable(UnstorableReason::Encoding(Arc::new(e))))?;
        encoder.value(&value).map_err(|_| unstorable(UnstorableReason::Nesting))?;
        let read: EventKind =
            serde_json::from_value(value).map_err(|e| unstorable(UnstorableReason::Unreadable(e.into())))?;
        if read != event.kind {
            return Err(unstorable(UnstorableReason::Altered));
        }
    }
    let encoded = encoder.into_bytes();
    let Some(last) = events.last() else { return Ok(Vec::new()) };
    let mut body = Vec::with_capacity(CHECKSUM_BYTES + encoded.len());
    body.extend(checksum(last.task, last.seq.0, &encoded).to_le_bytes());
    body.extend(encoded);
    Ok(body)
}

/// Checks whether an event can be stored. A row of storable events is storable.
pub(crate) fn check_storable(event: &Event) -> Result<(), Error> {
    if needs_read_back(&event.kind) { encode(std::slice::from_ref(event)).map(drop) } else { Ok(()) }
}

/// Whether an event may be read back differently: JSON has no NaN, no infinity and no absent value beside null. Events
/// without free values have none of them.
fn needs_read_back(kind: &EventKind) -> bool {
    match kind {
        EventKind::Accepted(_) | EventKind::StepFailed { .. } | EventKind::Resumed | EventKind::SetAside { .. } => {
            false
        }
        EventKind::StepStarted { nested, .. } => nested.is_some(),
        EventKind::Waiting { schema, .. } => schema.is_some(),
        EventKind::StepFinished { output, .. } | EventKind::Completed { output, .. } => output.json.is_some(),
        _ => true,
    }
}

/// Decodes the events of a row; `last` is the sequence number of the last one.
pub(crate) fn decode(path: &Path, task: TaskId, last: i64, body: &[u8]) -> Result<Vec<Event>, Error> {
    let corrupt = |damage| corrupt(path, Damage::Events { task, last, damage });
    let corrupt_value = |_: CorruptValue| corrupt(RowDamage::Encoding);
    let last = u64::try_from(last).map_err(|_| corrupt(RowDamage::Number))?;
    let (expected, encoded) = body.split_at_checked(CHECKSUM_BYTES).ok_or_else(|| corrupt(RowDamage::Truncated))?;
    if expected != checksum(task, last, encoded).to_le_bytes() {
        return Err(corrupt(RowDamage::Checksum));
    }
    let mut decoder = ValueDecoder::new(encoded);
    let mut kinds = Vec::new();
    while !decoder.is_empty() {
        let at = created_ms(task).wrapping_add(unzigzag(decoder.varint().map_err(corrupt_value)?));
        let at = u64::try_from(at).map_err(|_| corrupt(RowDamage::Time))?;
        let value = decoder.value().map_err(corrupt_value)?;
        kinds.push((at, serde_json::from_value::<EventKind>(value).map_err(|e| corrupt(RowDamage::Event(e.into())))?));
    }
    let before = last.checked_sub(kinds.len() as u64).ok_or_else(|| corrupt(RowDamage::Count))?;
    let event = |((at, kind), seq)| Event { task, seq: Seq(seq), at: Timestamp(at), kind };
    Ok(kinds.into_iter().zip(before + 1..).map(event).collect())
}

/// Covers the position too: a row in another place is as wrong as one with other bytes.
fn checksum(task: TaskId, last: u64, encoded: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(task.as_bytes());
    hasher.update(&last.to_le_bytes());
    hasher.update(encoded);
    hasher.finalize()
}

/// The time in a task's id. The times of its events are stored relative to it, as small numbers.
fn created_ms(task: TaskId) -> i64 {
    task.unix_millis().cast_signed()
}

fn zigzag(n: i64) -> u64 {
    (n << 1 ^ n >> 63).cast_unsigned()
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

/// Labels in their stored form, for inserts and for filters.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).expect("a map of strings is always valid JSON")
}

pub(crate) fn task_id(path: &Path, bytes: &[u8]) -> Result<TaskId, Error> {
    let bytes = bytes.try_into().map_err(|_| corrupt(path, Damage::IdLength(bytes.len())))?;
    Ok(TaskId::from_bytes(bytes))
}

pub(crate) fn corrupt(path: &Path, detail: Damage) -> Error {
    Error::Corrupt { path: path.to_owned(), detail }
}
