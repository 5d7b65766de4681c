//! The lines between those that log and the thread that writes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines that wait to be written, within a limit. Nothing that adds a line waits.
#[derive(Debug)]
pub(crate) struct LineQueue {
    state: Mutex<QueuedLines>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct QueuedLines {
    bytes: Vec<u8>,
    /// Lines that had no place since the last batch was taken.
    dropped_lines: u64,
    /// Whether a batch was taken and is not written yet.
    is_writing: bool,
}

impl LineQueue {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new(), max_bytes }
    }

    /// Adds lines, or drops them if there is no place. After a drop, everything is dropped until the next batch, so that the
    /// number of the dropped lines stands at their place.
    pub(crate) fn push(&self, lines: &[u8]) {
        let mut state = self.lock();
        if state.dropped_lines > 0 || state.bytes.len().saturating_add(lines.len()) > self.max_bytes {
            state.dropped_lines = state.dropped_lines.saturating_add(count(lines));
        } else {
            state.bytes.extend_from_slice(lines);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Waits for lines and takes all of them into an empty buffer; how many were dropped behind them.
    pub(crate) fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let is_empty = |state: &mut QueuedLines| state.bytes.is_empty() && state.dropped_lines == 0;
        let mut state = self.filled.wait_while(self.lock(), is_empty).unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        std::mem::swap(&mut state.bytes, batch);
        std::mem::take(&mut state.dropped_lines)
    }

    /// The batch that was taken is written.
    pub(crate) fn finish_batch(&self) {
        let mut state = self.lock();
        state.is_writing = false;
        if state.bytes.is_empty() && state.dropped_lines == 0 {
            self.emptied.notify_all();
        }
    }

    /// Waits until everything is written, but no longer than this; whether it is.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.is_writing || !state.bytes.is_empty() || state.dropped_lines > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, QueuedLines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many lines a record has.
pub(crate) fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_place_is_counted_until_the_next_batch() {
        let queue = LineQueue::new(8);
        for line in ["one\n", "two\n", "three\n", "4\n"] {
            queue.push(line.as_bytes());
        }
        assert!(!queue.flush(Duration::ZERO), "nothing is written yet");
        let mut batch = Vec::new();
        assert_eq!((queue.take(&mut batch), batch.as_slice()), (2, &b"one\ntwo\n"[..]));
        queue.push(b"five\n");
        queue.finish_batch();
        batch.clear();
        assert_eq!((queue.take(&mut batch), batch.as_slice()), (0, &b"five\n"[..]));
        assert!(!queue.flush(Duration::ZERO), "the batch is not written yet");
        queue.finish_batch();
        assert!(queue.flush(Duration::ZERO));
    }

    #[test]
    fn a_record_beyond_the_limit_is_dropped_alone() {
        let (queue, mut batch) = (LineQueue::new(4), Vec::new());
        queue.push(b"a record\nof two lines\n");
        assert_eq!((queue.take(&mut batch), batch.len()), (2, 0));
        queue.push(b"abc\n");
        assert_eq!((queue.take(&mut batch), batch.len()), (0, 4));
    }
}
