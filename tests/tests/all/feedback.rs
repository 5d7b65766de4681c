//! Feedback on decisions deep within a task: in subgraphs, and one for each item.

use artel_proto::v1;
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{daemon, task_request};
use tonic::Code;

const GRAPHS: &str = "---
graph: nested
description: A graph with a router for each of two questions.
start: each
result: each
nodes:
  each: {graph: fan, for_each: '[\"Where does the river flow?\", \"Which sail for a storm?\"]', next: inner}
  inner: {graph: fan, next: done}
---
graph: mapped
description: A router that decides for each of two questions.
start: pick
result: write
nodes:
  pick:
    router: {roles: [writer, sailor]}
    for_each: '[\"Where does the river flow?\", \"Which sail for a storm?\"]'
    next: write
  write:
    role: {from: pick}
    for_each: '[\"Where does the river flow?\", \"Which sail for a storm?\"]'
    next: done
";

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_in_a_subgraph_or_about_an_item_is_corrected_by_itself() {
    let daemon =
        daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{GRAPHS}")).with_failpoints(&model_script()).start().await;
    let mut expected = Vec::new();
    for (graph, steps) in
        [("nested", &["each[0]/pick", "each[1]/pick", "inner/pick"][..]), ("mapped", &["pick[0]", "pick[1]"])]
    {
        let mut run = daemon.run(task_request("Hello").with_graph(graph)).await;
        run.end().await.text();
        let task = daemon.task(&run.id).await;
        for id in steps {
            let step = task.steps.iter().find(|step| step.id == *id).unwrap_or_else(|| panic!("{id}: {task:?}"));
            let chosen = step.decision.as_ref().unwrap().role.clone();
            let right = if chosen == "writer" { "sailor" } else { "writer" };
            for role in ["clown", right] {
                let (task_id, step_id, comment) = (run.id.clone(), step.id.clone(), "no".to_owned());
                let request = v1::FeedbackRequest { task_id, step_id, role: role.to_owned(), comment };
                daemon.tasks().feedback(request).await.unwrap();
            }
            expected.push((step.id.clone(), step.output.as_ref().unwrap().text.clone(), chosen, right.to_owned()));
        }
        let other = task.steps.iter().find(|step| step.decision.is_none()).unwrap();
        for (step_id, code) in [(other.id.as_str(), Code::FailedPrecondition), ("each[9]/pick", Code::NotFound)] {
            let (task_id, step_id) = (run.id.clone(), step_id.to_owned());
            let request = v1::FeedbackRequest { task_id, step_id, ..v1::FeedbackRequest::default() };
            assert_eq!(daemon.tasks().feedback(request).await.unwrap_err().code(), code);
        }
    }
    let list = daemon.router().list_feedback(v1::ListFeedbackRequest::default()).await.unwrap().into_inner();
    let entries: Vec<_> = list.entries.into_iter().map(|e| (e.step_id, e.text, e.chosen, e.role)).collect();
    assert_eq!(entries, expected);
    let read: Vec<&str> = entries.iter().map(|(_, text, ..)| text.as_str()).collect();
    let (river, sail) = ("Where does the river flow?", "Which sail for a storm?");
    assert_eq!(read[..2], [river, sail], "the text that each router in a subgraph read");
    assert_eq!(read[3..], [river, sail], "the text that the router read for each item");
}
