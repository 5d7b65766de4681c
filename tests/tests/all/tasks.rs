//! Tasks over gRPC, on the real model.

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::{TaskOutcome, daemon, task_request, test_catalog};
use nix::sys::signal::Signal;
use tonic::Code;
use tonic_types::StatusExt as _;

const FRANCE: &str = "What is the capital of France?";

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_through_the_shipped_graph() {
    let daemon = daemon().start().await;
    let mut run =
        daemon.run(task_request("Which quantisation should I download, Q4_K_M or Q8_0?").with_graph("mentor")).await;
    let text = run.end().await.text();
    let routed = run.events.iter().find_map(|event| match &event.kind {
        Some(Kind::Routed(routed)) => routed.decision.clone(),
        _ => None,
    });
    let decision = routed.unwrap();
    assert_eq!((decision.role.as_str(), decision.otherwise), ("gguf", false));
    assert!(decision.scores.len() >= 6 && decision.prefill_tokens > 0, "{decision:?}");
    let seqs = run.seqs();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let task = daemon.task(&run.id).await;
    assert_eq!(task.state(), v1::TaskState::Completed);
    assert_eq!(task.result.unwrap().text, text);
    let nodes: Vec<&str> = task.steps.iter().map(|step| step.node.as_str()).collect();
    assert!(nodes.starts_with(&["pick", "answer", "check"]), "{nodes:?}");
    let verdict = task.steps.iter().find(|step| step.node == "check").and_then(|step| step.output.clone()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&verdict.text).unwrap();
    assert!(["ship", "revise"].contains(&json["verdict"].as_str().unwrap()), "{json}");
    assert!(task.steps.iter().all(|step| step.state() == v1::StepState::Finished && step.end_time.is_some()));
    let answer = task.steps.iter().find(|step| step.node == "answer").unwrap();
    assert_eq!(run.tokens(&answer.id).trim(), answer.output.as_ref().unwrap().text);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_tasks_over_several_roles_run_at_once_and_each_has_its_own_adapter() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let cities = [("zork", "Zorkville"), ("quux", "Quuxburg"), ("mirk", "Mirkholm"), ("velo", "Velograd")];
    let mut runs = Vec::new();
    for (role, city) in cities.into_iter().chain(cities) {
        runs.push((daemon.run(task_request(FRANCE).with_role(role)).await, city));
    }
    for (run, city) in &mut runs {
        let text = run.end().await.text();
        assert!(text.contains(*city), "{city} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_sequence_frees_its_slot_for_the_next_task() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    // The engine of this model decodes one sequence at a time: the second task starts when the first is gone.
    let mut first = daemon.run(task_request("Tell a long story.").with_role("teller")).await;
    first.until_token().await;
    let mut second = daemon.run(task_request(FRANCE).with_role("brief")).await;
    let cancelled = daemon.cancel(&first.id).await;
    assert_eq!((cancelled.state(), cancelled.cancel_reason.as_str()), (v1::TaskState::Cancelled, "the test"));
    assert_eq!(first.end().await, TaskOutcome::Cancelled("the test".to_owned()));
    second.end().await.text();
    let engines = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner().engines;
    let solo = engines.iter().find(|engine| engine.model == "solo").unwrap();
    assert_eq!((solo.active_sequences, solo.queued_sequences), (0, 0));
    let totals = solo.totals.unwrap();
    assert!(totals.output_tokens < 1500, "decoding stopped at the cancellation: {totals:?}");
    // An ended task does not change.
    assert_eq!(daemon.cancel(&first.id).await, cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_cancelled_with_its_client_if_the_client_asked_for_that() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let target = v1::submit_request::Target::Role("teller".to_owned());
    let submit = v1::SubmitRequest { target: Some(target), input: "Go on.".to_owned(), ..Default::default() };
    let request = v1::RunRequest { submit: Some(submit), cancel_on_disconnect: true };
    let mut stream = daemon.tasks().run(request).await.unwrap().into_inner();
    let id = stream.message().await.unwrap().unwrap().task_id;
    let mut watch = daemon.watch(&id, 0).await;
    watch.until_token().await;
    drop(stream);
    assert_eq!(watch.end().await, TaskOutcome::Cancelled("its client disconnected".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_running_tasks_end_and_accepts_no_new_ones() {
    let mut daemon = daemon().with_yaml(&test_catalog()).start().await;
    let mut run = daemon.run(task_request(FRANCE).with_graph("chain")).await;
    run.until_token().await;
    daemon.signal(Signal::SIGTERM);
    let refused = loop {
        match daemon.submit(task_request("And Spain?").with_role("short")).await {
            // The signal may take a moment to arrive.
            Ok(task) => drop(daemon.cancel(&task.id).await),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    run.end().await.text();
    assert_eq!(daemon.wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_sigterm_stopped_is_resumed_at_the_next_start_and_its_watcher_misses_nothing() {
    let mut daemon = daemon().with_yaml(&test_catalog()).with_settings("grace: 0s\n").start().await;
    let mut run = daemon.run(task_request(FRANCE).with_role("zork").with_label("for", "test")).await;
    let mut long = daemon.run(task_request("Tell a long story.").with_role("teller")).await;
    long.until_token().await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await.code(), Some(0));
    let cut = loop {
        match long.next().await {
            Ok(kind) => assert!(kind.is_some(), "a stream that breaks off ends with an error"),
            Err(status) => break status,
        }
    };
    assert_eq!(cut.code(), Code::Unavailable, "{cut:?}");
    // The short one may have ended before the signal.
    while let Ok(Some(_)) = run.next().await {}
    let daemon = daemon.restart().await;
    let mut rewatched = daemon.watch(&long.id, long.last_seq()).await;
    let resumed = rewatched.until(|kind| !matches!(kind, Kind::Progress(_))).await;
    assert!(matches!(resumed, Kind::Resumed(_)), "{resumed:?}");
    assert_eq!(rewatched.seqs()[0], long.last_seq() + 1);
    rewatched.until_token().await;
    daemon.cancel(&long.id).await;
    let text = daemon.watch(&run.id, 0).await.end().await.text();
    assert!(text.contains("Zorkville"), "{text}");
    assert_eq!(daemon.task(&run.id).await.labels["for"], "test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_has_lost_no_task_that_it_acknowledged() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let mut ids = Vec::new();
    for n in 0..6 {
        let request = task_request(FRANCE).with_role("quux").with_request_id(&format!("request-{n}"));
        ids.push(daemon.submit(request).await.unwrap().id);
    }
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    for (n, id) in ids.iter().enumerate() {
        let mut run = daemon.watch(id, 0).await;
        let text = run.end().await.text();
        assert!(text.contains("Quuxburg"), "{text}");
        let seqs = run.seqs();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        let same = daemon
            .submit(task_request(FRANCE).with_role("quux").with_request_id(&format!("request-{n}")))
            .await
            .unwrap();
        assert_eq!(&same.id, id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_are_refused_with_every_fault_and_the_nearest_name() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let status = daemon.submit(task_request("").with_request_id("two words")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let fields: Vec<String> =
        status.get_details_bad_request().unwrap().field_violations.into_iter().map(|v| v.field).collect();
    assert_eq!(fields, ["input", "request_id"]);
    let status = daemon.submit(task_request("x").with_graph("mentro")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("DEFINITION_NOT_FOUND", "artel.v1"));
    assert_eq!(info.metadata["nearest"], "mentor");
    let large = daemon.submit(task_request(&"x".repeat(1024 * 1024 + 1)).with_role("short")).await.unwrap_err();
    assert_eq!(large.code(), Code::InvalidArgument, "{large:?}");
    let missing =
        v1::GetTaskRequest { task_id: "0198c0de-0000-7000-8000-000000000000".to_owned(), ..Default::default() };
    let status = daemon.tasks().get(missing).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "TASK_NOT_FOUND");
    let first = daemon.submit(task_request("x").with_role("brief").with_request_id("one")).await.unwrap();
    let status = daemon.submit(task_request("y").with_role("brief").with_request_id("one")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.get_details_error_info().unwrap().metadata["task_id"].clone()),
        (Code::AlreadyExists, first.id)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_too_long_fails_alone() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let mut long = daemon.run(task_request(&"many words ".repeat(5000)).with_role("short")).await;
    let TaskOutcome::Failed(code, message) = long.end().await else { panic!("it does not fit") };
    assert_eq!(code, v1::FailureCode::ContextOverflow);
    assert!(message.contains("2048"), "{message}");
    daemon.run(task_request(FRANCE).with_role("short")).await.end().await.text();
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_in_pages_by_state_graph_role_and_label() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    for n in 0..5 {
        let request = task_request("Hello").with_role("brief").with_label("n", &n.to_string());
        daemon.run(request).await.end().await;
    }
    daemon.run(task_request("Hello").with_graph("chain")).await.end().await;
    let list = async |request: v1::ListTasksRequest| daemon.tasks().list(request).await.unwrap().into_inner();
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let page = list(v1::ListTasksRequest { page_size: 4, page_token: token, ..Default::default() }).await;
        ids.extend(page.tasks.into_iter().map(|task| task.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let newest_first = ids.windows(2).all(|pair| pair[0] > pair[1]);
    assert_eq!((ids.len(), newest_first), (6, true), "{ids:?}");
    let of_role = list(v1::ListTasksRequest { role: "brief".to_owned(), ..Default::default() }).await;
    assert_eq!(of_role.tasks.len(), 5);
    assert!(of_role.tasks.iter().all(|task| task.input.is_empty() && task.state() == v1::TaskState::Completed));
    let of_graph = list(v1::ListTasksRequest { graph: "chain".to_owned(), ..Default::default() }).await;
    assert_eq!(of_graph.tasks.len(), 1);
    let labelled = v1::ListTasksRequest { labels: [("n".to_owned(), "3".to_owned())].into(), ..Default::default() };
    assert_eq!(list(labelled).await.tasks.len(), 1);
    let failed = v1::ListTasksRequest { states: vec![v1::TaskState::Failed.into()], ..Default::default() };
    assert!(list(failed).await.tasks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prefix_of_a_role_is_cached_over_a_restart() {
    let yaml = "model: talk\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 1024\n---\n\
                role: sage\ndescription: D.\nmodel: talk\nprompt: |\n  You know much and say little. You were asked many \
                things by many people, and you have never said more than was needed. Answer in three words.\n\
                sampling: {temperature: 0, max_tokens: 8}\n";
    let daemon = daemon().with_yaml(yaml).start().await;
    let usage = async |daemon: &artel_tests::Daemon, text: &str| {
        let mut run = daemon.run(task_request(text).with_role("sage")).await;
        run.end().await.text();
        let usage = daemon.task(&run.id).await.usage.unwrap();
        assert_eq!(usage.cached_tokens + usage.prefill_tokens, usage.prompt_tokens, "{usage:?}");
        usage
    };
    usage(&daemon, "Who are you?").await;
    let warm = usage(&daemon, "What do you know?").await;
    assert!(warm.cached_tokens > 30, "{warm:?}");
    daemon.signal(Signal::SIGTERM);
    let daemon = daemon.restart().await;
    let restarted = usage(&daemon, "Where do you live?").await;
    assert_eq!(restarted.cached_tokens, warm.cached_tokens);
    // Nothing else was computed on this model: the prefix came from disk.
    let engines = daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap().into_inner().engines;
    let totals = engines.iter().find(|engine| engine.model == "talk").and_then(|engine| engine.totals).unwrap();
    assert_eq!(totals.prefill_tokens, restarted.prefill_tokens, "{totals:?}");
}
