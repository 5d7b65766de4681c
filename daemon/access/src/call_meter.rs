//! How much a caller asks for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::token::TokenLimits;

/// The time over which calls are counted.
const RATE_PERIOD: Duration = Duration::from_secs(60);

/// Counts the calls and the open streams of a token.
#[derive(Debug)]
pub(crate) struct CallMeter {
    /// The time that each call takes of the period; `None` without a limit.
    share: Option<Duration>,
    /// When all calls so far would have been made, if each took its share of the time (the generic cell rate algorithm).
    paid_until: Mutex<Instant>,
    streams: Option<Arc<Semaphore>>,
}

impl CallMeter {
    pub(crate) fn new(limits: TokenLimits) -> Self {
        Self {
            share: limits.calls_per_minute.map(|calls| RATE_PERIOD / calls.get()),
            paid_until: Mutex::new(Instant::now()),
            streams: limits.streams.map(|streams| Arc::new(Semaphore::new(streams.get() as usize))),
        }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// It exceeds the rate: how long to wait.
    pub(crate) fn begin_call(&self) -> Result<(), Duration> {
        let Some(share) = self.share else { return Ok(()) };
        // Nothing in here panics.
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let next = (*paid_until).max(now) + share;
        let excess = next.duration_since(now).saturating_sub(RATE_PERIOD);
        if !excess.is_zero() {
            return Err(excess);
        }
        *paid_until = next;
        Ok(())
    }

    /// Counts a stream until the permit is dropped.
    ///
    /// # Errors
    /// As many as allowed are open.
    pub(crate) fn begin_stream(&self) -> Result<Option<OwnedSemaphorePermit>, StreamsInUse> {
        let Some(streams) = &self.streams else { return Ok(None) };
        streams.clone().try_acquire_owned().map(Some).map_err(|_| StreamsInUse)
    }
}

/// As many streams as allowed are open.
#[derive(Debug)]
pub(crate) struct StreamsInUse;

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(calls: u32, streams: u32) -> CallMeter {
        let (calls_per_minute, streams) = (calls.try_into().ok(), streams.try_into().ok());
        CallMeter::new(TokenLimits { calls_per_minute, streams, ..TokenLimits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn calls_of_a_minute_may_come_at_once_and_the_next_says_when() {
        let meter = meter(6, 0);
        (0..6).for_each(|_| meter.begin_call().unwrap());
        let delay = meter.begin_call().unwrap_err();
        assert_eq!(delay, Duration::from_secs(10));
        assert_eq!(meter.begin_call().unwrap_err(), delay, "a refused call costs nothing");
        tokio::time::advance(delay).await;
        meter.begin_call().unwrap();
        meter.begin_call().unwrap_err();
        tokio::time::advance(RATE_PERIOD * 10).await;
        (0..6).for_each(|_| meter.begin_call().unwrap());
        meter.begin_call().unwrap_err();
    }

    #[tokio::test]
    async fn a_stream_is_counted_while_it_is_open() {
        let meter = meter(0, 2);
        let (first, _second) = (meter.begin_stream().unwrap(), meter.begin_stream().unwrap());
        meter.begin_stream().unwrap_err();
        drop(first);
        meter.begin_stream().unwrap();
    }

    #[tokio::test]
    async fn without_limits_nothing_is_refused() {
        let meter = meter(0, 0);
        let streams: Vec<_> = (0..10_000).map(|_| meter.begin_stream().unwrap()).collect();
        (0..10_000).for_each(|_| meter.begin_call().unwrap());
        drop(streams);
    }
}
