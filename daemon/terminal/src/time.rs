//! Durations as text.

use std::time::Duration;

/// A duration with about three significant digits: `850 µs`, `3.2 ms`, `1.25 s`, `2 min 5 s`, `3 h 2 min`.
pub fn span(time: Duration) -> String {
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
}
