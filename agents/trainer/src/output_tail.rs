//! The last lines of what a process writes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// Kept lines: the end of a Python traceback with the error's own lines, or all causes that uv names.
const MAX_TAIL_LINES: usize = 40;
/// Bytes of a line; a longer one is split.
const MAX_LINE_BYTES: u64 = 1024;

/// The last lines of a stream, while it is read and after.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutputTail(Arc<Mutex<VecDeque<String>>>);

impl OutputTail {
    /// The kept lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Reads to the end of the stream, and tells of each line that is not empty.
    pub(crate) async fn read(self, from: impl AsyncRead + Unpin, mut on_line: impl FnMut(&str)) {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text: String = String::from_utf8_lossy(&line).trim_end().chars().filter(|c| !c.is_control()).collect();
            if !text.is_empty() {
                on_line(&text);
                self.push(text);
            }
        }
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MAX_TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_and_long_ones_are_split() {
        let long = "x".repeat(3000);
        let text: String = (0..50).map(|n| format!("line {n}\n\n")).chain([long]).collect();
        let (tail, mut count) = (OutputTail::default(), 0);
        tail.clone().read(text.as_bytes(), |_| count += 1).await;
        let lines = tail.lines();
        assert_eq!((count, lines.len()), (53, MAX_TAIL_LINES));
        assert_eq!((lines[0].as_str(), lines[36].as_str(), lines[39].len()), ("line 13", "line 49", 3000 - 2048));
    }
}
