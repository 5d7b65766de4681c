//! The queries of the dashboard, the alerts and the runbook, and what they name.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use artel_metrics::{LabelName, MetricDescription};
use serde_json::Value;

use crate::book;
use crate::prerequisites::repository;

/// Labels that Prometheus adds by itself, or that histograms have.
const COMMON_LABELS: [&str; 3] = ["instance", "job", "le"];
/// Metrics of Prometheus itself that queries may name.
const OTHER_METRICS: [&str; 1] = ["up"];
/// Metrics that have no data on a machine without a GPU.
const GPU_METRICS: [&str; 3] =
    ["artel_device_utilization_ratio", "artel_device_temperature_celsius", "artel_device_power_watts"];

/// A query, and where it stands.
#[derive(Debug)]
pub struct MonitoringQuery {
    /// The file, and the panel or the alert.
    pub place: String,
    /// The query, with values for the variables of a dashboard.
    pub text: String,
    /// Whether it answers with data on a daemon that works, and has refused one call.
    pub has_data: bool,
    /// Whether Prometheus understands it: the queries of a dashboard's variables are Grafana's own.
    pub is_promql: bool,
}

/// The directory of the dashboard and the alerts.
pub fn directory() -> PathBuf {
    repository().join("docs/monitoring")
}

fn read(name: &str) -> String {
    fs::read_to_string(directory().join(name)).unwrap()
}

/// All queries.
pub fn queries() -> Vec<MonitoringQuery> {
    let mut queries = alert_queries();
    queries.extend(dashboard_queries());
    queries.extend(runbook_queries());
    queries
}

/// The names of the alerts, and the sections of the runbook that they name.
pub fn alerts() -> Vec<(String, String)> {
    let text = read("artel-alerts.yml");
    let values = |key: &str| -> Vec<String> {
        let lines =
            text.lines().filter_map(|line| Some(line.trim().trim_start_matches("- ").strip_prefix(key)?.trim()));
        lines.map(|value| value.trim_matches('"').to_owned()).collect()
    };
    let (names, sections) = (values("alert:"), values("runbook:"));
    assert_eq!(names.len(), sections.len(), "each alert names its section");
    names.into_iter().zip(sections).collect()
}

fn alert_queries() -> Vec<MonitoringQuery> {
    let text = read("artel-alerts.yml");
    let expressions: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    let alerts = alerts();
    assert_eq!(alerts.len(), expressions.len(), "each condition is one line");
    let query = |((alert, _), text): ((String, String), &str)| MonitoringQuery {
        place: format!("artel-alerts.yml, {alert}"),
        text: text.to_owned(),
        // Nothing is wrong with the daemon.
        has_data: false,
        is_promql: true,
    };
    alerts.into_iter().zip(expressions).map(query).collect()
}

fn dashboard_queries() -> Vec<MonitoringQuery> {
    let dashboard: Value = serde_json::from_str(&read("artel-dashboard.json")).unwrap();
    let mut queries = Vec::new();
    let query = |place: &Value, text: &str, is_promql: bool, has_data: bool| {
        let has_data = has_data && !GPU_METRICS.iter().any(|metric| text.contains(metric));
        let place = format!("artel-dashboard.json, {}", place.as_str().unwrap());
        MonitoringQuery { place, text: with_values(text), has_data, is_promql }
    };
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().into_iter().flatten();
        queries.extend(targets.map(|target| query(&panel["title"], target["expr"].as_str().unwrap(), true, true)));
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        queries.push(query(&annotation["name"], annotation["expr"].as_str().unwrap(), true, false));
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables = variables.filter(|variable| variable["type"] == "query");
    queries.extend(variables.map(|one| query(&one["name"], one["definition"].as_str().unwrap(), false, false)));
    queries
}

/// As Grafana fills in its variables if all values are chosen.
fn with_values(text: &str) -> String {
    let text = text.replace("$__rate_interval", "5m");
    ["$instance", "$role", "$model"].iter().fold(text, |text, variable| text.replace(variable, ".*"))
}

/// The blocks of the runbook: those tagged `promql`, and `promql,event` if they may be empty.
fn runbook_queries() -> Vec<MonitoringQuery> {
    let page = PathBuf::from("docs/book/src/runbook.md");
    let text = fs::read_to_string(repository().join(&page)).unwrap();
    let events: BTreeSet<String> = text.split("```promql,event\n").skip(1).filter_map(first_block).collect();
    let blocks = book::blocks(&page).into_iter().filter(|block| block.language == "promql");
    let query = |text: String| MonitoringQuery {
        place: format!("runbook.md, `{text}`"),
        has_data: !events.contains(&text) || text.contains("refused"),
        text,
        is_promql: true,
    };
    blocks.map(|block| query(block.text.trim().to_owned())).collect()
}

fn first_block(text: &str) -> Option<String> {
    text.split("```").next().map(|block| block.trim().to_owned())
}

/// What a query names that does not exist among these metrics.
pub fn unknown_names(query: &str, metrics: &[MetricDescription]) -> Vec<String> {
    let mut scan = QueryScan { rest: query, metrics, labels: Vec::new(), unknown: Vec::new() };
    scan.run();
    scan.unknown
}

/// A pass over the words of a query.
struct QueryScan<'a> {
    rest: &'a str,
    metrics: &'a [MetricDescription],
    /// The labels of the metrics so far.
    labels: Vec<LabelName>,
    unknown: Vec<String>,
}

impl<'a> QueryScan<'a> {
    fn run(&mut self) {
        // Groupings may stand before the metrics whose labels they name.
        let mut groupings = Vec::new();
        while let Some(word) = self.next_word() {
            let is_metric = word.starts_with("artel_") || OTHER_METRICS.contains(&word);
            if is_metric {
                self.metric(word);
            } else if matches!(word, "by" | "without" | "on" | "ignoring" | "group_left" | "group_right") {
                groupings.extend(self.bracketed('(', ')').split(',').map(str::trim).filter(|name| !name.is_empty()));
            } else if word == "label_values" {
                let arguments = self.bracketed('(', ')');
                groupings.extend(arguments.rsplit(',').next().map(str::trim));
                let metrics = self.metrics;
                let mut inner = QueryScan { rest: arguments, metrics, labels: Vec::new(), unknown: Vec::new() };
                let name = inner.next_word().unwrap_or_default();
                inner.metric(name);
                self.labels.extend(inner.labels);
                self.unknown.extend(inner.unknown);
            }
        }
        for name in groupings {
            if !self.has_label(name) {
                self.unknown.push(format!("label {name}"));
            }
        }
    }

    /// A metric with its conditions, if it has any.
    fn metric(&mut self, name: &str) {
        let metric = self.metrics.iter().find(|metric| metric.sample_names().iter().any(|sample| sample == name));
        let labels = metric.map(|metric| metric.labels.clone()).unwrap_or_default();
        self.labels.extend(&labels);
        if metric.is_none() && !OTHER_METRICS.contains(&name) {
            self.unknown.push(format!("metric {name}"));
        }
        for condition in self.bracketed('{', '}').split(',').filter(|condition| !condition.trim().is_empty()) {
            let end = condition.find(['=', '!']).unwrap_or(condition.len());
            let (label, value) = (condition[..end].trim(), condition[end..].trim_matches(['=', '!', '~', '"', ' ']));
            match labels.iter().find(|known| known.name == label) {
                Some(known) if known.values.is_empty() => {}
                Some(known) => {
                    let values = value.split('|').filter(|value| *value != ".*" && !known.values.contains(value));
                    self.unknown.extend(values.map(|value| format!("value {value} of label {label} of {name}")));
                }
                None if COMMON_LABELS.contains(&label) => {}
                None => self.unknown.push(format!("label {label} of {name}")),
            }
        }
    }

    fn has_label(&self, name: &str) -> bool {
        COMMON_LABELS.contains(&name) || self.labels.iter().any(|label| label.name == name)
    }

    /// The next name, with everything before it and all texts in quotes skipped.
    fn next_word(&mut self) -> Option<&'a str> {
        loop {
            let start = self.rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '"')?;
            let rest = &self.rest[start..];
            if let Some(quoted) = rest.strip_prefix('"') {
                self.rest = &quoted[quoted.find('"')? + 1..];
                continue;
            }
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            self.rest = &rest[end..];
            return Some(&rest[..end]);
        }
    }

    /// What stands in brackets here; nothing if there are none.
    fn bracketed(&mut self, open: char, close: char) -> &'a str {
        let Some(inside) = self.rest.trim_start().strip_prefix(open) else { return "" };
        let mut depth = 1;
        for (at, char) in inside.char_indices() {
            depth = if char == open {
                depth + 1
            } else if char == close {
                depth - 1
            } else {
                depth
            };
            if depth == 0 {
                self.rest = &inside[at + 1..];
                return &inside[..at];
            }
        }
        ""
    }
}
