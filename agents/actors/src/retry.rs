//! Whether a failed step is tried again, and when.

use std::time::Duration;

use artel_task::event::FailureCode;
use artel_task::graph::RetryPolicy;
use rand::RngExt as _;

/// Further attempts of a router's step, unless its node says otherwise.
pub(crate) const ROUTER: u32 = 2;
/// Further attempts of a step whose engine or actor stopped in the middle, at least: that was no fault of the step. A step that
/// itself ends its engine must come to an end too.
const LOST: u32 = 3;
/// The pause before the second attempt, unless the node says otherwise.
const FIRST: Duration = Duration::from_millis(500);
/// The longest pause before jitter, unless the node says otherwise.
const LONGEST: Duration = Duration::from_secs(30);

/// So many further attempts, with the usual pauses.
pub(crate) fn times(at_most: u32) -> RetryPolicy {
    RetryPolicy { count: at_most, delay: FIRST, max_delay: LONGEST }
}

/// How long to wait before the next attempt; `None` if there is none. Pauses double, and half of each is chance, so that
/// steps that failed together do not come back together. Without retries, nothing is tried again.
pub(crate) fn after(code: FailureCode, failures: u32, retries: Option<RetryPolicy>) -> Option<Duration> {
    let retries = retries?;
    let at_most = if code == FailureCode::Interrupted { retries.count.max(LOST) } else { retries.count };
    (code.is_transient() && failures < at_most).then(|| {
        let pause = retries.delay.saturating_mul(2u32.saturating_pow(failures)).min(retries.max_delay);
        // The journal knows milliseconds.
        Duration::from_millis(pause.mul_f64(rand::rng().random_range(0.5..=1.0)).as_millis() as u64)
    })
}

/// How long a step waits outside of a full queue before it asks for room again.
pub(crate) fn room() -> Duration {
    Duration::from_millis(rand::rng().random_range(250..=1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        for failures in 0..8 {
            let pause = after(FailureCode::Timeout, failures, Some(times(8))).unwrap();
            let full = FIRST.saturating_mul(2u32.pow(failures)).min(LONGEST);
            assert!(pause <= full && pause >= full / 2 - Duration::from_millis(1), "{failures}: {pause:?}");
        }
        assert_eq!(after(FailureCode::Timeout, 8, Some(times(8))), None);
        assert_eq!(after(FailureCode::ContextOverflow, 0, Some(times(8))), None);
        assert!(after(FailureCode::Interrupted, LOST - 1, Some(times(0))).is_some());
        assert_eq!(after(FailureCode::Interrupted, LOST, Some(times(0))), None);
        assert_eq!(after(FailureCode::Interrupted, 0, None), None);
    }
}
