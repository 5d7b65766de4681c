//! Reads the events of a run while the trainer appends to them.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::sync::watch;

use crate::trainer_event::TrainerEvent;

/// The file of the events in a run's directory.
pub const EVENTS_FILE: &str = "events.jsonl";
/// Bytes of a line; the longest event is a failure with a sentence. A longer line is left out.
const MAX_LINE_BYTES: usize = 64 << 10;
/// The bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The interval at which the file is looked at for more.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// An event and its place in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct TailedEvent {
    /// What happened.
    pub event: TrainerEvent,
    /// The offset in bytes of the next event: where to go on reading.
    pub next_offset_bytes: u64,
}

/// The events of a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EventTailError {
    /// The file cannot be read.
    #[error("read the run's events in {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is shorter than what was read of it.
    #[error("read the run's events in {}: it ends at byte {bytes}, before byte {offset_bytes} at which to go on; something else \
             wrote it, so start the run anew", path.display())]
    Shortened {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// Where to go on.
        offset_bytes: u64,
    },
}

impl EventTailError {
    /// Whether the events may be read later, with nothing changed in the run.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Shortened { .. } => false,
        }
    }
}

/// The events of a run from a place on.
#[derive(Debug)]
pub struct EventTail {
    path: PathBuf,
    file: Option<File>,
    /// The offset of `buffer`'s end.
    read_bytes: u64,
    /// What was read and not yet given: whole lines, and the beginning of one.
    buffer: Vec<u8>,
    /// Where in the buffer the next line begins.
    begin: usize,
    /// Whether the line whose beginning was read is too long, so that its rest is left out, too.
    skips_line: bool,
}

impl EventTail {
    /// The events in a run's directory from this offset on: 0, or one that an event named.
    pub fn new(run: &Path, offset_bytes: u64) -> Self {
        let path = run.join(EVENTS_FILE);
        Self { path, file: None, read_bytes: offset_bytes, buffer: Vec::new(), begin: 0, skips_line: false }
    }

    /// The next event that is there as a whole; none if there is no more now. Unknown events and lines that are none are left out.
    ///
    /// # Errors
    /// The file cannot be read, or was shortened.
    pub fn read_next(&mut self) -> Result<Option<TailedEvent>, EventTailError> {
        loop {
            let Some(line) = self.next_line() else {
                if self.fill()? == 0 {
                    return Ok(None);
                }
                continue;
            };
            let next_offset_bytes = self.read_bytes - (self.buffer.len() - self.begin) as u64;
            match serde_json::from_slice(&self.buffer[line]) {
                Ok(TrainerEvent::Unknown) => {}
                Ok(event) => return Ok(Some(TailedEvent { event, next_offset_bytes })),
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), next_offset_bytes, %error, "a line of the trainer is no event");
                }
            }
        }
    }

    /// The next whole line of the buffer, without its end.
    fn next_line(&mut self) -> Option<std::ops::Range<usize>> {
        loop {
            let begin = self.begin;
            let end = self.buffer[begin..].iter().position(|byte| *byte == b'\n').map(|length| begin + length);
            let Some(end) = end else {
                self.buffer.drain(..begin);
                self.begin = 0;
                if self.buffer.len() > MAX_LINE_BYTES {
                    self.buffer.clear();
                    self.skips_line = true;
                }
                return None;
            };
            self.begin = end + 1;
            if std::mem::take(&mut self.skips_line) || end - begin > MAX_LINE_BYTES {
                tracing::warn!(path = %self.path.display(), "a line of the trainer is too long and left out");
            } else if end > begin {
                return Some(begin..end);
            }
        }
    }

    /// Reads more; 0 if there is no more now. The file is the page cache's, so that no thread waits long.
    fn fill(&mut self) -> Result<usize, EventTailError> {
        let failed = |source| EventTailError::Io { path: self.path.clone(), source };
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut file = match File::open(&self.path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound && self.read_bytes == 0 => return Ok(0),
                    Err(error) => return Err(failed(error)),
                };
                file.seek(SeekFrom::Start(self.read_bytes)).map_err(failed)?;
                none.insert(file)
            }
        };
        let length = file.metadata().map_err(failed)?.len();
        if length < self.read_bytes {
            let offset_bytes = self.read_bytes;
            return Err(EventTailError::Shortened { path: self.path.clone(), bytes: length, offset_bytes });
        }
        let old = self.buffer.len();
        self.buffer.resize(old + CHUNK_BYTES, 0);
        let read = file.read(&mut self.buffer[old..]);
        self.buffer.truncate(old + *read.as_ref().unwrap_or(&0));
        let read = read.map_err(failed)?;
        self.read_bytes += read as u64;
        Ok(read)
    }
}

/// The events until the trainer has ended and all that it wrote was read, or the first error.
pub(crate) fn until_ended<T: Send + Sync + 'static>(
    tail: EventTail,
    ended: watch::Receiver<Option<T>>,
) -> impl Stream<Item = Result<TailedEvent, EventTailError>> + Send + 'static {
    stream::unfold(Some((tail, ended)), |state| async {
        let (mut tail, mut ended) = state?;
        loop {
            // Looked at before reading: what was written before the end is read after it.
            let has_ended = ended.borrow().is_some() || ended.has_changed().is_err();
            match tail.read_next() {
                Ok(Some(event)) => return Some((Ok(event), Some((tail, ended)))),
                Ok(None) if has_ended => return None,
                Ok(None) => {}
                Err(error) => return Some((Err(error), None)),
            }
            let _ = tokio::time::timeout(POLL_INTERVAL, ended.wait_for(Option::is_some)).await;
        }
    })
}

/// Removes the half of a line that a trainer which was killed left at the end, so that the next one begins a line. Returns the
/// length of the file, 0 if there is none.
pub(crate) fn remove_half_line(run: &Path) -> Result<u64, EventTailError> {
    let path = run.join(EVENTS_FILE);
    let failed = |source| EventTailError::Io { path: path.clone(), source };
    let mut file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let length = file.metadata().map_err(failed)?.len();
    let mut end = length;
    while end > 0 {
        let begin = end.saturating_sub(CHUNK_BYTES as u64);
        let mut chunk = vec![0; usize::try_from(end - begin).unwrap_or(CHUNK_BYTES)];
        file.seek(SeekFrom::Start(begin)).and_then(|_| file.read_exact(&mut chunk)).map_err(failed)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            end = begin + at as u64 + 1;
            break;
        }
        end = begin;
    }
    if end < length {
        file.set_len(end).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use futures::StreamExt as _;

    use super::*;

    fn steps(tail: &mut EventTail) -> Vec<u64> {
        let next = || tail.read_next().unwrap();
        let steps = std::iter::from_fn(next).map(|tailed| match tailed.event {
            TrainerEvent::Checkpoint { step } => step,
            other => panic!("{other:?}"),
        });
        steps.collect()
    }

    fn line(step: u64) -> String {
        format!("{{\"event\":\"checkpoint\",\"at\":1.5,\"step\":{step}}}\n")
    }

    fn append(dir: &Path, text: &str) {
        let file = File::options().create(true).append(true).open(dir.join(EVENTS_FILE));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_half_line_is_waited_for_and_an_offset_goes_on_behind_an_event() {
        let dir = tempfile::tempdir().unwrap();
        let mut tail = EventTail::new(dir.path(), 0);
        assert_eq!(tail.read_next().unwrap(), None, "there is no file yet");
        append(dir.path(), &line(1));
        let half = line(2);
        append(dir.path(), &half[..20]);
        let first = tail.read_next().unwrap().unwrap();
        assert_eq!(first.next_offset_bytes, line(1).len() as u64);
        assert_eq!(steps(&mut tail), [0; 0]);
        append(dir.path(), &half[20..]);
        append(dir.path(), &line(3));
        assert_eq!(steps(&mut tail), [2, 3]);
        assert_eq!(steps(&mut EventTail::new(dir.path(), first.next_offset_bytes)), [2, 3]);
    }

    #[test]
    fn lines_that_are_no_events_are_left_out_however_long() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(3 * MAX_LINE_BYTES);
        let unknown = "{\"event\":\"new\",\"at\":1}\n";
        append(dir.path(), &format!("{}\n\nno event\n{unknown}{long}\n{}{long}", line(1).trim(), line(2)));
        let mut tail = EventTail::new(dir.path(), 0);
        assert_eq!(steps(&mut tail), [1, 2]);
        append(dir.path(), &format!("{long}\n{}", line(3)));
        assert_eq!(steps(&mut tail), [3]);
        assert!(tail.buffer.capacity() < 8 * MAX_LINE_BYTES, "{}", tail.buffer.capacity());
    }

    #[test]
    fn a_file_that_was_shortened_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), &line(1));
        let shortened = EventTail::new(dir.path(), 1000).read_next();
        assert!(matches!(shortened, Err(EventTailError::Shortened { offset_bytes: 1000, .. })), "{shortened:?}");
        let gone = EventTail::new(&dir.path().join("gone"), 1000).read_next();
        assert!(matches!(gone, Err(EventTailError::Io { .. })), "{gone:?}");
    }

    #[test]
    fn half_a_line_at_the_end_is_removed_before_another_trainer_appends() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(remove_half_line(dir.path()).unwrap(), 0);
        for half in ["", "{\"event\":\"st", &"x".repeat(2 * CHUNK_BYTES)] {
            fs::write(dir.path().join(EVENTS_FILE), format!("{}{half}", line(1))).unwrap();
            assert_eq!(remove_half_line(dir.path()).unwrap(), line(1).len() as u64);
            assert_eq!(fs::read_to_string(dir.path().join(EVENTS_FILE)).unwrap(), line(1));
        }
        fs::write(dir.path().join(EVENTS_FILE), "half").unwrap();
        assert_eq!(remove_half_line(dir.path()).unwrap(), 0);
    }

    #[tokio::test]
    async fn the_stream_ends_behind_what_was_written_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (end, ended) = watch::channel(None);
        let mut events = Box::pin(until_ended(EventTail::new(dir.path(), 0), ended));
        append(dir.path(), &line(1));
        assert!(events.next().await.unwrap().is_ok());
        append(dir.path(), &line(2));
        end.send_replace(Some(()));
        assert!(events.next().await.unwrap().is_ok());
        assert!(events.next().await.is_none());
    }
}
