//! Whether a failed step is retried, and when.

use std::time::Duration;

use artel_task::event::FailureCode;
use artel_task::graph::RetryPolicy;
use rand::RngExt as _;

/// Retries of a router's step, unless its node says otherwise.
pub(crate) const ROUTER_RETRIES: u32 = 2;
/// Retries of a step whose engine or actor stopped during each attempt, whatever its limits say: the step need not have caused
/// that. A limit, since a step that itself ends its engine must come to an end, before the engine is given up for all others.
const MAX_INTERRUPTED_RETRIES: u32 = 3;
/// The delay before the second attempt, unless the node says otherwise.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(500);
/// The longest delay before jitter, unless the node says otherwise.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// So many retries, with the usual delays.
pub(crate) fn with_default_delays(count: u32) -> RetryPolicy {
    RetryPolicy { count, delay: FIRST_RETRY_DELAY, max_delay: MAX_RETRY_DELAY }
}

/// The earlier failures of a step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EarlierFailures {
    pub(crate) all: u32,
    /// The last of them in a row that were interruptions.
    pub(crate) interruptions: u32,
}

/// The delay before the next attempt; `None` if there is none. Delays double, and half of each is random, so that steps that
/// failed together do not retry together. Without a policy, no failure is retried.
pub(crate) fn delay_after(
    code: FailureCode,
    earlier: EarlierFailures,
    retries: Option<RetryPolicy>,
) -> Option<Duration> {
    let retries = retries?;
    let (failures, is_retried) = match code {
        FailureCode::Interrupted => (earlier.interruptions, earlier.interruptions < MAX_INTERRUPTED_RETRIES),
        _ => (earlier.all, code.is_transient() && earlier.all < retries.count),
    };
    is_retried.then(|| {
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

    fn failed(all: u32, interruptions: u32) -> EarlierFailures {
        EarlierFailures { all, interruptions }
    }

    #[test]
    fn delays_grow_and_end() {
        for failures in 0..8 {
            let delay = delay_after(FailureCode::Timeout, failed(failures, 0), Some(with_default_delays(8))).unwrap();
            let full = FIRST_RETRY_DELAY.saturating_mul(2u32.pow(failures)).min(MAX_RETRY_DELAY);
            assert!(delay <= full && delay >= full / 2 - Duration::from_millis(1), "{failures}: {delay:?}");
        }
        assert_eq!(delay_after(FailureCode::Timeout, failed(8, 0), Some(with_default_delays(8))), None);
        assert_eq!(delay_after(FailureCode::ContextOverflow, failed(0, 0), Some(with_default_delays(8))), None);
    }

    #[test]
    fn interruptions_have_retries_of_their_own() {
        let retried = |earlier, retries| delay_after(FailureCode::Interrupted, earlier, retries).is_some();
        for count in [0, 8] {
            let retries = Some(with_default_delays(count));
            assert!(retried(failed(9, MAX_INTERRUPTED_RETRIES - 1), retries));
            assert!(!retried(failed(9, MAX_INTERRUPTED_RETRIES), retries));
        }
        assert!(!retried(failed(0, 0), None), "the step must not run twice");
    }
}
