//! Durations and sizes as text.

use std::time::Duration;

use prost_types::Timestamp;

/// A duration with about three significant digits: `850 µs`, `3.2 ms`, `1.25 s`, `2 min 5 s`, `3 h 2 min`.
pub(crate) fn span(time: Duration) -> String {
    let micros = time.as_micros();
    let seconds = time.as_secs_f64();
    match micros {
        0 => "0 ms".to_owned(),
        1..1000 => format!("{micros} µs"),
        1000..9_950 => format!("{:.1} ms", seconds * 1e3),
        9_950..999_500 => format!("{:.0} ms", seconds * 1e3),
        999_500..9_995_000 => format!("{seconds:.2} s"),
        9_995_000..60_000_000 => format!("{seconds:.1} s"),
        60_000_000..3_600_000_000 => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
        _ => format!("{} h {} min", time.as_secs() / 3600, time.as_secs() / 60 % 60),
    }
}

/// A duration of a proto message; zero if it is absent or negative.
pub(crate) fn from_proto(time: Option<&prost_types::Duration>) -> Duration {
    time.and_then(|time| Duration::try_from(*time).ok()).unwrap_or_default()
}

/// The time between two timestamps, if both are known and in this order.
pub(crate) fn between(from: Option<&Timestamp>, to: Option<&Timestamp>) -> Option<Duration> {
    let nanos = |t: &Timestamp| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos);
    let nanos = u64::try_from(nanos(to?) - nanos(from?)).ok()?;
    Some(Duration::from_nanos(nanos))
}

/// Tokens per second; none if no time passed.
pub(crate) fn rate(tokens: u64, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

/// A size in bytes: `512 B`, `98.4 MB`, `1.2 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1000.0;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1$} {0}", UNITS[unit], usize::from(size < 99.95))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_at_most_three_digits() {
        let shown: Vec<String> =
            [0, 850, 3_210, 9_951, 42_000, 999_600, 1_250_000, 12_340_000, 125_000_000, 10_920_000_000]
                .map(|micros| span(Duration::from_micros(micros)))
                .to_vec();
        let expected =
            ["0 ms", "850 µs", "3.2 ms", "10 ms", "42 ms", "1.00 s", "1.25 s", "12.3 s", "2 min 5 s", "3 h 2 min"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn sizes_use_the_largest_unit() {
        let shown = [0, 999, 1000, 98_362_432, 999_999_999, 1_234_567_890, 9_900_000_000_000_000].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "98.4 MB", "1.0 GB", "1.2 GB", "9900 TB"]);
    }

    #[test]
    fn negative_durations_are_none() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        let later = between(Some(&at(1, 900_000_000)), Some(&at(3, 100_000_000)));
        assert_eq!(later, Some(Duration::from_millis(1200)));
        assert_eq!(between(Some(&at(3, 0)), Some(&at(1, 0))), None);
        assert_eq!(between(None, Some(&at(1, 0))), None);
    }
}
