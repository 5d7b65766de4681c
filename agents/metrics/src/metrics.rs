//! All metrics of a runtime.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::callers::CallerMetrics;
use crate::calls::CallMetrics;
use crate::connections::ConnectionMetrics;
use crate::devices::{DeviceMetrics, DeviceSample};
use crate::engines::{EngineMetrics, EngineSample};
use crate::family::{LabelName, MetricDescription, MetricRegister};
use crate::http::HttpMetrics;
use crate::journal::JournalMetrics;
use crate::tasks::{TaskCounts, TaskMetrics};
use crate::traces::TraceMetrics;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one runtime and of what is around it.
#[derive(Debug)]
pub struct Metrics {
    /// Tasks, roles and routers.
    pub tasks: TaskMetrics,
    /// Engines.
    pub engines: EngineMetrics,
    /// Devices.
    pub devices: DeviceMetrics,
    /// The journal.
    pub journal: JournalMetrics,
    /// Calls of clients.
    pub calls: CallMetrics,
    /// Requests over plain HTTP.
    pub http: HttpMetrics,
    /// The callers among them.
    pub callers: CallerMetrics,
    /// Their connections.
    pub connections: ConnectionMetrics,
    /// Spans of traces.
    pub traces: TraceMetrics,
    start_time: Gauge,
    registry: Registry,
    descriptions: Vec<MetricDescription>,
    /// Held while gauges are set from a sample and while the text is made, so that none is seen half set.
    sampling: Mutex<()>,
}

/// What is read when the text is asked for. What could not be read in time keeps its last values.
#[derive(Debug, Clone, Default)]
pub struct ScrapeSample {
    /// The open tasks.
    pub tasks: TaskCounts,
    /// All engines.
    pub engines: Option<Vec<EngineSample>>,
    /// All devices.
    pub devices: Option<Vec<DeviceSample>>,
}

impl Metrics {
    /// Metrics that have counted nothing.
    pub fn new() -> Arc<Self> {
        let mut register = MetricRegister::new();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        register.register("build", None, "The version of the daemon", &[LabelName::of_names("version")], version);
        let help = "When the daemon started, in seconds since 1970";
        let start_time = register.single("start_time", Some(Unit::Seconds), help, Gauge::default());
        let tasks = TaskMetrics::new(&mut register);
        let engines = EngineMetrics::new(&mut register);
        let devices = DeviceMetrics::new(&mut register);
        let journal = JournalMetrics::new(&mut register);
        let calls = CallMetrics::new(&mut register);
        let http = HttpMetrics::new(&mut register);
        let callers = CallerMetrics::new(&mut register);
        let connections = ConnectionMetrics::new(&mut register);
        let traces = TraceMetrics::new(&mut register);
        let (registry, descriptions) = register.finish();
        Arc::new(Self {
            tasks,
            engines,
            devices,
            journal,
            calls,
            http,
            callers,
            connections,
            traces,
            start_time,
            registry,
            descriptions,
            sampling: Mutex::default(),
        })
    }

    /// The daemon started at this time.
    pub fn started_at(&self, time: SystemTime) {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.start_time.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Takes a sample, and returns the text with it.
    pub fn scrape(&self, sample: &ScrapeSample) -> String {
        let _sampling = self.sampling.lock().unwrap_or_else(PoisonError::into_inner);
        self.tasks.set_open(sample.tasks);
        if let Some(engines) = &sample.engines {
            self.engines.sampled(engines);
        }
        if let Some(devices) = &sample.devices {
            self.devices.sampled(devices);
        }
        self.text()
    }

    /// The text in OpenMetrics form, with the samples that were taken last.
    pub fn encode(&self) -> String {
        let _sampling = self.sampling.lock().unwrap_or_else(PoisonError::into_inner);
        self.text()
    }

    fn text(&self) -> String {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry).expect("a String takes whatever is written");
        encoded
    }

    /// What there is, whether or not it has counted anything yet.
    pub fn descriptions(&self) -> &[MetricDescription] {
        &self.descriptions
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::{EngineEnd, LoadOutcome, OTHER};

    #[test]
    fn every_metric_is_described_with_help_and_its_labels_are_those_of_its_samples() {
        let metrics = Metrics::new();
        metrics.tasks.role("cook");
        metrics.engines.model("talk").loaded(Duration::from_secs(1));
        metrics.calls.ended(&metrics.calls.begin("Tasks/Get"), "OK");
        metrics.calls.refused("TOO_LARGE");
        metrics.http.ended(&metrics.http.begin("/v1/models"), 200);
        metrics.callers.refused("ci");
        metrics.callers.tokens("ci");
        let gpu = DeviceSample {
            name: "CUDA0".to_owned(),
            is_available: true,
            size_bytes: 3,
            free_bytes: 2,
            used_bytes: 1,
            utilization: Some(0.5),
            celsius: Some(40.0),
            watts: Some(100.0),
        };
        let engine = EngineSample {
            id: "talk".to_owned(),
            phase: crate::EnginePhase::Ready,
            ready_since: None,
            totals: Some(crate::EngineTotals::default()),
            running_sequences: 0,
            waiting_sequences: 0,
            waiting_steps: 0,
            prefix_cache_bytes: 0,
        };
        let sample =
            ScrapeSample { tasks: TaskCounts::default(), engines: Some(vec![engine]), devices: Some(vec![gpu]) };
        let text = metrics.scrape(&sample);
        for description in metrics.descriptions() {
            let MetricDescription { name, help, labels, .. } = description;
            assert!(text.contains(&format!("# HELP {name} {help}.\n")), "{name}\n{text}");
            let sample = description.sample_names().remove(0);
            let line =
                text.lines().find(|line| line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with(['{', ' '])));
            let line = line.unwrap_or_else(|| panic!("{sample}\n{text}"));
            let inside = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let mut found: BTreeSet<&str> =
                inside.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect();
            found.remove("le");
            assert_eq!(found, labels.iter().map(|label| label.name).collect(), "{line}");
        }
        let names: BTreeSet<&str> = metrics.descriptions().iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names.len(), metrics.descriptions().len(), "each name is used once");
    }

    #[test]
    fn no_client_makes_up_methods_and_reasons_without_end() {
        let metrics = Metrics::new();
        metrics.calls.declare(["Tasks/Get"]);
        for number in 0..1000 {
            let call = metrics.calls.begin(&format!("made/up-{number}"));
            metrics.calls.ended(&call, &format!("code-{number}"));
            metrics.calls.refused(&format!("reason-{number}"));
        }
        metrics.calls.ended(&metrics.calls.begin("Tasks/Get"), "code-0");
        let text = metrics.encode();
        assert!(text.contains("artel_grpc_calls_total{method=\"Tasks/Get\",code=\"code-0\"} 1\n"), "{text}");
        assert!(!text.contains("made/up"), "{text}");
        let refused = text.lines().filter(|line| line.starts_with("artel_calls_refused_total{")).count();
        assert_eq!(refused, crate::MAX_REFUSAL_VALUES + 1);
        assert!(text.lines().count() < 500, "{text}");
    }

    #[test]
    fn callers_beyond_their_bound_are_added_up() {
        let metrics = Metrics::new();
        for number in 0..crate::MAX_CALLER_VALUES + 10 {
            metrics.callers.refused(&format!("caller-{number}"));
        }
        let text = metrics.encode();
        assert!(text.contains("artel_caller_calls_refused_total{caller=\"other\"} 10\n"));
        assert!(text.contains("artel_caller_calls_refused_total{caller=\"caller-9999\"} 1\n"));
    }

    #[test]
    fn models_and_devices_beyond_their_bounds_are_added_up() {
        let metrics = Metrics::new();
        for number in 0..crate::MAX_MODEL_VALUES + 10 {
            let model = metrics.engines.model(&format!("model-{number}"));
            model.load_failed(LoadOutcome::Failed);
            model.ended(EngineEnd::Evicted);
        }
        let text = metrics.encode();
        let other = format!("artel_engine_ends_total{{model=\"{OTHER}\",reason=\"evicted\"}} 10\n");
        assert!(text.contains(&other), "{text}");
        let device = |number: usize| DeviceSample {
            name: format!("RPC[box:{number}]"),
            is_available: false,
            size_bytes: 1,
            free_bytes: 0,
            used_bytes: 0,
            utilization: Some(1.0),
            celsius: None,
            watts: None,
        };
        let devices = Some((0..crate::MAX_DEVICE_VALUES + 5).map(device).collect());
        let text = metrics.scrape(&ScrapeSample { devices, ..ScrapeSample::default() });
        assert!(text.contains("artel_device_memory_size_bytes{device=\"other\"} 5\n"), "{text}");
        assert!(!text.contains("artel_device_utilization_ratio{device=\"other\"}"), "a sum of them says nothing");
    }

    #[test]
    fn the_start_of_the_daemon_and_its_version_are_there() {
        let metrics = Metrics::new();
        metrics.started_at(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let text = metrics.encode();
        assert!(text.contains("artel_start_time_seconds 1700000000\n"), "{text}");
        assert!(text.contains(&format!("artel_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
