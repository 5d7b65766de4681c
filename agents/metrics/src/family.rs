//! Metrics with labels, and the description of each metric, which the queries of the dashboard are checked against.

use std::sync::Arc;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::label::LabelValues;

/// What every metric's name begins with.
const PREFIX: &str = "artel";

/// A label: its name, and its values if there is a fixed list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelName {
    /// The name.
    pub name: &'static str,
    /// All values that it can have; empty if they are names, which are bounded in number.
    pub values: &'static [&'static str],
}

impl LabelName {
    /// A label whose values are names.
    pub(crate) const fn of_names(name: &'static str) -> Self {
        Self { name, values: &[] }
    }

    /// A label with a fixed list of values.
    pub(crate) const fn of<E: LabelValues>(name: &'static str) -> Self {
        Self { name, values: E::TEXTS }
    }
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, and starts at 0 with the daemon. Its samples end in `_total`.
    Counter,
    /// It grows and shrinks.
    Gauge,
    /// A distribution: its samples end in `_bucket`, `_sum` and `_count`.
    Histogram,
    /// A constant, which says something by its labels. Its sample ends in `_info`.
    Info,
}

/// A metric, as people and queries know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDescription {
    /// Its name with prefix and unit, without the suffix of its samples.
    pub name: String,
    /// Its kind.
    pub kind: MetricKind,
    /// What it counts or measures.
    pub help: &'static str,
    /// Its labels.
    pub labels: Vec<LabelName>,
}

impl MetricDescription {
    /// The names of its samples, which queries use.
    pub fn sample_names(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.kind {
            MetricKind::Counter => &["_total"],
            MetricKind::Gauge => &[""],
            MetricKind::Histogram => &["_bucket", "_sum", "_count"],
            MetricKind::Info => &["_info"],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.name)).collect()
    }
}

/// The labels of a series with their values.
type SeriesLabels<const N: usize> = [(&'static str, Arc<str>); N];

/// A metric with `N` labels: a series for each combination of their values.
#[derive(Debug)]
pub(crate) struct MetricFamily<M, const N: usize> {
    names: [LabelName; N],
    series: Family<SeriesLabels<N>, M>,
}

impl<M: Clone, const N: usize> MetricFamily<M, N> {
    /// The series with these values, to be kept by what counts often: this looks it up, and locks.
    pub(crate) fn with(&self, values: [&Arc<str>; N]) -> M {
        let labels = std::array::from_fn(|at| (self.names[at].name, values[at].clone()));
        self.series.get_or_create_owned(&labels)
    }

    /// Forgets all series, before gauges are set from a sample.
    pub(crate) fn clear(&self) {
        self.series.clear();
    }
}

/// Collects the metrics while they are created.
#[derive(Debug)]
pub(crate) struct MetricRegister {
    registry: Registry,
    descriptions: Vec<MetricDescription>,
}

impl MetricRegister {
    pub(crate) fn new() -> Self {
        Self { registry: Registry::with_prefix(PREFIX), descriptions: Vec::new() }
    }

    /// A metric with labels, whose series `new` creates.
    pub(crate) fn family<M, const N: usize>(
        &mut self,
        name: &'static str,
        unit: Option<Unit>,
        help: &'static str,
        names: [LabelName; N],
        new: fn() -> M,
    ) -> MetricFamily<M, N>
    where
        M: EncodeMetric + TypedMetric + std::fmt::Debug + Clone + Send + Sync + 'static,
    {
        let series = Family::new_with_constructor(new);
        self.register(name, unit, help, &names, series.clone());
        MetricFamily { names, series }
    }

    /// A metric without labels.
    pub(crate) fn single<M: Metric + Clone>(
        &mut self,
        name: &'static str,
        unit: Option<Unit>,
        help: &'static str,
        metric: M,
    ) -> M {
        self.register(name, unit, help, &[], metric.clone());
        metric
    }

    /// A constant.
    pub(crate) fn register(
        &mut self,
        name: &'static str,
        unit: Option<Unit>,
        help: &'static str,
        labels: &[LabelName],
        metric: impl Metric,
    ) {
        let kind = match metric.metric_type() {
            MetricType::Counter => MetricKind::Counter,
            MetricType::Histogram => MetricKind::Histogram,
            MetricType::Info => MetricKind::Info,
            MetricType::Gauge | MetricType::Unknown => MetricKind::Gauge,
        };
        let with_unit = unit.as_ref().map_or_else(String::new, |unit| format!("_{}", unit.as_str()));
        let labels = labels.to_vec();
        self.descriptions.push(MetricDescription { name: format!("{PREFIX}_{name}{with_unit}"), kind, help, labels });
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric),
            None => self.registry.register(name, help, metric),
        }
    }

    /// The registry, which makes the text, and the descriptions of its metrics.
    pub(crate) fn finish(self) -> (Registry, Vec<MetricDescription>) {
        (self.registry, self.descriptions)
    }
}
