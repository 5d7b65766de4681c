//! An open loop of load: calls begin at fixed times, whether those before have ended or not.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

/// How long calls took.
#[derive(Debug, Default)]
pub(crate) struct CallLatencies(Vec<Duration>);

/// Begins so many calls a second for this time, and waits for their ends. A call's latency begins when it is due, so that one that
/// begins late counts with its delay.
pub(crate) async fn run<F>(per_second: u32, time: Duration, mut call: impl FnMut(u64) -> F) -> Result<CallLatencies>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    let calls = time.as_millis() as u64 * u64::from(per_second) / 1000;
    let mut running = JoinSet::new();
    for number in 0..calls {
        let due = ticks.tick().await;
        let call = call(number);
        running.spawn(async move { call.await.map(|()| due.elapsed()) });
    }
    let mut latencies = Vec::with_capacity(running.len());
    while let Some(ended) = running.join_next().await {
        latencies.push(ended.context("a call panicked")??);
    }
    latencies.sort_unstable();
    Ok(CallLatencies(latencies))
}

impl CallLatencies {
    /// The latency that so many percent of the calls did not exceed, in milliseconds.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default().as_secs_f64() * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_latencies() {
        let latencies = CallLatencies((1..=200).map(Duration::from_millis).collect());
        assert_eq!([50, 99, 100].map(|percent| latencies.percentile_ms(percent)), [100.0, 198.0, 200.0]);
        assert_eq!(CallLatencies::default().percentile_ms(99), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_begin_on_time_and_a_failed_one_is_an_error() {
        let slow = |_| async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(())
        };
        let latencies = run(10, Duration::from_secs(2), slow).await.unwrap();
        assert_eq!((latencies.0.len(), latencies.percentile_ms(50).round()), (20, 3000.0));
        let failing = |number| async move { if number == 7 { anyhow::bail!("no") } else { Ok(()) } };
        run(10, Duration::from_secs(1), failing).await.unwrap_err();
    }
}
