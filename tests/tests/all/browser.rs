//! Pages in a real browser: those of listed origins may call, and all others see nothing and cause nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::scripts::{NodeScripts, chromium};
use artel_tests::{daemon, prometheus};
use serde_json::{Value, json};

/// No test waits longer for the browser.
const BROWSER_TIMEOUT: Duration = Duration::from_secs(120);
/// The reasons of refusals by the gate.
const REFUSED_METRIC: &str = "artel_calls_refused_total";

/// What a page saw of each way in which it tried to reach the daemon.
fn attempts(seen: &Value) -> BTreeMap<String, Value> {
    let attempts: BTreeMap<String, Value> = seen.as_object().unwrap().clone().into_iter().collect();
    assert!(attempts.len() >= 15, "{seen}");
    attempts
}

/// How often the daemon refused a request for this reason, by its metrics.
fn refused(metrics: &str, reason: &str) -> u64 {
    let prefix = format!("{REFUSED_METRIC}{{reason=\"{reason}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&prefix)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_and_a_rebound_name_get_nothing_in_a_browser() {
    let builder = daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script());
    let daemon = builder.with_settings("http: {origins: ['http://desk.example']}\n").start().await;
    let scripts = NodeScripts::new().await;
    let pages = scripts.cli("browser.mjs").arg(chromium());
    let pages = pages.arg(daemon.address.rsplit(':').next().unwrap()).env("ARTEL_TOKEN", &daemon.token);
    let (code, out, err) = tokio::time::timeout(BROWSER_TIMEOUT, pages.run()).await.expect("the pages end");
    assert_eq!(code, 0, "{out}{err}");
    let seen: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));

    // Pages of other origins see nothing, whether they know the token or not.
    let mut foreign = 0;
    for origin in ["another_site", "another_port"] {
        for (way, answer) in attempts(&seen[origin]) {
            assert_eq!(answer, Value::Null, "{origin}: {way}");
            foreign += 1;
        }
    }
    // A page of a rebound name is of the daemon's origin for the browser, and sees that it is refused.
    let rebound = attempts(&seen["rebound"]);
    for (way, answer) in &rebound {
        let is_refusal = |text: &str| text.replace("%20", " ").contains("by which this daemon is not known");
        assert!(answer.as_str().is_none_or(is_refusal), "{way}: {answer}");
    }
    let words = rebound["metrics_with_the_token"].as_str().unwrap();
    assert!(words.starts_with("421 ") && words.contains("evil.example") && words.contains("hosts"), "{words}");

    // It was the daemon that refused them, not the browser.
    let (_, metrics) = prometheus::scrape(&daemon).await;
    assert!(refused(&metrics, "ORIGIN_REFUSED") >= foreign, "{metrics}");
    assert!(refused(&metrics, "HOST_REFUSED") >= rebound.len() as u64, "{metrics}");
    daemon.until_logged("requests are refused: the request comes from a page of").await;

    // The page of a listed origin is served, and only its task was made.
    let listed = &seen["listed"];
    assert_eq!((&listed["health"], &listed["metrics"]), (&json!("ok"), &json!(200)), "{listed}");
    assert_eq!(listed["run"]["text"], "<from the listed page>", "{listed}");
    assert_eq!((&listed["run"]["state"], &listed["run"]["listed"]), (&json!("TASK_STATE_COMPLETED"), &json!(true)));
    assert_eq!(
        (&listed["no_token"]["code"], &listed["no_token"]["reason"]),
        (&json!("UNAUTHENTICATED"), &json!("UNAUTHENTICATED"))
    );
    let tasks = daemon.tasks().list(artel_proto::v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    assert_eq!(tasks.len(), 1, "{tasks:?}");
}
