//! Whether a failed step is retried, and when.

use std::time::Duration;

use artel_task::event::FailureCode;
use artel_task::graph::RetryPolicy;
use rand::RngExt as _;

/// Retries of a router's step, unless its node says otherwise.
pub(crate) const ROUTER_RETRIES: u32 = 2;
/// Retries of a step whose engine or actor stopped during the attempt, at least: the step did not cause that. A limit, since a
/// step that itself ends its engine must come to an end too.
const MIN_INTERRUPTED_RETRIES: u32 = 3;
/// The delay before the second attempt, unless the node says otherwise.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(500);
/// The longest delay before jitter, unless the node says otherwise.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// So many retries, with the usual delays.
pub(crate) fn with_default_delays(count: u32) -> RetryPolicy {
    RetryPolicy { count, delay: FIRST_RETRY_DELAY, max_delay: MAX_RETRY_DELAY }
}

/// The delay before the next attempt; `None` if there is none. Delays double, and half of each is random, so that steps that
/// failed together do not retry together. Without a policy, no failure is retried.
pub(crate) fn delay_after(code: FailureCode, failures: u32, retries: Option<RetryPolicy>) -> Option<Duration> {
    let retries = retries?;
    let count =
        if code == FailureCode::Interrupted { retries.count.max(MIN_INTERRUPTED_RETRIES) } else { retries.count };
    (code.is_transient() && failures < count).then(|| {
        let delay = retries.delay.saturating_mul(2u32.saturating_pow(failures)).min(retries.max_delay);
        // The journal stores milliseconds.
        Duration::from_millis(delay.mul_f64(rand::rng().random_range(0.5..=1.0)).as_millis() as u64)
    })
}

/// The delay after which a step that found its role's queue full asks again.
pub(crate) fn queue_full_delay() -> Duration {
    Duration::from_millis(rand::rng().random_range(250..=1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_end() {
        for failures in 0..8 {
            let delay = delay_after(FailureCode::Timeout, failures, Some(with_default_delays(8))).unwrap();
            let full = FIRST_RETRY_DELAY.saturating_mul(2u32.pow(failures)).min(MAX_RETRY_DELAY);
            assert!(delay <= full && delay >= full / 2 - Duration::from_millis(1), "{failures}: {delay:?}");
        }
        let none = Some(with_default_delays(0));
        assert_eq!(delay_after(FailureCode::Timeout, 8, Some(with_default_delays(8))), None);
        assert_eq!(delay_after(FailureCode::ContextOverflow, 0, Some(with_default_delays(8))), None);
        assert!(delay_after(FailureCode::Interrupted, MIN_INTERRUPTED_RETRIES - 1, none).is_some());
        assert_eq!(delay_after(FailureCode::Interrupted, MIN_INTERRUPTED_RETRIES, none), None);
        assert_eq!(delay_after(FailureCode::Interrupted, 0, None), None);
    }
}
