//! The thread that writes the log.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::format::LineFormat;
use crate::line_queue::{LineQueue, count};

/// The delay after a stream was full that answers so instead of waiting, because another program made it so.
const FULL_STREAM_DELAY: Duration = Duration::from_millis(10);

/// Starts the thread, which runs as long as the process.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn spawn(queue: Arc<LineQueue>, format: LineFormat, output: impl Write + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("log".to_owned()).spawn(move || write_batches(&queue, format, output)).map(drop)
}

fn write_batches(queue: &LineQueue, format: LineFormat, mut output: impl Write) {
    let (mut lines, mut lost) = (Vec::new(), LostLines::default());
    loop {
        lines.clear();
        let dropped = queue.take(&mut lines);
        // A disk may be full, or a pipe closed: the daemon goes on, and says so when it can.
        lost = write_batch(&mut output, format, &lines, dropped, lost);
        queue.finish_batch();
    }
}

/// What earlier batches lost.
#[derive(Debug, Default, Clone, Copy)]
struct LostLines {
    /// Lines that were not written, or not whole.
    count: u64,
    /// Whether the last line that was written has no end.
    is_cut: bool,
}

/// Writes lines, with a line before them of what is lost, and one behind them of what was dropped there. Returns what is lost now.
fn write_batch(
    output: &mut impl Write,
    format: LineFormat,
    lines: &[u8],
    dropped_lines: u64,
    lost: LostLines,
) -> LostLines {
    let mut batch = if lost.is_cut { b"\n".to_vec() } else { Vec::new() };
    if lost.count > 0 {
        batch.extend(format.dropped(lost.count));
    }
    let start = batch.len();
    batch.extend(lines);
    if dropped_lines > 0 {
        batch.extend(format.dropped(dropped_lines));
    }
    let written = write(output, &batch);
    if written == batch.len() {
        return LostLines::default();
    }
    // A line that lacks its end alone gets it with the next batch.
    let reached = written + usize::from(batch[written] == b'\n');
    let earlier = if reached < start { lost.count } else { 0 };
    let unwritten = &lines[reached.saturating_sub(start).min(lines.len())..];
    let behind = if reached < batch.len() { dropped_lines } else { 0 };
    let count = earlier.saturating_add(count(unwritten)).saturating_add(behind);
    let is_cut = written.checked_sub(1).map_or(lost.is_cut, |last| batch[last] != b'\n');
    LostLines { count, is_cut }
}

/// Writes everything, or up to a failure; how many bytes were written.
fn write(output: &mut impl Write, batch: &[u8]) -> usize {
    let mut written = 0;
    while written < batch.len() {
        match output.write(&batch[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_STREAM_DELAY),
            Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// Nothing of a test takes longer.
    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    /// Writes what it was permitted to, and sends it.
    struct GatedOutput {
        permits: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl Write for GatedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            // Without a permit, a reader that stopped.
            self.permits.recv().unwrap_or(Ok(()))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated(max_bytes: usize) -> (Arc<LineQueue>, Sender<io::Result<()>>, Receiver<String>) {
        let queue = Arc::new(LineQueue::new(max_bytes));
        let ((permit, permits), (written, writes)) = (mpsc::channel(), mpsc::channel());
        spawn(queue.clone(), LineFormat::Text { color: false }, GatedOutput { permits, written }).unwrap();
        (queue, permit, writes)
    }

    #[test]
    fn a_stopped_reader_holds_nothing_up_and_learns_what_it_missed() {
        let (queue, permit, writes) = gated(16);
        queue.push(b"first\n");
        assert_eq!(writes.recv_timeout(TEST_TIMEOUT).unwrap(), "first\n");
        // The thread waits for its reader now.
        for _ in 0..1000 {
            queue.push(b"more\n");
        }
        assert!(!queue.flush(Duration::from_millis(1)));
        permit.send(Ok(())).unwrap();
        let rest = writes.recv_timeout(TEST_TIMEOUT).unwrap();
        assert!(rest.starts_with("more\nmore\nmore\n2") && rest.ends_with("lines=997\n"), "{rest}");
        permit.send(Ok(())).unwrap();
        assert!(queue.flush(TEST_TIMEOUT));
    }

    /// Takes so many bytes, and then none until more are permitted.
    struct LimitedOutput {
        written: Vec<u8>,
        left_bytes: usize,
    }

    impl Write for LimitedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.left_bytes);
            self.left_bytes -= taken;
            self.written.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn wherever_a_disk_becomes_full_each_line_is_whole_or_counted() {
        let format = LineFormat::Journald;
        let notice = format.dropped(1).len();
        for limit in 0..30 + 2 * notice {
            let mut output = LimitedOutput { written: Vec::new(), left_bytes: limit };
            let mut lost = LostLines::default();
            for lines in ["one\ntwo\n", "three\n"] {
                lost = write_batch(&mut output, format, lines.as_bytes(), 1, lost);
            }
            output.left_bytes = usize::MAX;
            lost = write_batch(&mut output, format, b"four\n", 0, lost);
            assert_eq!((lost.count, lost.is_cut), (0, false));
            let text = String::from_utf8(output.written).unwrap();
            let whole = text.lines().filter(|line| ["one", "two", "three", "four"].contains(line)).count() as u64;
            let counted: u64 = text.lines().filter_map(|line| line.rsplit_once("lines=")?.1.parse::<u64>().ok()).sum();
            // Four lines, and two that had no place.
            assert_eq!(whole + counted, 6, "{limit}: {text}");
            assert!(text.ends_with("four\n"), "{limit}: {text}");
        }
    }

    #[test]
    fn what_a_full_disk_lost_is_counted_in_the_next_batch() {
        let (queue, permit, writes) = gated(1000);
        queue.push(b"lost\nlost too\n");
        permit.send(Err(ErrorKind::StorageFull.into())).unwrap();
        assert!(queue.flush(TEST_TIMEOUT), "a failure is an end");
        writes.recv_timeout(TEST_TIMEOUT).unwrap();
        queue.push(b"kept\n");
        let batch = writes.recv_timeout(TEST_TIMEOUT).unwrap();
        assert!(batch.contains("lines=2\n") && batch.ends_with("kept\n"), "{batch}");
    }
}
