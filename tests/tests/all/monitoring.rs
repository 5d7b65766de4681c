//! The metrics, and the dashboard, the alerts and the runbook that ask for them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use artel_metrics::Metrics;
use artel_proto::v1;
use artel_tests::monitoring::{alerts, directory, queries, unknown_names};
use artel_tests::prometheus::{PrometheusServer, promtool, scrape};
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script, scripted_requests};
use artel_tests::{Daemon, daemon, repository};
use tonic::Code;

/// Long enough for a Prometheus that scrapes every second, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn every_query_names_metrics_and_labels_that_exist() {
    let metrics = Metrics::new();
    let queries = queries();
    assert!(queries.len() > 100, "{}", queries.len());
    for query in &queries {
        let unknown = unknown_names(&query.text, metrics.descriptions());
        assert!(unknown.is_empty(), "{}: {unknown:?} in `{}`", query.place, query.text);
    }
}

/// The reference of all metrics, as a page of the book.
fn reference() -> String {
    let mut page = "# Metrics\n\nWhat `GET /metrics` gives, in the order of the text. The [runbook](../runbook.md) says what to ask of it. This page is\n\
                    made from the program: `ARTEL_RECORD=1 cargo test -p artel-tests monitoring` writes it anew.\n\n\
                    | samples | kind | labels | what it says |\n|---|---|---|---|\n"
        .to_owned();
    for metric in Metrics::new().descriptions() {
        let samples = metric.sample_names().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let labels = metric.labels.iter().map(|label| match label.values {
            [] => format!("`{}`", label.name),
            values => format!("`{}`: {}", label.name, values.join(", ")),
        });
        let (kind, labels) = (format!("{:?}", metric.kind).to_lowercase(), labels.collect::<Vec<_>>().join("; "));
        writeln!(page, "| {samples} | {kind} | {labels} | {} |", metric.help).unwrap();
    }
    page
}

#[test]
fn the_reference_lists_every_metric() {
    let path = repository().join("docs/book/src/reference/metrics.md");
    if std::env::var_os("ARTEL_RECORD").is_some() {
        return fs::write(path, reference()).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), reference(), "`ARTEL_RECORD=1` writes the page anew");
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let unknown = |query: &str| unknown_names(query, Metrics::new().descriptions());
    assert_eq!(unknown("sum by (role) (rate(artel_steps_total{outcome=\"failed\"}[5m])) > 0"), Vec::<String>::new());
    assert_eq!(unknown("rate(artel_steps[5m])"), ["metric artel_steps"]);
    assert_eq!(unknown("artel_steps_total{model=\"talk\"}"), ["label model of artel_steps_total"]);
    let value = "value fails of label outcome of artel_steps_total";
    assert_eq!(unknown("artel_steps_total{outcome=~\"failed|fails\"}"), [value]);
    assert_eq!(unknown("sum by (model, role) (artel_steps_total)"), ["label model"]);
    assert_eq!(unknown("label_values(artel_steps_total{instance=~\".*\"}, model)"), ["label model"]);
}

#[test]
fn every_alert_names_a_section_of_the_runbook_and_has_a_test() {
    let runbook = fs::read_to_string(repository().join("docs/book/src/runbook.md")).unwrap();
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ');
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    let sections: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|name| format!("runbook.html#{}", anchor(name)))
        .collect();
    let tests = fs::read_to_string(directory().join("artel-alerts.test.yml")).unwrap();
    for (alert, section) in alerts() {
        assert!(sections.contains(&section), "{alert}: no {section} in {sections:?}");
        assert!(
            tests.contains(&format!(" {alert}\n")) || tests.contains(&format!("\"{alert}\"")),
            "{alert} has no test"
        );
    }
}

#[tokio::test]
async fn the_alerts_are_raised_by_what_they_say() {
    promtool(&["check", "rules", "artel-alerts.yml"], &directory()).await.unwrap();
    promtool(&["test", "rules", "artel-alerts.test.yml"], &directory()).await.unwrap();
    // The example names a token that is not on this machine.
    promtool(&["check", "config", "--syntax-only", "prometheus.yml"], &directory()).await.unwrap();
}

/// A daemon with scripted models.
async fn scripted_daemon() -> Daemon {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script()).start().await
}

/// Runs a task of every kind.
async fn run_tasks(daemon: &Daemon) {
    for request in scripted_requests() {
        daemon.run(request).await.end().await;
    }
}

/// The value of a sample of a text.
fn value(text: &str, sample: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {sample} in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn a_scrape_tells_what_tasks_and_calls_have_done() {
    let daemon = scripted_daemon().await;
    run_tasks(&daemon).await;
    let (head, text) = scrape(&daemon).await;
    assert!(head.contains(artel_metrics::CONTENT_TYPE), "{head}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let tasks = scripted_requests().len() as f64;
    for (sample, expected) in [
        ("artel_tasks_accepted_total{priority=\"interactive\"}", tasks),
        ("artel_tasks_ended_total{outcome=\"completed\"}", tasks - 1.0),
        ("artel_tasks_ended_total{outcome=\"failed\"}", 1.0),
        ("artel_steps_total{role=\"clown\",outcome=\"failed\"}", 1.0),
        ("artel_step_failures_total{role=\"clown\",code=\"output_invalid\"}", 1.0),
        // Each writes and judges twice.
        ("artel_steps_total{role=\"critic\",outcome=\"finished\"}", 2.0),
        ("artel_router_decisions_total{outcome=\"chosen\"}", 1.0),
        ("artel_engine_loads_total{model=\"talk\",outcome=\"loaded\"}", 1.0),
        ("artel_engines{model=\"talk\",state=\"ready\"}", 1.0),
        ("artel_steps_waiting{role=\"writer\"}", 0.0),
        ("artel_steps_running{role=\"writer\"}", 0.0),
        ("artel_journal_writable", 1.0),
    ] {
        assert_eq!(value(&text, sample), expected, "{sample}");
    }
    let generated = value(&text, "artel_engine_tokens_total{model=\"talk\",kind=\"generated\"}");
    let of_roles: f64 = ["writer", "sailor", "critic"]
        .map(|role| value(&text, &format!("artel_generated_tokens_total{{role=\"{role}\"}}")))
        .iter()
        .sum();
    assert!(
        of_roles > 0.0 && generated > of_roles,
        "those of failed steps are in the engine's: {generated}, {of_roles}"
    );
}

#[tokio::test]
async fn a_real_prometheus_answers_every_query() {
    let daemon = scripted_daemon().await;
    // So that every series is there at the first scrape; what comes after is an increase.
    run_tasks(&daemon).await;
    refuse_a_call(&daemon).await;
    let prometheus = PrometheusServer::watching(&daemon).await;
    let watch = async {
        prometheus.wait_for("up{job=\"artel\"} == 1").await;
        run_tasks(&daemon).await;
        refuse_a_call(&daemon).await;
        prometheus.wait_for("rate(artel_calls_refused_total[1m]) > 0").await;
        prometheus.wait_for("rate(artel_tasks_ended_total{outcome=\"completed\"}[1m]) > 0").await;
    };
    tokio::time::timeout(DEADLINE, watch).await.expect("it scrapes the daemon");
    for query in queries().iter().filter(|query| query.is_promql) {
        let result = prometheus.query(&query.text).await;
        let result = result.unwrap_or_else(|error| panic!("{}: {error} in `{}`", query.place, query.text));
        assert!(!query.has_data || !result.is_empty(), "{}: no data for `{}`", query.place, query.text);
    }
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").await.unwrap();
    assert!(firing.is_empty(), "nothing is wrong with the daemon: {firing:?}");
}

/// Asks for a task in an answer of one byte.
async fn refuse_a_call(daemon: &Daemon) {
    let tasks = daemon.tasks().list(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    let request = v1::GetTaskRequest { task_id: tasks[0].id.clone(), max_bytes: 1, ..v1::GetTaskRequest::default() };
    let refused = daemon.tasks().get(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}
