//! What a role learns from, as its owner uses it: answers are rated and corrected, files of samples are checked, and what was erased
//! is not learned.

use std::fs;

use artel_proto::v1;
use artel_proto::v1::AnswerRating::{Bad, Good};
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Daemon, DaemonBuilder, daemon, task_request};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::Code;

const TRAININGS: &str = "---
training: better-writer
role: writer
data: [chats.jsonl, ratings]
held_out: test.jsonl
---
training: better-critic
role: critic
data: ratings
---
training: lost
role: writer
data: missing.jsonl
";

/// A role that answers from a knowledge.
const CLERK: &str = "---
knowledge: notes
search: {mode: keyword}
---
role: clerk
description: Answers from the notes.
model: talk
knowledge: notes
prompt: You cite.
";

fn training_daemon() -> DaemonBuilder {
    daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{CLERK}{TRAININGS}")).with_failpoints(&model_script())
}

async fn rate(daemon: &Daemon, task_id: &str, rating: v1::AnswerRating, correction: &str) -> v1::RateResponse {
    let (task_id, correction) = (task_id.to_owned(), correction.to_owned());
    let request = v1::RateRequest { task_id, rating: rating.into(), correction, ..v1::RateRequest::default() };
    daemon.tasks().rate(request).await.unwrap().into_inner()
}

/// A task of this role that has ended.
async fn answered(daemon: &Daemon, role: &str, input: &str) -> String {
    let mut run = daemon.run(task_request(input).with_role(role)).await;
    run.end().await.text();
    run.id.clone()
}

/// The lines that a command prints as JSON.
async fn lines<const N: usize>(daemon: &Daemon, args: [&str; N]) -> Vec<Value> {
    let (code, out, err) = daemon.cli(args).run().await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_answer_becomes_a_sample_as_the_role_reads_it() {
    let daemon = training_daemon()
        .with_file(
            "chats.jsonl",
            b"{\"input\": \"One.\", \"output\": \"1\"}\n{\"input\": \"One.\", \"output\": \"1\"}\n{\n",
        )
        .with_file("test.jsonl", b"{\"input\": \"Nine.\", \"output\": \"9\"}\n")
        .start()
        .await;
    let mut run = daemon.run(task_request("Two.").with_graph("line")).await;
    run.end().await.text();
    let correction = daemon.dir().join("correction");
    fs::write(&correction, "2\n").unwrap();
    let step = daemon.task(&run.id).await.steps.iter().find(|step| step.role == "writer").unwrap().id.clone();
    let rated = daemon.cli(["task", "rate", &run.id, "bad", "--step", &step, "--comment", "no", "--correct"]);
    let (code, out, err) = rated.arg(&correction).run().await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, format!("rated the answer of writer in step {step}\n"));
    let good = answered(&daemon, "writer", "Three.").await;
    assert!(rate(&daemon, &good, Good, "").await.trainable);

    let samples = lines(&daemon, ["data", "show", "better-writer", "--json"]).await;
    let shown: Vec<_> =
        samples.iter().map(|sample| (&sample["messages"][1]["text"], &sample["answer"], &sample["held_out"])).collect();
    let expected = [
        (json!("One."), json!("1"), json!(false)),
        (json!("Two."), json!("2"), json!(false)),
        (json!("Three."), json!("<Three.>"), json!(false)),
        (json!("Nine."), json!("9"), json!(true)),
    ];
    assert_eq!(shown, expected.each_ref().map(|(text, answer, held_out)| (text, answer, held_out)));
    assert!(samples.iter().all(|sample| sample["messages"][0]["text"] == "You write."), "{samples:?}");

    let file = daemon.dir().join("out.jsonl");
    let export = daemon.cli(["data", "export", "better-writer", "--part", "train"]);
    let (code, out, _) = export.arg(&file).run().await;
    assert_eq!((code, out), (0, format!("wrote 3 samples to {}\n", file.display())));
    let exported: Vec<Value> =
        fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let chat = json!({"messages": [
        {"role": "system", "content": "You write."}, {"role": "user", "content": "Two."}, {"role": "assistant", "content": "2"},
    ]});
    assert_eq!((exported.len(), &exported[1]), (3, &chat));

    let (code, out, _) = daemon.cli(["data", "lint", "better-writer"]).run().await;
    assert_eq!(code, 0);
    for told in [
        "4 samples: 3 to train on, 1 held out; 2 left out\n",
        "samples of      chats.jsonl 1, ratings 2, test.jsonl 1\n",
        "! 1 sample is held out: with fewer than 100",
        "    chats.jsonl:2: it is the same as chats.jsonl:1\n",
        "    chats.jsonl:3: it is no JSON: EOF while parsing an object, at column 1\n",
    ] {
        assert!(out.contains(told), "{told}\n{out}");
    }
    let (code, _, err) = daemon.cli(["data", "lint", "lost"]).run().await;
    assert!(code != 0 && err.contains("missing.jsonl") && !err.contains(&*daemon.dir().to_string_lossy()), "{err}");
    let (_, _, err) = daemon.cli(["data", "show", "better-riter"]).run().await;
    assert!(err.contains("there is no training `better-riter`; did you mean `better-writer`?"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rating_that_means_nothing_is_refused_and_one_that_teaches_nothing_says_so() {
    let daemon = training_daemon().start().await;
    let mut run = daemon.run(task_request("Judge.").with_graph("loop")).await;
    run.end().await.text();
    let refused = |step: &str, rating: v1::AnswerRating, correction: &str| {
        let (task_id, step_id) = (run.id.clone(), step.to_owned());
        let (rating, correction) = (rating.into(), correction.to_owned());
        let request = v1::RateRequest { task_id, step_id, rating, correction, ..v1::RateRequest::default() };
        let mut tasks = daemon.tasks();
        async move { tasks.rate(request).await.unwrap_err() }
    };
    let critic = daemon.task(&run.id).await.steps.iter().find(|step| step.role == "critic").unwrap().id.clone();
    for (status, code, told) in [
        (
            refused("", v1::AnswerRating::Unspecified, "").await,
            Code::InvalidArgument,
            "rating: is neither good nor bad",
        ),
        (refused("", Good, "better").await, Code::InvalidArgument, "correction: an answer that is good needs none"),
        (refused("", Bad, " \n").await, Code::InvalidArgument, "correction: is empty"),
        (refused(&critic, Bad, "ship").await, Code::InvalidArgument, "role `critic` answers in JSON, and this is none"),
        (refused(&critic, Bad, "{\"verdict\": 1}").await, Code::InvalidArgument, "correction: at /verdict"),
        (refused("nowhere", Good, "").await, Code::NotFound, "has no step `nowhere`"),
    ] {
        assert!(status.code() == code && status.message().contains(told), "{status:?}");
    }
    let mut routed = daemon.run(task_request("Which sail?").with_graph("fan")).await;
    routed.end().await.text();
    let request = v1::RateRequest {
        task_id: routed.id.clone(),
        step_id: "pick".to_owned(),
        rating: Good.into(),
        ..v1::RateRequest::default()
    };
    let status = daemon.tasks().rate(request).await.unwrap_err();
    assert!(
        status.code() == Code::FailedPrecondition && status.message().contains("no answer of a role"),
        "{status:?}"
    );
    // What a role has read of a knowledge is not kept.
    let clerk = answered(&daemon, "clerk", "Hello?").await;
    assert!(!rate(&daemon, &clerk, Good, "").await.trainable);
    let (code, out, _) = daemon.cli(["task", "rate", &clerk, "bad"]).run().await;
    assert!(code == 0 && out.contains("nothing can be learned from it without the answer"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_not_learned_and_a_rating_outlives_a_restart() {
    let daemon = training_daemon().start().await;
    let token = daemon.create_token("ann", "submit,read", &[]).await;
    let mut tasks = v1::tasks_client::TasksClient::new(daemon.caller(&token));
    let target = Some(v1::submit_request::Target::Role("critic".to_owned()));
    let submit = v1::SubmitRequest { target, input: "Of ann.".to_owned(), ..v1::SubmitRequest::default() };
    let request = v1::RunRequest { submit: Some(submit), cancel_on_disconnect: false };
    let mut events = tasks.run(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(event) = events.message().await.unwrap() {
        last = Some(event);
    }
    let of_ann = last.unwrap().task_id;
    let own = answered(&daemon, "critic", "Of the owner.").await;
    // Another caller's task is no task to it.
    let request = v1::RateRequest { task_id: own.clone(), rating: Good.into(), ..v1::RateRequest::default() };
    assert_eq!(tasks.rate(request).await.unwrap_err().code(), Code::NotFound);
    for task in [&of_ann, &own] {
        rate(&daemon, task, Bad, "{\"verdict\": \"ship\"}").await;
    }
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    let samples = lines(&daemon, ["data", "show", "better-critic", "--json"]).await;
    assert_eq!(samples.len(), 2, "{samples:?}");
    let (code, out, _) = daemon.cli(["task", "erase", "--owner", "ann", "--yes"]).run().await;
    assert!(code == 0 && out.contains("removed 1 rating of an answer\n"), "{out}");
    let samples = lines(&daemon, ["data", "show", "better-critic", "--json"]).await;
    assert!(samples.len() == 1 && samples[0]["messages"][1]["text"] == "Of the owner.", "{samples:?}");
    let stored = fs::read_to_string(daemon.dir().join("data/ratings.jsonl")).unwrap();
    assert!(!stored.contains("Of ann"), "{stored}");
}
