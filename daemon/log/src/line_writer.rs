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
    let (mut batch, mut lost_lines) = (Vec::new(), 0u64);
    loop {
        batch.clear();
        let dropped = queue.take(&mut batch);
        // What an earlier batch lost stands before this one.
        if lost_lines > 0 {
            batch.splice(..0, format.dropped(lost_lines));
        }
        if dropped > 0 {
            batch.extend(format.dropped(dropped));
        }
        let written = write(&mut output, &batch);
        lost_lines = match written {
            Ok(()) => 0,
            // A disk may be full, or a pipe closed: the daemon goes on, and says so when it can.
            Err(_) => lost_lines.saturating_add(count(&batch)),
        };
        queue.finish_batch();
    }
}

/// Writes everything.
fn write(output: &mut impl Write, batch: &[u8]) -> io::Result<()> {
    let mut rest = batch;
    while !rest.is_empty() {
        match output.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_STREAM_DELAY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
