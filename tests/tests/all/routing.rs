//! The router from outside: evaluated on labelled questions, fitted, corrected by feedback.

use std::path::PathBuf;

use artel_proto::v1;
use artel_tests::{daemon, task_request, test_catalog};
use nix::sys::signal::Signal;
use tonic::Code;

fn questions(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("routing").join(name);
    path.to_str().unwrap().to_owned()
}

/// Below the measured accuracy of the shipped router, so that a few questions more or less do not fail the test.
const MIN_ACCURACY_RATIO: f64 = 0.82;

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_router_knows_its_roles_and_when_none_matches() {
    let daemon = daemon().start().await;
    let svg = daemon.dir().join("report.svg");
    let cases = questions("held-out.jsonl");
    let (code, out, err) = daemon.cli(["route", "--eval", &cases, "--json", "--svg"]).arg(svg.as_os_str()).run().await;
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let methods = report["methods"].as_array().unwrap();
    let names: Vec<&str> = methods.iter().map(|m| m["method"].as_str().unwrap()).collect();
    assert_eq!(names, ["embedding", "linear", "keyword", "combined"]);
    let metric = |name: &str| methods[3][name].as_f64().unwrap();
    assert!(metric("accuracy") >= MIN_ACCURACY_RATIO, "{report}");
    assert!(metric("out_of_scope_recall") >= 0.8 && metric("false_rejections") <= 0.1, "{report}");
    for method in &methods[..3] {
        assert!(
            method["accuracy"].as_f64().unwrap() <= metric("accuracy"),
            "the combination is at least as accurate: {report}"
        );
    }
    assert!(std::fs::read_to_string(svg).unwrap().contains(">combined<"));
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_kept_over_a_restart_and_routers_are_fitted_to_it() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let mut routed = daemon.run(task_request("How do I convert a model to GGUF?").with_graph("mentor")).await;
    routed.until_token().await;
    daemon.cancel(&routed.id).await;
    for (role, expected) in [("rag", 0), ("lora", 0), ("unknown", 2)] {
        let (code, _, err) =
            daemon.cli(["task", "feedback", &routed.id, "--role", role, "--comment", "no"]).run().await;
        assert_eq!(code, expected, "{err}");
    }
    let single = daemon.run(task_request("Hi").with_role("teller")).await;
    let request = v1::FeedbackRequest { task_id: single.id.clone(), ..v1::FeedbackRequest::default() };
    assert_eq!(daemon.tasks().feedback(request).await.unwrap_err().code(), Code::FailedPrecondition);
    daemon.cancel(&single.id).await;
    daemon.signal(Signal::SIGTERM);
    let daemon = daemon.restart().await;
    let list = daemon.router().list_feedback(v1::ListFeedbackRequest::default()).await.unwrap().into_inner();
    let entries: Vec<(&str, &str)> =
        list.entries.iter().map(|entry| (entry.text.as_str(), entry.role.as_str())).collect();
    assert_eq!(entries, [("How do I convert a model to GGUF?", "lora")]);
    let (code, _, err) = daemon.cli(["route", "--feedback"]).run().await;
    assert!(code == 2 && err.contains("too few"), "{err}");
    let cases = questions("fit.jsonl");
    let (code, out, err) = daemon.cli(["route", "--feedback", "--json", "--fit", &cases]).run().await;
    assert_eq!(code, 0, "{err}");
    let fitted: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(fitted["cases"], 348);
    let yaml = fitted["yaml"].as_str().unwrap();
    let file = v1::SourceFile { path: "router.yaml".to_owned(), content: yaml.as_bytes().to_vec() };
    let checked = daemon.catalog().validate(v1::ValidateRequest { files: vec![file] }).await.unwrap().into_inner();
    assert!(checked.valid, "{checked:?}");
}
