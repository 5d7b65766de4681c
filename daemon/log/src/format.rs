//! What a line looks like.

use std::borrow::Cow;
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

/// The target of lines that no record gave.
const TARGET: &str = "artel_log";
/// Stands before the lines of a record behind its first: a text of several lines cannot pass for a record.
const CONTINUATION: &[u8] = b"    ";

impl LineFormat {
    /// A record that is formatted already, with its line break, as it is written.
    pub(crate) fn record(self, level: Level, record: &[u8]) -> Cow<'_, [u8]> {
        match self {
            // Its texts are escaped.
            Self::Json => record.into(),
            Self::Text { .. } => continued(record),
            Self::Journald => prefixed(level, &continued(record)).into(),
        }
    }

    /// A text that is no record, which may have several lines.
    pub(crate) fn text(self, level: Level, text: &str) -> Vec<u8> {
        match self {
            Self::Json => json(level, &serde_json::json!({ "message": text })),
            Self::Text { .. } => escaped(text).into_bytes(),
            Self::Journald => prefixed(level, escaped(text).as_bytes()),
        }
    }

    /// The line that says how many lines were dropped.
    pub(crate) fn dropped(self, lines: u64) -> Vec<u8> {
        const WHY: &str = "lines of the log were dropped, because standard error was not read in time";
        match self {
            Self::Text { .. } => format!("{}  WARN {TARGET}: {WHY} lines={lines}\n", now()).into_bytes(),
            Self::Json => json(Level::WARN, &serde_json::json!({ "message": WHY, "lines": lines })),
            Self::Journald => prefixed(Level::WARN, format!("{TARGET}: {WHY} lines={lines}\n").as_bytes()),
        }
    }
}

/// The lines of a record such that one behind the first cannot pass for another record.
fn continued(record: &[u8]) -> Cow<'_, [u8]> {
    let body = record.strip_suffix(b"\n").unwrap_or(record);
    if !body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return record.into();
    }
    let mut lines = Vec::with_capacity(record.len() + 64);
    for byte in body {
        match byte {
            b'\n' => lines.extend([b"\n", CONTINUATION].concat()),
            // A terminal would write over the line.
            b'\r' => lines.extend(b"\\r"),
            byte => lines.push(*byte),
        }
    }
    lines.extend(&record[body.len()..]);
    lines.into()
}

/// A text and a line break; a control character other than those of lines and tables is written as its code.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        match character {
            '\n' | '\t' => escaped.push(character),
            character if character.is_control() => escaped.extend(character.escape_default()),
            character => escaped.push(character),
        }
    }
    escaped + "\n"
}

/// A record with these fields.
fn json(level: Level, fields: &serde_json::Value) -> Vec<u8> {
    let record = serde_json::json!({ "timestamp": now(), "level": level.as_str(), "fields": fields, "target": TARGET });
    format!("{record}\n").into_bytes()
}

/// Lines with their priority: the journal makes a record of each.
fn prefixed(level: Level, lines: &[u8]) -> Vec<u8> {
    let prefix = format!("<{}>", priority(level));
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|line| [prefix.as_bytes(), line]).flatten().copied().collect()
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
            |level, text: &str| String::from_utf8(LineFormat::Journald.record(level, text.as_bytes()).into()).unwrap();
        assert_eq!(encoded(Level::ERROR, "a\nb\n"), "<3>a\n<3>    b\n");
        assert_eq!(encoded(Level::WARN, "a\n") + &encoded(Level::INFO, "b\n"), "<4>a\n<6>b\n");
        assert_eq!(encoded(Level::TRACE, "a"), "<7>a");
        assert_eq!(*LineFormat::Json.record(Level::ERROR, b"{}\n"), *b"{}\n");
    }

    #[test]
    fn a_text_in_a_field_forges_no_line() {
        let encoded = |text: &str| {
            String::from_utf8(LineFormat::Text { color: false }.record(Level::INFO, text.as_bytes()).into()).unwrap()
        };
        assert_eq!(encoded("it failed cause=a\n2026 ERROR b\r2026\n"), "it failed cause=a\n    2026 ERROR b\\r2026\n");
        assert_eq!(encoded("a\n"), "a\n");
    }

    #[test]
    fn a_text_of_several_lines_is_one_object_or_lines_without_control_characters() {
        let of = |format: LineFormat| String::from_utf8(format.text(Level::ERROR, "a \x1b[2Jb\n\tc")).unwrap();
        assert_eq!(of(LineFormat::Text { color: true }), "a \\u{1b}[2Jb\n\tc\n");
        assert_eq!(of(LineFormat::Journald), "<3>a \\u{1b}[2Jb\n<3>\tc\n");
        let line = of(LineFormat::Json);
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
        assert_eq!(record["fields"], serde_json::json!({"message": "a \u{1b}[2Jb\n\tc"}));
        assert_eq!((&record["level"], record["timestamp"].is_string()), (&"ERROR".into(), true));
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
