//! How far the indexing of a base is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::entry::EntryKey;

/// What an indexer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexPhase {
    /// It compares the sources with the index.
    #[default]
    Scanning,
    /// It reads and embeds.
    Indexing,
    /// Everything that is known of is indexed, and changes are waited for.
    Idle,
}

/// The state of an indexer as one value.
#[derive(Debug, Clone, Default)]
pub struct IndexProgress {
    /// What it does.
    pub phase: IndexPhase,
    /// The entries that the base has.
    pub entries: u64,
    /// Files that were compared with the index since it started.
    pub seen: u64,
    /// Of these, those that needed no reading.
    pub unchanged: u64,
    /// Those that were read since it started.
    pub done: u64,
    /// Those that wait or are being read.
    pub waiting: u64,
    /// Chunks that were stored since it started.
    pub chunks: u64,
    /// Of these, those that were embedded; the others had an embedding already.
    pub embedded: u64,
    /// The bytes of the files that were read.
    pub bytes: u64,
    /// The chunks stored per second since work began.
    pub chunks_per_second: f64,
    /// How long the rest takes at this rate of files; `None` before there is one.
    pub time_left: Option<Duration>,
    /// The entries that could not be read, with the reasons.
    pub failures: Arc<BTreeMap<EntryKey, String>>,
    /// Directories that could not be looked into, with the reasons.
    pub unreadable: Arc<BTreeMap<String, String>>,
    /// Why changes are not reported by the system but looked for now and then.
    pub polling: Option<String>,
    /// What holds up the work now; it is tried again.
    pub problem: Option<String>,
    /// Whether an older generation answers until this one is complete.
    pub is_shadow: bool,
}

/// Measures the rate of work while there is any.
#[derive(Debug, Default)]
pub(crate) struct WorkRate {
    begun: Option<Instant>,
    files: u64,
    chunks: u64,
}

impl WorkRate {
    pub(crate) fn begin(&mut self) {
        self.begun.get_or_insert_with(Instant::now);
    }

    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn add(&mut self, chunks: u64) {
        self.files += 1;
        self.chunks += chunks;
    }

    /// Chunks per second, and the time that this many files take.
    pub(crate) fn estimate(&self, waiting: u64) -> Option<(f64, Duration)> {
        let elapsed = self.begun?.elapsed().as_secs_f64();
        if self.files == 0 || elapsed <= 0.0 {
            return None;
        }
        let left = elapsed / self.files as f64 * waiting as f64;
        Some((self.chunks as f64 / elapsed, Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)))
    }
}
