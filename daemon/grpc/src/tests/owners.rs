//! Two callers of one daemon: each sees and changes its own tasks, and another's are as if they did not exist.

use artel_access::{AccessScope, Caller, TokenLimits};
use artel_actors::{CallerQuota, Viewer};
use artel_feedback::FeedbackRecord;
use artel_proto::v1::router_server::Router;
use artel_task::{CallerName, RoleName, TaskId};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::*;

/// A graph whose tasks wait for a person and need no model.
const QUESTION: &str = "---
graph: form
description: Asks.
start: sign
result: sign
nodes:
  sign: {ask: {message: 'Sign {{ input }}?'}, next: done}
";

/// The id of no task.
const MISSING: &str = "0198c0de-0000-7000-8000-000000000000";

fn viewer(name: &str) -> Viewer {
    Viewer {
        caller: CallerName::parse(name).unwrap(),
        sees_all: false,
        controls_all: false,
        quota: CallerQuota::default(),
    }
}

/// A caller that sees the tasks of all and changes its own.
fn auditor() -> Viewer {
    Viewer { sees_all: true, ..viewer("auditor") }
}

fn as_caller<T>(viewer: &Viewer, message: T) -> Request<T> {
    let more = [(viewer.sees_all, AccessScope::ReadAll), (viewer.controls_all, AccessScope::Admin)];
    let more = more.into_iter().filter_map(|(has, scope)| has.then_some(scope));
    let scopes = [AccessScope::Read, AccessScope::Submit, AccessScope::Answer].into_iter().chain(more).collect();
    let mut request = Request::new(message);
    let CallerQuota { open_tasks, tokens_per_day } = viewer.quota;
    let limits = TokenLimits { open_tasks, tokens_per_day, ..TokenLimits::default() };
    request.extensions_mut().insert(Caller { name: viewer.caller.clone(), scopes, limits });
    request
}

async fn start(dir: &Path) -> ServiceState {
    let state = services(dir).await;
    let form = YamlSource { path: "form.yaml".to_owned(), dir: None, text: format!("{CATALOG}{QUESTION}") };
    let catalog = Catalog::parse(vec![shipped::sources(), vec![form]]).unwrap();
    state.runtime.replace_catalog(catalog, None).await.unwrap();
    state
}

fn form(input: &str, request_id: &str) -> v1::SubmitRequest {
    let target = Some(v1::submit_request::Target::Graph("form".to_owned()));
    let (input, request_id) = (input.to_owned(), request_id.to_owned());
    v1::SubmitRequest { target, input, request_id, ..v1::SubmitRequest::default() }
}

/// Submits a task that waits for a person.
async fn submit(state: &ServiceState, viewer: &Viewer, input: &str, request_id: &str) -> v1::Task {
    Tasks::submit(state, as_caller(viewer, form(input, request_id))).await.unwrap().into_inner()
}

async fn get(state: &ServiceState, viewer: &Viewer, id: &str) -> v1::Task {
    let request = v1::GetTaskRequest { task_id: id.to_owned(), ..v1::GetTaskRequest::default() };
    Tasks::get(state, as_caller(viewer, request)).await.unwrap().into_inner()
}

fn watch_request(id: &str) -> v1::WatchRequest {
    v1::WatchRequest { task_id: id.to_owned(), ..v1::WatchRequest::default() }
}

/// Waits until the task asks its question.
async fn wait_for_question(state: &ServiceState, viewer: &Viewer, id: &str) {
    let mut events = Tasks::watch(state, as_caller(viewer, watch_request(id))).await.unwrap().into_inner();
    while !matches!(events.next().await.unwrap().unwrap().kind, Some(v1::event::Kind::Waiting(_))) {}
}

async fn erase(state: &ServiceState, viewer: &Viewer, ids: &[&str], owner: &str) -> Result<v1::EraseResponse, Status> {
    let task_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let request = v1::EraseRequest { task_ids, owner: owner.to_owned() };
    Tasks::erase(state, as_caller(viewer, request)).await.map(tonic::Response::into_inner)
}

/// What each method about one task says to a caller.
async fn answers(state: &ServiceState, viewer: &Viewer, id: &str) -> Vec<Status> {
    let (task_id, step_id) = (id.to_owned(), String::new());
    let get = v1::GetTaskRequest { task_id: task_id.clone(), ..v1::GetTaskRequest::default() };
    let cancel = v1::CancelRequest { task_id: task_id.clone(), reason: String::new(), step_id: step_id.clone() };
    let cancel_step = v1::CancelRequest { step_id: "sign".to_owned(), ..cancel.clone() };
    let given = Some(v1::answer_request::Answer::Text("yes".to_owned()));
    let answer = v1::AnswerRequest { task_id: task_id.clone(), step_id, answer: given };
    let resume = v1::ResumeRequest { task_id: task_id.clone() };
    let fork = v1::ForkRequest { task_id: task_id.clone(), ..v1::ForkRequest::default() };
    let feedback = v1::FeedbackRequest { task_id, ..v1::FeedbackRequest::default() };
    let answers = [
        Tasks::get(state, as_caller(viewer, get)).await.err(),
        Tasks::watch(state, as_caller(viewer, watch_request(id))).await.err(),
        Tasks::fork(state, as_caller(viewer, fork)).await.err(),
        Tasks::answer(state, as_caller(viewer, answer)).await.err(),
        Tasks::cancel(state, as_caller(viewer, cancel)).await.err(),
        Tasks::cancel(state, as_caller(viewer, cancel_step)).await.err(),
        Tasks::resume(state, as_caller(viewer, resume)).await.err(),
        Tasks::feedback(state, as_caller(viewer, feedback)).await.err(),
        erase(state, viewer, &[id], "").await.err(),
    ];
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| Status::ok(""))).collect()
}

/// All that a client can tell two errors apart by, but for the id that it asked for.
fn told(status: &Status, id: &str) -> (Code, String, Option<String>, Option<String>) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    let resource = details.resource_info().map(|resource| resource.resource_type.clone());
    (status.code(), status.message().replace(id, "ID"), reason, resource)
}

#[tokio::test]
async fn the_task_of_another_is_as_one_that_does_not_exist_to_every_method() {
    let dir = tempfile::tempdir().unwrap();
    let state = start(dir.path()).await;
    let (alice, bob) = (viewer("alice"), viewer("bob"));
    let task = submit(&state, &alice, "the lease", "").await;
    assert_eq!(task.owner, "alice");
    let (others, none) = (answers(&state, &bob, &task.id).await, answers(&state, &bob, MISSING).await);
    for (other, none) in others.iter().zip(&none) {
        assert_eq!(other.code(), Code::NotFound, "{other:?}");
        assert_eq!(told(other, &task.id), told(none, MISSING));
    }
    wait_for_question(&state, &alice, &task.id).await;
    let own = get(&state, &alice, &task.id).await;
    assert_eq!((own.state(), own.input.as_str()), (v1::TaskState::Waiting, "the lease"), "nothing was changed");
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_caller_that_sees_all_answers_all_and_changes_its_own_tasks_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = start(dir.path()).await;
    let alice = viewer("alice");
    let task = submit(&state, &alice, "the lease", "").await;
    wait_for_question(&state, &auditor(), &task.id).await;
    let codes: Vec<Code> = answers(&state, &auditor(), &task.id).await.iter().map(Status::code).collect();
    assert_eq!((&codes[..4], &codes[4..]), (&[Code::Ok; 4][..], &[Code::PermissionDenied; 5][..]));
    let missing = answers(&state, &auditor(), MISSING).await;
    assert!(missing.iter().all(|status| status.code() == Code::NotFound), "{missing:?}");
    let owners = async |viewer: &Viewer, owner: &str| {
        let request = v1::ListTasksRequest { owner: owner.to_owned(), ..v1::ListTasksRequest::default() };
        let tasks = Tasks::list(&state, as_caller(viewer, request)).await.unwrap().into_inner().tasks;
        tasks.into_iter().map(|task| task.owner).collect::<Vec<_>>()
    };
    assert_eq!(owners(&auditor(), "").await, ["auditor", "alice"], "a fork belongs to the caller that forked");
    assert_eq!(owners(&auditor(), "alice").await, ["alice"]);
    assert_eq!(owners(&alice, "").await, ["alice"]);
    assert_eq!(owners(&alice, "auditor").await, Vec::<String>::new());
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn pages_of_a_list_are_those_of_its_caller() {
    let dir = tempfile::tempdir().unwrap();
    let state = start(dir.path()).await;
    let (alice, bob) = (viewer("alice"), viewer("bob"));
    let mut own = Vec::new();
    for _ in 0..5 {
        own.push(submit(&state, &alice, "mine", "").await.id);
        submit(&state, &bob, "theirs", "").await;
    }
    own.sort();
    own.reverse();
    let page = async |viewer: &Viewer, page_token: &str| {
        let page_token = page_token.to_owned();
        let request = v1::ListTasksRequest { page_size: 2, page_token, ..v1::ListTasksRequest::default() };
        Tasks::list(&state, as_caller(viewer, request)).await.map(tonic::Response::into_inner)
    };
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let found = page(&alice, &token).await.unwrap();
        seen.extend(found.tasks.into_iter().map(|task| task.id));
        if found.next_page_token.is_empty() {
            break;
        }
        let foreign = page(&bob, &found.next_page_token).await.unwrap_err();
        assert_eq!(foreign.code(), Code::InvalidArgument, "a page token is of one caller's list");
        token = found.next_page_token;
    }
    assert_eq!(seen, own);
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_request_id_says_nothing_of_the_tasks_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let state = start(dir.path()).await;
    let (alice, bob) = (viewer("alice"), viewer("bob"));
    let task = submit(&state, &alice, "the lease", "order-1").await;
    assert_eq!(submit(&state, &alice, "the lease", "order-1").await.id, task.id);
    let other = submit(&state, &bob, "the lease", "order-1").await;
    assert!(other.id != task.id && other.owner == "bob");
    let reused = Tasks::submit(&state, as_caller(&bob, form("another", "order-1"))).await.unwrap_err();
    assert_eq!(reused.code(), Code::AlreadyExists);
    let named = reused.get_error_details().error_info().unwrap().metadata.get("task_id").cloned();
    assert_eq!(named, Some(other.id), "its own task");
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn feedback_is_listed_for_the_owner_of_its_task_and_erased_when_the_task_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let state = start(dir.path()).await;
    let task = |number| TaskId::new(number, [0; 10]);
    for (number, owner) in [(1, "alice"), (2, "bob"), (3, "alice")] {
        let record = FeedbackRecord {
            task: task(number),
            step: "pick".to_owned(),
            text: "Where?".to_owned(),
            chosen: RoleName::parse("poet").unwrap(),
            role: None,
            comment: String::new(),
            owner: CallerName::parse(owner).unwrap(),
            caller: CallerName::parse("auditor").unwrap(),
        };
        state.feedback.append(record).unwrap();
    }
    let entries = async |viewer: &Viewer| {
        let (mut page_token, mut tasks) = (String::new(), Vec::new());
        loop {
            let request = v1::ListFeedbackRequest { page_size: 1, page_token };
            let page = state.list_feedback(as_caller(viewer, request)).await.unwrap().into_inner();
            assert!(page.entries.iter().all(|entry| entry.caller == "auditor"));
            tasks.extend(page.entries.into_iter().map(|entry| entry.task_id));
            if page.next_page_token.is_empty() {
                return tasks;
            }
            page_token = page.next_page_token;
        }
    };
    let ids = |numbers: &[u64]| numbers.iter().map(|number| task(*number).to_string()).collect::<Vec<_>>();
    assert_eq!(entries(&viewer("alice")).await, ids(&[1, 3]));
    assert_eq!(entries(&viewer("bob")).await, ids(&[2]));
    assert_eq!(entries(&viewer("carol")).await, ids(&[]));
    assert_eq!(entries(&auditor()).await, ids(&[1, 2, 3]));
    // No such task is in the journal.
    let id = task(2).to_string();
    assert_eq!(erase(&state, &viewer("alice"), &[&id], "").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(erase(&state, &viewer("bob"), &[&id], "").await.unwrap().feedback_entries, 1);
    assert_eq!(entries(&auditor()).await, ids(&[1, 3]));
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_caller_erases_its_own_tasks_and_their_watchers_receive_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let state = start(dir.path()).await;
    let (alice, bob) = (viewer("alice"), viewer("bob"));
    let (own, others) = (submit(&state, &alice, "the lease", "k").await, submit(&state, &bob, "the deed", "").await);
    let mut events = Tasks::watch(&state, as_caller(&alice, watch_request(&own.id))).await.unwrap().into_inner();
    wait_for_question(&state, &alice, &own.id).await;
    assert_eq!(erase(&state, &bob, &[], "alice").await.unwrap_err().code(), Code::PermissionDenied);
    let erased = erase(&state, &alice, &[], "alice").await.unwrap();
    assert_eq!((erased.tasks, erased.cancelled_tasks), (1, 1));
    let mut last = None;
    while let Some(event) = events.next().await {
        last = event.unwrap().kind;
    }
    assert!(matches!(last, Some(v1::event::Kind::Cancelled(end)) if end.reason == "[erased]"));
    let task = get(&state, &alice, &own.id).await;
    assert_eq!((task.state(), task.input.as_str(), task.request_id.as_str()), (v1::TaskState::Cancelled, "", ""));
    assert!(task.erase_time.is_some() && task.steps.len() == 1 && task.graph == "form", "{task:?}");
    let untouched = get(&state, &bob, &others.id).await;
    assert_eq!((untouched.input.as_str(), untouched.erase_time), ("the deed", None));
    let fork = v1::ForkRequest { task_id: own.id.clone(), ..v1::ForkRequest::default() };
    let refused = Tasks::fork(&state, as_caller(&alice, fork)).await.unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "ERASED");
    assert_ne!(submit(&state, &alice, "the lease", "k").await.id, own.id, "the request id is free again");
    state.runtime.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn an_erase_names_tasks_or_an_owner_and_is_of_all_of_them_or_of_none() {
    let dir = tempfile::tempdir().unwrap();
    let state = start(dir.path()).await;
    let alice = viewer("alice");
    let task = submit(&state, &alice, "the lease", "").await;
    for (ids, owner) in [(&[][..], ""), (&[task.id.as_str()], "alice"), (&["x"], ""), (&[], "No Name")] {
        let refused = erase(&state, &alice, ids, owner).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{ids:?} {owner}");
    }
    assert_eq!(erase(&state, &alice, &[&task.id, MISSING], "").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(get(&state, &alice, &task.id).await.input, "the lease");
    state.runtime.drain(Duration::ZERO).await;
}
