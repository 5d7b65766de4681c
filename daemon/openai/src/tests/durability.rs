//! Tasks that outlive the connections of their clients.

use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind as K;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tower::ServiceExt as _;

use super::scripted::{Play, ReadResponse, Scripted, TASK_ID, TestCaller, completed_text, live, refusal, token};

const PATH: &str = "/v1/chat/completions";
const KEY: (&str, &str) = ("idempotency-key", "key-1");

fn request(stream: bool) -> Value {
    json!({"model": "helper", "messages": [{"role": "user", "content": "hello"}], "stream": stream})
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_task_unless_it_says_otherwise() {
    let detached = json!({"model": "helper", "messages": [{"role": "user", "content": "a"}],
        "metadata": {"artel-detach": "true"}});
    for (headers, body, cancels) in [
        (vec![], request(false), true),
        (vec![("x-artel-detach", "true")], request(false), false),
        (vec![], detached, false),
        (vec![KEY], request(false), false),
    ] {
        let (services, _signals) = Scripted::new();
        let services = services.plays([completed_text("hi")]);
        ReadResponse::of(services.post(PATH, &headers, &body).await).await;
        assert_eq!(services.runs()[0].cancel_on_disconnect, cancels);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_waited_for_and_then_the_task_is_cancelled() {
    let (services, mut signals) = Scripted::new();
    let (_sender, play) = live();
    let services = services.plays([token("s1", "answer", 0, "hel"), play]);
    let response = services.post(PATH, &[KEY], &request(true)).await;
    assert_eq!(services.submit().request_id, "key-1");
    let gone = Instant::now();
    drop(response);
    let cancelled = signals.cancelled.recv().await.unwrap();
    assert_eq!((gone.elapsed(), cancelled.task_id.as_str()), (Duration::from_secs(60), TASK_ID));
    assert_eq!(cancelled.reason, "its client disconnected and did not come back");
}

#[tokio::test(start_paused = true)]
async fn the_same_key_attaches_again_and_keeps_the_task() {
    let (services, mut signals) = Scripted::new();
    let ((_first, first_play), (second, second_play)) = (live(), live());
    let services = services.plays([token("s1", "answer", 0, "hel"), first_play]).plays([second_play]);
    let router = services.router();
    drop(send(&router, "false").await);
    tokio::time::advance(Duration::from_secs(59)).await;
    let again = send(&router, "false").await;
    assert!(timeout(Duration::from_secs(600), signals.cancelled.recv()).await.is_err(), "a client is attached");
    // The tokens before it are lost, and come from the result.
    let events = [token("s1", "answer", 3, "lo"), completed_text("hello")];
    for play in events {
        let Play::Event(kind) = play else { panic!() };
        second.send(kind).unwrap();
    }
    let chunks = ReadResponse::of(again).await.chunks();
    let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "hello");
    assert!(timeout(Duration::from_secs(600), signals.cancelled.recv()).await.is_err(), "the task has ended");
}

#[tokio::test(start_paused = true)]
async fn of_several_clients_the_last_one_to_go_decides() {
    let (services, mut signals) = Scripted::new();
    let ((_first, first_play), (_second, second_play)) = (live(), live());
    let services = services.plays([first_play]).plays([second_play]);
    let router = services.router();
    let (waited_for, detached) = (send(&router, "false").await, send(&router, "true").await);
    drop(waited_for);
    drop(detached);
    assert!(timeout(Duration::from_secs(600), signals.cancelled.recv()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_a_restart_is_not_cancelled() {
    let (services, mut signals) = Scripted::new();
    let gone = |reason| Play::Fail(refusal(Code::Unavailable, reason, |_| {}));
    let services = services.plays([token("s1", "answer", 0, "hel"), gone("SHUTTING_DOWN")]);
    let response = ReadResponse::of(services.post(PATH, &[KEY], &request(true)).await).await;
    assert_eq!(response.chunks().last().unwrap()["error"]["code"], "shutting_down");
    assert!(timeout(Duration::from_secs(600), signals.cancelled.recv()).await.is_err());
    // A stream that ends otherwise leaves a task that goes on.
    for play in [Some(gone("TOO_LARGE")), None] {
        let services = services.clone().plays([token("s1", "answer", 0, "hel")].into_iter().chain(play));
        ReadResponse::of(services.post(PATH, &[KEY], &request(true)).await).await;
        let cancelled = timeout(Duration::from_secs(600), signals.cancelled.recv()).await.unwrap();
        assert_eq!(cancelled.unwrap().task_id, TASK_ID);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_set_aside_without_a_client_is_not_cancelled() {
    let (services, mut signals) = Scripted::new();
    let (_sender, play) = live();
    let state = v1::TaskState::SetAside.into();
    let task = v1::Task { id: TASK_ID.to_owned(), state, ..v1::Task::default() };
    let services = services.plays([play]).keeps(task);
    drop(services.post(PATH, &[KEY], &request(true)).await);
    assert!(timeout(Duration::from_secs(600), signals.cancelled.recv()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_in_the_last_moment_keeps_the_task() {
    let (services, mut signals) = Scripted::new();
    let ((_first, first_play), (_second, second_play)) = (live(), live());
    let services = services.plays([first_play]).plays([second_play]);
    let router = services.router();
    drop(send(&router, "false").await);
    tokio::time::advance(Duration::from_secs(59)).await;
    let release = services.holds("run");
    let mut again = Box::pin(send(&router, "false"));
    assert!(timeout(Duration::from_secs(600), &mut again).await.is_err());
    assert!(signals.cancelled.try_recv().is_err(), "it is on its way");
    drop(release);
    let _again = again.await;
    assert!(timeout(Duration::from_secs(600), signals.cancelled.recv()).await.is_err(), "it is attached");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_too_late_finds_a_task_that_is_cancelled() {
    let (services, mut signals) = Scripted::new();
    let (_sender, play) = live();
    let cancelled = Play::Event(K::Cancelled(v1::Cancelled { reason: "gone".to_owned(), ..Default::default() }));
    let services = services.plays([play]).plays([cancelled]);
    let router = services.router();
    let release = services.holds("cancel");
    drop(send(&router, "false").await);
    signals.cancelled.recv().await.unwrap();
    let mut again = Box::pin(send(&router, "false"));
    assert!(timeout(Duration::from_secs(600), &mut again).await.is_err());
    assert_eq!(services.runs().len(), 1, "it waits for the cancellation");
    drop(release);
    assert_eq!(again.await.status(), 409);
}

/// A request with the key.
async fn send(router: &Router, detach: &str) -> Response<Body> {
    let body = Body::from(request(true).to_string());
    let request =
        Request::post(PATH).header(KEY.0, KEY.1).header("x-artel-detach", detach).extension(TestCaller("ada"));
    router.clone().oneshot(request.body(body).unwrap()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_before_its_task_is_on_disk_is_waited_for_all_the_same() {
    let (services, mut signals) = Scripted::new();
    let (_sender, play) = live();
    let services = services.plays([play]);
    let body = request(false);
    let call = services.post(PATH, &[KEY], &body);
    // The call is dropped at its first wait.
    assert!(timeout(Duration::ZERO, call).await.is_err());
    assert_eq!(signals.cancelled.recv().await.unwrap().task_id, TASK_ID);
}

#[tokio::test]
async fn a_key_of_another_request_is_refused() {
    let (services, _signals) = Scripted::new();
    let services = services.refuses(refusal(Code::AlreadyExists, "REQUEST_ID_REUSED", |_| {}));
    let response = ReadResponse::of(services.post(PATH, &[KEY], &request(false)).await).await;
    let error = &response.json()["error"];
    assert_eq!((response.status.as_u16(), error["code"].as_str()), (409, Some("idempotency_key_reused")));
    assert_eq!((error["param"].as_str(), response.header("x-artel-task")), (Some("Idempotency-Key"), TASK_ID));
    assert_eq!(response.header("x-should-retry"), "false", "clients of OpenAI try 409 again otherwise");
}

#[tokio::test]
async fn what_is_no_switch_in_a_header_is_refused() {
    let (services, _signals) = Scripted::new();
    let response = ReadResponse::of(services.post(PATH, &[("x-artel-events", "all")], &request(false)).await).await;
    assert_eq!((response.status.as_u16(), &response.json()["error"]["param"]), (400, &json!("x-artel-events")));
}
