//! The limits of tokens on tasks: how many are open, and the model tokens of a day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_proto::v1;
use artel_proto::v1::tasks_client::TasksClient;
use artel_tests::prometheus::scrape;
use artel_tests::scripted::asking_daemon;
use artel_tests::{CallerChannel, Daemon};
use nix::sys::signal::Signal;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn tasks(daemon: &Daemon, token: &str) -> TasksClient<CallerChannel> {
    TasksClient::new(daemon.caller(token))
}

fn submission(graph: &str, request_id: &str) -> v1::SubmitRequest {
    let target = Some(v1::submit_request::Target::Graph(graph.to_owned()));
    let (input, request_id) = ("Which?".to_owned(), request_id.to_owned());
    v1::SubmitRequest { target, input, request_id, ..v1::SubmitRequest::default() }
}

async fn ask(daemon: &Daemon, token: &str) -> Result<v1::Task, Status> {
    tasks(daemon, token).submit(submission("question", "")).await.map(tonic::Response::into_inner)
}

async fn cancel(daemon: &Daemon, token: &str, id: &str) {
    let request = v1::CancelRequest { task_id: id.to_owned(), ..v1::CancelRequest::default() };
    tasks(daemon, token).cancel(request).await.unwrap();
}

/// Checks that a refusal says which limit, and gives its delay.
fn delay_of(refused: &Status, caller: &str, limit: &str) -> Duration {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let info = refused.get_details_error_info().unwrap();
    let told = ["caller", "limit"].map(|key| info.metadata[key].as_str());
    assert_eq!((info.reason.as_str(), told), ("CALLER_LIMIT", [caller, limit]), "{refused}");
    refused.get_details_retry_info().unwrap().retry_delay.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_as_many_tasks_open_as_its_token_allows_also_after_a_kill() {
    let daemon = asking_daemon().start().await;
    let ci = daemon.create_token("ci", "submit,read,answer", &["--open-tasks=2"]).await;
    let other = daemon.create_token("other", "submit", &["--open-tasks=2"]).await;
    let first = tasks(&daemon, &ci).submit(submission("question", "order-1")).await.unwrap().into_inner();
    let second = ask(&daemon, &ci).await.unwrap();
    let refused = ask(&daemon, &ci).await.unwrap_err();
    assert_eq!(refused.message(), "the caller `ci` may have 2 tasks open at the same time");
    assert!(!delay_of(&refused, "ci", "open_tasks").is_zero());
    let run = v1::RunRequest { submit: Some(submission("question", "")), cancel_on_disconnect: false };
    delay_of(&tasks(&daemon, &ci).run(run).await.unwrap_err(), "ci", "open_tasks");
    let fork = v1::ForkRequest { task_id: first.id.clone(), ..v1::ForkRequest::default() };
    delay_of(&tasks(&daemon, &ci).fork(fork).await.unwrap_err(), "ci", "open_tasks");
    let again = tasks(&daemon, &ci).submit(submission("question", "order-1")).await.unwrap().into_inner();
    assert_eq!(again.id, first.id, "the same request is no new task");
    for token in [&other, &daemon.token] {
        ask(&daemon, token).await.unwrap();
    }
    // A caller that has seen a task end may submit the next one.
    let mut open = second.id;
    for _ in 0..20 {
        cancel(&daemon, &ci, &open).await;
        open = ask(&daemon, &ci).await.unwrap().id;
    }
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    delay_of(&ask(&daemon, &ci).await.unwrap_err(), "ci", "open_tasks");
    cancel(&daemon, &ci, &open).await;
    ask(&daemon, &ci).await.unwrap();
    let (_, text) = scrape(&daemon).await;
    assert!(text.contains("artel_caller_calls_refused_total{caller=\"ci\"} 1\n"), "{text}");
    daemon.cli(["token", "revoke", "ci"]).run().await;
    let raised = daemon.create_token("ci", "submit", &["--open-tasks=3"]).await;
    ask(&daemon, &raised).await.unwrap();
    delay_of(&ask(&daemon, &raised).await.unwrap_err(), "ci", "open_tasks");
}

/// The days since 1970, in UTC.
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / DAY.as_secs()
}

/// Runs a task to its end; the model tokens that it used.
async fn run(daemon: &Daemon, token: &str) -> Result<u64, Status> {
    let request = v1::RunRequest { submit: Some(submission("line", "")), cancel_on_disconnect: false };
    let mut events = tasks(daemon, token).run(request).await?.into_inner();
    let mut tokens = 0;
    while let Some(event) = events.message().await? {
        if let Some(v1::event::Kind::StepFinished(v1::StepFinished { usage: Some(usage), .. })) = event.kind {
            tokens += usage.prompt_tokens + usage.output_tokens;
        }
    }
    Ok(tokens)
}

/// What must hold within one day.
async fn use_up_the_tokens_of_a_day(daemon: Daemon) {
    let ci = daemon.create_token("ci", "submit,read", &["--tokens-per-day=1"]).await;
    let other = daemon.create_token("other", "submit,read", &["--tokens-per-day=1000000000000"]).await;
    let used = run(&daemon, &ci).await.unwrap();
    assert!(used > 1, "{used}");
    let check = async |daemon: &Daemon, token: &str, limit: u64| {
        let refused = run(daemon, token).await.unwrap_err();
        let delay = delay_of(&refused, "ci", "tokens_per_day");
        assert!(delay <= DAY, "{delay:?}");
        let tokens = format!("may use {limit} model tokens a day and has used {used}");
        assert!(refused.message().contains(&tokens), "{refused}");
    };
    check(&daemon, &ci, 1).await;
    let (code, _, err) =
        daemon.cli(["task", "submit", "--graph", "line", "Which?"]).env("ARTEL_TOKEN", &ci).run().await;
    assert!(code == 1 && err.contains("limit tokens_per_day") && err.contains("retry in"), "{code} {err}");
    for token in [&other, &daemon.token] {
        run(&daemon, token).await.unwrap();
    }
    let (_, text) = scrape(&daemon).await;
    let counted = |kind: &str| {
        let sample = format!("artel_caller_tokens_total{{caller=\"ci\",kind=\"{kind}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&sample))
            .unwrap_or_else(|| panic!("{text}"))
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(counted("prompt") + counted("generated"), used);
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    check(&daemon, &ci, 1).await;
    daemon.cli(["token", "revoke", "ci"]).run().await;
    let raised = daemon.create_token("ci", "submit,read", &[&format!("--tokens-per-day={}", used + 1)]).await;
    assert_eq!(run(&daemon, &raised).await.unwrap(), used);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_uses_as_many_tokens_in_a_day_as_its_token_allows_also_after_a_kill() {
    loop {
        let (daemon, day) = (asking_daemon().start().await, today());
        let used = tokio::spawn(use_up_the_tokens_of_a_day(daemon)).await;
        match used {
            Ok(()) => return,
            // A midnight came between.
            Err(_) if today() != day => {}
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_are_listed_and_no_limit_of_nothing_is_taken() {
    let daemon = asking_daemon().start().await;
    daemon.create_token("ci", "submit", &["--open-tasks=2", "--tokens-per-day=3000000000000"]).await;
    let (_, out, _) = daemon.cli(["token", "list"]).run().await;
    assert!(out.contains("2 open tasks, 3000000000000 tokens a day"), "{out}");
    let (_, out, _) = daemon.cli(["token", "list", "--json"]).run().await;
    let token: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&token["limits"]["open_tasks"], &token["limits"]["tokens_per_day"]),
        (&2.into(), &3_000_000_000_000_u64.into())
    );
    for limit in ["--open-tasks=0", "--tokens-per-day=0", "--tokens-per-day=-1", "--open-tasks=many"] {
        let create = daemon.cli(["token", "create", "--name=x", "--scopes=submit"]);
        let (code, _, err) = create.arg(limit).run().await;
        assert_eq!(code, 2, "{limit}: {err}");
    }
}
