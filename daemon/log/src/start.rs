//! How a log starts.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::filter::LogFilter;
use crate::format::LineFormat;
use crate::handle::{FilterHandle, LogHandle};
use crate::line_queue::LineQueue;
use crate::line_writer;

/// The limit of the lines that wait: some seconds of a daemon that logs everything, and nothing beside its models. As many
/// may be in the batch that is being written.
const MAX_QUEUE_BYTES: usize = 4 << 20;

/// The part of a subscriber that writes the log.
pub type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// How a log is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// What its lines look like.
    pub format: LineFormat,
    /// Which records are logged at first.
    pub filter: LogFilter,
    /// The target of records that another process has filtered: they pass at every level.
    pub forwarded_target: Option<&'static str>,
}

/// Starts the thread that writes to standard error. The layer is for the program's subscriber, beside others of it.
///
/// # Errors
/// Standard error is closed, or the system gives no thread.
pub fn start(options: Options) -> io::Result<(LogLayer, LogHandle)> {
    // A stream of its own: a thread that waits in it holds no lock that others need.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let queue = Arc::new(LineQueue::new(MAX_QUEUE_BYTES));
    line_writer::spawn(queue.clone(), options.format, stderr)?;
    Ok(layer(options, queue))
}

fn layer(options: Options, queue: Arc<LineQueue>) -> (LogLayer, LogHandle) {
    let Options { format, filter, forwarded_target } = options;
    let (reloadable, reload) = reload::Layer::new(filter.build(forwarded_target));
    let lines = formatted(format, QueueWriter { queue: queue.clone(), format });
    let filter = FilterHandle::new(reload, &filter, forwarded_target);
    (lines.with_filter(reloadable).boxed(), LogHandle::new(format, queue, filter))
}

/// Starts a log that writes to standard error as it goes, as JSON: nothing is lost if the process is aborted. Its reader must
/// be one that never stops.
pub fn start_unbuffered(filter: &LogFilter) -> FilterHandle {
    let (reloadable, reload) = reload::Layer::new(filter.build(None));
    let lines: LogLayer = formatted(LineFormat::Json, io::stderr).with_filter(reloadable).boxed();
    // An error means that a subscriber is already installed, which is fine.
    let _ = tracing_subscriber::registry().with(lines).try_init();
    FilterHandle::new(reload, filter, None)
}

/// The formatting of records.
fn formatted<S, W>(format: LineFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A log that cannot be written must not end the process: by default, the failure is printed to standard error, which
    // panics if that fails, too.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    match format {
        LineFormat::Text { color } => lines.with_ansi(color).boxed(),
        LineFormat::Json => lines.json().boxed(),
        LineFormat::Journald => lines.with_ansi(false).without_time().with_level(false).boxed(),
    }
}

/// Puts the lines of a record into the queue.
struct QueueWriter {
    queue: Arc<LineQueue>,
    format: LineFormat,
}

/// Puts one record into the queue. It is handed over in one piece.
struct RecordWriter<'w> {
    writer: &'w QueueWriter,
    level: Level,
}

impl<'w> MakeWriter<'w> for QueueWriter {
    type Writer = RecordWriter<'w>;

    fn make_writer(&'w self) -> RecordWriter<'w> {
        RecordWriter { writer: self, level: Level::INFO }
    }

    fn make_writer_for(&'w self, record: &Metadata<'_>) -> RecordWriter<'w> {
        RecordWriter { writer: self, level: *record.level() }
    }
}

impl Write for RecordWriter<'_> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.writer.queue.push(&self.writer.format.record(self.level, record));
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is logged by a function, in a format, with this filter at first.
    fn logged(format: LineFormat, filter: &str, log: impl FnOnce(&LogHandle)) -> String {
        let queue = Arc::new(LineQueue::new(MAX_QUEUE_BYTES));
        let options = Options { format, filter: filter.parse().unwrap(), forwarded_target: Some("engine") };
        let (layer, handle) = layer(options, queue.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || log(&handle));
        // So that there is something to take.
        queue.push(b"end\n");
        let mut batch = Vec::new();
        queue.take(&mut batch);
        String::from_utf8(batch).unwrap().strip_suffix("end\n").unwrap().to_owned()
    }

    #[test]
    fn the_filter_is_replaced_while_the_log_runs() {
        let text = logged(LineFormat::Text { color: false }, "warn", |log| {
            tracing::info!("unseen");
            tracing::trace!(target: "engine", "forwarded");
            let changes = log.filter().changes();
            assert_eq!(log.filter().set(&"debug".parse().unwrap()).as_str(), "warn");
            assert_eq!((changes.has_changed().unwrap(), changes.borrow().as_str()), (true, "debug"));
            tracing::debug!(n = 1, "seen");
            assert_eq!(log.filter().set(&"off".parse().unwrap()).as_str(), "debug");
            tracing::error!("unseen");
            assert_eq!(log.filter().get().as_str(), "off");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines[0].ends_with("TRACE engine: forwarded"), "{text}");
        assert!(lines[1].contains("DEBUG artel_log") && lines[1].ends_with("seen n=1"), "{text}");
    }

    #[test]
    fn records_are_lines_of_the_journal_with_their_priority_and_spans() {
        let text = logged(LineFormat::Journald, "info", |log| {
            tracing::info_span!("task", task = "t").in_scope(|| tracing::error!(code = 7, "it failed"));
            log.print("two\nlines");
        });
        assert_eq!(text, "<3>task{task=\"t\"}: artel_log::start::tests: it failed code=7\n<3>two\n<3>lines\n");
    }

    #[test]
    fn a_displayed_field_of_several_lines_forges_no_record() {
        for format in [LineFormat::Text { color: false }, LineFormat::Journald] {
            let text = logged(format, "info", |_| tracing::info!(name = %"a\n<3>forged\rb", "it works"));
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() == 2 && lines[0].ends_with("it works name=a"), "{text}");
            assert!(["    <3>forged\\rb", "<6>    <3>forged\\rb"].contains(&lines[1]), "{text}");
        }
    }

    #[test]
    fn records_are_json_with_plain_values_and_so_is_other_text() {
        let text = logged(LineFormat::Json, "info", |log| {
            log.print("two\nlines");
        });
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["fields"], serde_json::json!({"message": "two\nlines"}));
        let text = logged(LineFormat::Json, "info", |_| {
            tracing::info_span!("task", task = "t").in_scope(|| tracing::info!(n = 7, "it works"));
        });
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["fields"], serde_json::json!({"message": "it works", "n": 7}));
        assert_eq!((&record["spans"][0]["task"], &record["level"]), (&"t".into(), &"INFO".into()));
    }
}
