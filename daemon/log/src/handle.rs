//! What the rest of the program has of its log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tracing::Level;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::filter::LogFilter;
use crate::format::LineFormat;
use crate::line_queue::LineQueue;

/// Which records are logged, now and from now on. Clones share it.
#[derive(Clone)]
pub struct FilterHandle {
    reload: reload::Handle<EnvFilter, Registry>,
    /// The text of the filter.
    current: watch::Sender<String>,
    forwarded_target: Option<&'static str>,
}

impl FilterHandle {
    pub(crate) fn new(
        reload: reload::Handle<EnvFilter, Registry>,
        filter: &LogFilter,
        forwarded_target: Option<&'static str>,
    ) -> Self {
        Self { reload, current: watch::Sender::new(filter.to_string()), forwarded_target }
    }

    /// The filter.
    pub fn get(&self) -> LogFilter {
        LogFilter::valid(self.current.borrow().clone())
    }

    /// Logs these records from now on, and returns the filter before.
    pub fn set(&self, filter: &LogFilter) -> LogFilter {
        // Fails only if the subscriber is gone, and nothing is logged anyway.
        let _ = self.reload.reload(filter.build(self.forwarded_target));
        LogFilter::valid(self.current.send_replace(filter.to_string()))
    }

    /// The texts of the filters to come.
    pub fn changes(&self) -> watch::Receiver<String> {
        self.current.subscribe()
    }
}

/// The log of a daemon. Clones share it.
#[derive(Clone)]
pub struct LogHandle {
    format: LineFormat,
    queue: Arc<LineQueue>,
    filter: FilterHandle,
}

impl LogHandle {
    pub(crate) fn new(format: LineFormat, queue: Arc<LineQueue>, filter: FilterHandle) -> Self {
        Self { format, queue, filter }
    }

    /// Which records are logged.
    pub fn filter(&self) -> &FilterHandle {
        &self.filter
    }

    /// Writes text that is no record, such as problems of YAML, which have several lines: as one object if the log is JSON.
    pub fn print(&self, text: &str) {
        self.queue.push(&self.format.text(Level::ERROR, text));
    }

    /// Waits until everything is written, but no longer than this; whether it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.queue.flush(timeout)
    }

    /// Lets panics be written like all else: by default, a thread that panics writes to standard error itself, and waits for
    /// a reader that may have stopped.
    pub fn take_panics(&self) {
        let log = self.clone();
        panic::set_hook(Box::new(move |panic| {
            let thread = thread::current();
            let backtrace = Backtrace::capture();
            let mut text = format!("thread '{}' {panic}", thread.name().unwrap_or("<unnamed>"));
            if backtrace.status() == BacktraceStatus::Captured {
                text += &format!("\n{backtrace}");
            }
            log.print(&text);
        }));
    }
}
