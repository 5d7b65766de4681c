//! What a line looks like.

use std::fmt::Write as _;

use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// Text with the time, coloured for a terminal.
    Text {
        /// Whether it is coloured.
        color: bool,
    },
    /// A JSON object.
    Json,
    /// Text behind a priority of syslog, which systemd reads; the journal has the time itself.
    Journald,
}

impl LineFormat {
    /// A record that is formatted already, with its line break, as it is written.
    pub(crate) fn encode(self, level: Level, record: &[u8]) -> Vec<u8> {
        match self {
            Self::Text { .. } | Self::Json => record.to_vec(),
            // The journal makes a record of each line.
            Self::Journald => {
                let prefix = format!("<{}>", priority(level));
                let lines = record.split_inclusive(|byte| *byte == b'\n');
                lines.flat_map(|line| [prefix.as_bytes(), line]).flatten().copied().collect()
            }
        }
    }

    /// The line that says how many lines were dropped.
    pub(crate) fn dropped(self, lines: u64) -> Vec<u8> {
        const TARGET: &str = "artel_log";
        const WHY: &str = "lines of the log were dropped, because standard error was not read in time";
        let line = match self {
            Self::Text { .. } => format!("{}  WARN {TARGET}: {WHY} lines={lines}\n", now()),
            Self::Json => format!(
                "{{\"timestamp\":\"{}\",\"level\":\"WARN\",\"fields\":{{\"message\":\"{WHY}\",\"lines\":{lines}}},\
                 \"target\":\"{TARGET}\"}}\n",
                now()
            ),
            Self::Journald => format!("{TARGET}: {WHY} lines={lines}\n"),
        };
        self.encode(Level::WARN, line.as_bytes())
    }
}

/// The priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// The time, as in the lines of records.
fn now() -> String {
    let mut text = String::new();
    // Without a time, the line is still true.
    if SystemTime.format_time(&mut Writer::new(&mut text)).is_err() {
        let _ = text.write_str("-");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_record_has_its_priority_in_the_journal() {
        let encoded =
            |level, text: &str| String::from_utf8(LineFormat::Journald.encode(level, text.as_bytes())).unwrap();
        assert_eq!(encoded(Level::ERROR, "a\nb\n"), "<3>a\n<3>b\n");
        assert_eq!(encoded(Level::WARN, "a\n") + &encoded(Level::INFO, "b\n"), "<4>a\n<6>b\n");
        assert_eq!(encoded(Level::TRACE, "a"), "<7>a");
        assert_eq!(LineFormat::Json.encode(Level::ERROR, b"{}\n"), b"{}\n");
    }

    #[test]
    fn dropped_lines_are_counted_in_every_format() {
        let line = |format: LineFormat| String::from_utf8(format.dropped(12)).unwrap();
        let text = line(LineFormat::Text { color: true });
        assert!(
            text.contains("  WARN artel_log: lines of the log were dropped") && text.ends_with("lines=12\n"),
            "{text}"
        );
        assert!(line(LineFormat::Journald).starts_with("<4>artel_log: "));
        let json: serde_json::Value = serde_json::from_str(&line(LineFormat::Json)).unwrap();
        assert_eq!((&json["level"], &json["fields"]["lines"]), (&"WARN".into(), &12.into()));
    }
}
