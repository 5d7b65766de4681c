//! The text for Prometheus, with what engines and devices tell at this moment.

use std::time::Duration;

use artel_actors::{EngineReport, EngineState};
use artel_metrics::{DeviceSample, EnginePhase, EngineSample, EngineTotals, ScrapeSample};
use artel_placement::DeviceBytes;
use tokio::time::timeout;

use crate::machine::DeviceStatus;
use crate::state::ServiceState;

/// How long engines may take to tell their figures, and devices after them. An engine that hangs is left with its last ones
/// after two seconds; both times together are within the ten seconds that Prometheus waits for an answer by default.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a scrape waits for another one to end, which takes milliseconds unless something hangs.
const SCRAPE_TIMEOUT: Duration = Duration::from_millis(500);

impl ServiceState {
    /// The metrics in OpenMetrics form, of content type [`artel_metrics::CONTENT_TYPE`]. It ends in bounded time: what does not
    /// answer keeps its last figures.
    pub async fn scrape(&self) -> String {
        // One at a time: of two samples that overlap, it is not known which one is the later.
        let Ok(_one_at_a_time) = timeout(SCRAPE_TIMEOUT, self.scrape_lock.lock()).await else {
            let sample = ScrapeSample { tasks: self.runtime.task_counts(), ..ScrapeSample::default() };
            return self.runtime.metrics().scrape(&sample);
        };
        let reports = self.runtime.engines_within(SAMPLE_TIMEOUT).await;
        let devices = match &reports {
            Some(reports) => self.device_samples(taken(reports)).await,
            None => None,
        };
        let engines = reports.map(|reports| reports.iter().map(engine_sample).collect());
        let sample = ScrapeSample { tasks: self.runtime.task_counts(), engines, devices };
        self.runtime.metrics().scrape(&sample)
    }

    async fn device_samples(&self, taken: DeviceBytes) -> Option<Vec<DeviceSample>> {
        let machine = self.machine.clone();
        // A task of its own, so that a scan that takes longer ends all the same, and is found by the next scrape.
        let statuses = tokio::spawn(async move {
            let statuses = machine.device_statuses(&taken).await;
            statuses.into_iter().map(|status| device_sample(status, &taken)).collect()
        });
        timeout(SAMPLE_TIMEOUT, statuses).await.ok()?.ok()
    }
}

/// The memory that our engines use on each device.
fn taken(reports: &[EngineReport]) -> DeviceBytes {
    let mut taken = DeviceBytes::new();
    for (device, bytes) in reports.iter().flat_map(|report| &report.device_bytes) {
        *taken.entry(device.clone()).or_default() += bytes;
    }
    taken
}

fn engine_sample(report: &EngineReport) -> EngineSample {
    let phase = match &report.state {
        EngineState::Unloaded => EnginePhase::Unloaded,
        EngineState::Loading(_) => EnginePhase::Loading,
        EngineState::Ready => EnginePhase::Ready,
        EngineState::Draining => EnginePhase::Draining,
        EngineState::Failed { retry_after: Some(_), .. } => EnginePhase::Failed,
        EngineState::Failed { retry_after: None, .. } => EnginePhase::GivenUp,
    };
    let totals = report.stats.map(|stats| EngineTotals {
        batches: stats.batches,
        batch_tokens: stats.batch_tokens,
        batch_time: Duration::from_nanos(stats.batch_ns),
        compute_time: Duration::from_nanos(stats.compute_ns),
        prefill_tokens: stats.prefill_tokens,
        cached_tokens: stats.cached_tokens,
        generated_tokens: stats.output_tokens,
        drafted_tokens: stats.drafted_tokens,
        accepted_tokens: stats.accepted_tokens,
        finished: stats.finished,
        cancelled: stats.cancelled,
        failed: stats.failed,
    });
    let stats = report.stats.unwrap_or_default();
    EngineSample {
        id: report.id.clone(),
        phase,
        ready_since: report.ready_since,
        totals,
        running_sequences: stats.running,
        waiting_sequences: stats.waiting,
        waiting_steps: report.waiting_steps,
        prefix_cache_bytes: stats.prefix_cache_bytes,
    }
}

fn device_sample(status: DeviceStatus, taken: &DeviceBytes) -> DeviceSample {
    let used_bytes = taken.get(&status.name).copied().unwrap_or(0);
    let reading = status.reading.unwrap_or_default();
    DeviceSample {
        name: status.name,
        is_available: status.problem.is_none(),
        size_bytes: status.total,
        free_bytes: status.free.saturating_sub(used_bytes),
        used_bytes,
        utilization: reading.load,
        celsius: reading.celsius,
        watts: reading.watts,
    }
}
