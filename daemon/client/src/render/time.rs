//! The times of proto messages, and the rates that follow from them.

use std::time::Duration;

use prost_types::Timestamp;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_durations_are_none() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        let later = between(Some(&at(1, 900_000_000)), Some(&at(3, 100_000_000)));
        assert_eq!(later, Some(Duration::from_millis(1200)));
        assert_eq!(between(Some(&at(3, 0)), Some(&at(1, 0))), None);
        assert_eq!(between(None, Some(&at(1, 0))), None);
    }
}
