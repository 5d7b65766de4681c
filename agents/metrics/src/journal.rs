//! What the journal writes.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::family::MetricRegister;
use crate::histogram::AtomicHistogram;

/// Upper bounds for commits, in seconds: from a disk with a write cache of its own to one that hardly moves.
const COMMIT_BOUNDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Upper bounds for the events of a commit. A request has some, and a commit has up to 256 requests.
const EVENT_BOUNDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// The metrics of a journal. Clones are the same ones; those of [`Default`] are in no text.
#[derive(Debug, Clone)]
pub struct JournalMetrics {
    seconds: AtomicHistogram,
    events: AtomicHistogram,
    bytes: Counter,
    failures: Counter,
    writable: Gauge,
}

impl Default for JournalMetrics {
    fn default() -> Self {
        Self::new(&mut MetricRegister::new())
    }
}

impl JournalMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let writable = Gauge::default();
        writable.set(1);
        Self {
            seconds: register.single(
                "journal_commit",
                Some(Unit::Seconds),
                "Time of commits, from their begin to their end on disk; their number is that of commits",
                AtomicHistogram::new(COMMIT_BOUNDS),
            ),
            events: register.single(
                "journal_commit_events",
                None,
                "Events of each commit, of all tasks together",
                AtomicHistogram::new(EVENT_BOUNDS),
            ),
            bytes: register.single(
                "journal_event",
                Some(Unit::Bytes),
                "Bytes of events that were committed, encoded and compressed",
                Counter::default(),
            ),
            failures: register.single(
                "journal_failures",
                None,
                "Failures after which the journal took no writes for a while or for good",
                Counter::default(),
            ),
            writable: register.single("journal_writable", None, "Whether the journal takes writes: 1, or 0", writable),
        }
    }

    /// A commit is on disk.
    pub fn committed(&self, took: Duration, events: u64, bytes: u64) {
        self.seconds.observe_time(took);
        self.events.observe(events as f64);
        self.bytes.inc_by(bytes);
    }

    /// It takes no more writes.
    pub fn failed(&self) {
        self.failures.inc();
        self.writable.set(0);
    }

    /// It takes writes again.
    pub fn recovered(&self) {
        self.writable.set(1);
    }
}
