//! What an older version wrote is read: a journal of version 0.1 from before the renaming, whose catalog has the old keys
//! of YAML.

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::daemon;
use serde_json::{Value, json};

const JOURNAL: &[u8] = include_bytes!("../../fixtures/journal-0.1/journal.sqlite");
const FEEDBACK: &[u8] = include_bytes!("../../fixtures/journal-0.1/feedback.jsonl");
/// What the version that wrote the journal said of its tasks.
const TASKS: &str = include_str!("../../fixtures/journal-0.1/tasks.json");

fn name(enum_value: &str, prefix: &str) -> String {
    enum_value.strip_prefix(prefix).unwrap().to_lowercase()
}

/// A task as `tasks.json` describes it.
fn described(task: &v1::Task) -> Value {
    let steps = task.steps.iter().map(|step| json!([step.id, name(step.state().as_str_name(), "STEP_STATE_")]));
    let code = task.failure.as_ref().map(|failure| name(failure.code().as_str_name(), "FAILURE_CODE_"));
    json!({
        "id": task.id,
        "state": name(task.state().as_str_name(), "TASK_STATE_"),
        "graph": task.graph,
        "role": task.role,
        "last_seq": task.last_seq,
        "steps": steps.collect::<Vec<_>>(),
        "text": task.result.as_ref().map(|output| output.text.clone()).unwrap_or_default(),
        "failure": code.unwrap_or_default(),
        "labels": task.labels,
        "forked_from": task.forked_from_task_id,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_version_0_1_is_read_and_its_waiting_task_is_answered() {
    // The journal was written in 2026; by default ended tasks are deleted after 30 days.
    let daemon = daemon()
        .with_settings("grace: 60s\nretention: {age: 3650d}\n")
        .with_data("journal.sqlite", JOURNAL)
        .with_data("feedback.jsonl", FEEDBACK)
        .start()
        .await;
    let tasks: Vec<Value> = serde_json::from_str(TASKS).unwrap();
    assert_eq!(tasks.len(), 7);
    let mut waiting = None;
    for expected in tasks {
        let id = expected["id"].as_str().unwrap();
        if expected["state"] == "waiting" {
            waiting = Some(id.to_owned());
            continue;
        }
        let task = daemon.task(id).await;
        assert_eq!(described(&task), expected);
        assert_eq!(task.owner, "owner", "there were no callers yet");
        let mut run = daemon.watch(id, 0).await;
        run.end().await;
        let last = expected["last_seq"].as_u64().unwrap();
        assert_eq!(run.seqs(), (1..=last).collect::<Vec<_>>());
    }
    let id = waiting.unwrap();
    let answer = |text: &str| v1::AnswerRequest {
        task_id: id.clone(),
        step_id: String::new(),
        answer: Some(v1::answer_request::Answer::Text(text.to_owned())),
    };
    // The edge back to the writer has a bound, and its node has the retries of old.
    let mut run = daemon.watch(&id, 0).await;
    run.until(|kind| matches!(kind, Kind::Resumed(_))).await;
    daemon.tasks().answer(answer("no")).await.unwrap();
    run.until(|kind| matches!(kind, Kind::Waiting(waiting) if waiting.step_id != "confirm")).await;
    daemon.tasks().answer(answer("yes")).await.unwrap();
    assert_eq!(run.end().await.text(), "yes");
    let feedback = daemon.router().list_feedback(v1::ListFeedbackRequest::default()).await.unwrap().into_inner();
    assert_eq!((feedback.entries.len(), feedback.entries[0].role.as_str()), (1, "lora"));
    assert_eq!(feedback.entries[0].caller, "owner");
    let own = v1::ListTasksRequest { owner: "owner".to_owned(), ..v1::ListTasksRequest::default() };
    assert_eq!(daemon.tasks().list(own).await.unwrap().into_inner().tasks.len(), 7);
}
