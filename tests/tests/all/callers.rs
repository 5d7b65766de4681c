//! Two callers of one daemon, through its port: what each may call, and that neither reaches the tasks of the other. And another
//! user of the machine.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use artel_proto::v1::event::Kind;
use artel_proto::v1::router_client::RouterClient;
use artel_proto::v1::tasks_client::TasksClient;
use artel_proto::{FILE_DESCRIPTOR_SET, v1};
use artel_tests::scripted::asking_daemon;
use artel_tests::{CallerChannel, Cli, Daemon, OTHER_USER_ID, program_for_other_user};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The id of no task.
const MISSING: &str = "0198c0de-0000-7000-8000-000000000000";
/// The scope that each method needs.
const NEEDS: [(&str, &str); 47] = [
    ("Tasks/Submit", "submit"),
    ("Tasks/Run", "submit"),
    ("Tasks/Watch", "read"),
    ("Tasks/Get", "read"),
    ("Tasks/List", "read"),
    ("Tasks/Cancel", "submit"),
    ("Tasks/Resume", "submit"),
    ("Tasks/Answer", "answer"),
    ("Tasks/Fork", "submit"),
    ("Tasks/Feedback", "submit"),
    ("Tasks/Rate", "submit"),
    ("Tasks/Erase", "submit"),
    ("Catalog/List", "read"),
    ("Catalog/Get", "read"),
    ("Catalog/Validate", "apply"),
    ("Catalog/Apply", "apply"),
    ("Models/Embed", "submit"),
    ("Models/Rerank", "submit"),
    ("Knowledge/List", "read"),
    ("Knowledge/ListSources", "read"),
    ("Knowledge/GetSource", "read"),
    ("Knowledge/Search", "submit"),
    ("Knowledge/AddText", "submit"),
    ("Knowledge/RemoveText", "submit"),
    ("Router/Preview", "read"),
    ("Router/ListFeedback", "read"),
    ("Training/ListSamples", "admin"),
    ("Training/LintData", "admin"),
    ("Training/GetTrainer", "admin"),
    ("Training/SetUpTrainer", "admin"),
    ("Training/StartRun", "admin"),
    ("Training/ListRuns", "admin"),
    ("Training/GetRun", "admin"),
    ("Training/WatchRun", "admin"),
    ("Training/StopRun", "admin"),
    ("Training/ExportRun", "admin"),
    ("Training/DeleteRun", "admin"),
    ("Engines/ListDevices", "read"),
    ("Engines/ListEngines", "read"),
    ("Engines/GetPlacement", "read"),
    ("Engines/Load", "admin"),
    ("Engines/Unload", "admin"),
    ("Access/CreateToken", "admin"),
    ("Access/ListTokens", "admin"),
    ("Access/RevokeToken", "admin"),
    ("Admin/GetLogLevel", "admin"),
    ("Admin/SetLogLevel", "admin"),
];

fn tasks(daemon: &Daemon, token: &str) -> TasksClient<CallerChannel> {
    TasksClient::new(daemon.caller(token))
}

/// What a method says to an empty request.
async fn call(daemon: &Daemon, token: &str, method: &str) -> Result<(), Status> {
    let mut client = Grpc::new(daemon.caller(token));
    client.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/artel.v1.{method}")).unwrap();
    client.unary(Request::new(()), path, ProstCodec::<(), ()>::default()).await.map(drop)
}

/// The scope that a refused call lacks.
fn lacked(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    let is_lacked = status.code() == Code::PermissionDenied && info.reason == "MISSING_SCOPE";
    info.metadata.get("scope").filter(|_| is_lacked).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_is_refused_to_a_token_without_its_scope_and_to_no_other() {
    let daemon = asking_daemon().start().await;
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().filter(|file| file.package() == "artel.v1").flat_map(|file| &file.service);
    let methods = services.flat_map(|service| {
        let name = |method: &prost_types::MethodDescriptorProto| format!("{}/{}", service.name(), method.name());
        service.method.iter().map(name).collect::<Vec<_>>()
    });
    let needs = BTreeMap::from(NEEDS);
    let mut methods: Vec<String> = methods.collect();
    methods.sort();
    assert_eq!(methods, needs.keys().copied().collect::<Vec<_>>(), "each method has a line here");
    for scope in ["submit", "read", "read:all", "answer", "apply"] {
        let token = daemon.create_token(&scope.replace(':', "-"), scope, &[]).await;
        for (method, need) in &needs {
            let has = scope == *need || scope == "read:all" && *need == "read";
            let lacks = match call(&daemon, &token, method).await {
                Ok(()) => None,
                Err(status) => lacked(&status),
            };
            assert_eq!(lacks.as_deref(), (!has).then_some(*need), "{method} with {scope}");
        }
    }
}

fn question(request_id: &str) -> v1::SubmitRequest {
    let target = Some(v1::submit_request::Target::Graph("question".to_owned()));
    let (input, request_id) = ("the lease of alice".to_owned(), request_id.to_owned());
    v1::SubmitRequest { target, input, request_id, ..v1::SubmitRequest::default() }
}

/// A task of this caller that waits for a person.
async fn waiting_task(daemon: &Daemon, token: &str, request_id: &str) -> String {
    let id = tasks(daemon, token).submit(question(request_id)).await.unwrap().into_inner().id;
    let request = v1::WatchRequest { task_id: id.clone(), ..v1::WatchRequest::default() };
    let mut events = tasks(daemon, token).watch(request).await.unwrap().into_inner();
    while !matches!(events.message().await.unwrap().unwrap().kind, Some(Kind::Waiting(_))) {}
    id
}

/// What each method about one task says.
async fn about(daemon: &Daemon, token: &str, id: &str) -> Vec<(&'static str, Status)> {
    let (mut tasks, task_id) = (tasks(daemon, token), id.to_owned());
    let get = v1::GetTaskRequest { task_id: task_id.clone(), ..v1::GetTaskRequest::default() };
    let watch = v1::WatchRequest { task_id: task_id.clone(), ..v1::WatchRequest::default() };
    let cancel = v1::CancelRequest { task_id: task_id.clone(), ..v1::CancelRequest::default() };
    let cancel_step = v1::CancelRequest { step_id: "ask".to_owned(), ..cancel.clone() };
    let fork = v1::ForkRequest { task_id: task_id.clone(), ..v1::ForkRequest::default() };
    let feedback = v1::FeedbackRequest { task_id: task_id.clone(), ..v1::FeedbackRequest::default() };
    let resume = v1::ResumeRequest { task_id: task_id.clone() };
    let erase = v1::EraseRequest { task_ids: vec![task_id.clone()], owner: String::new() };
    let yes = Some(v1::answer_request::Answer::Text("yes".to_owned()));
    let answer = v1::AnswerRequest { task_id, step_id: String::new(), answer: yes };
    let said = [
        ("get", tasks.get(get).await.err()),
        ("watch", tasks.watch(watch).await.err()),
        ("fork", tasks.fork(fork).await.err()),
        ("cancel", tasks.cancel(cancel).await.err()),
        ("cancel step", tasks.cancel(cancel_step).await.err()),
        ("resume", tasks.resume(resume).await.err()),
        ("feedback", tasks.feedback(feedback).await.err()),
        ("erase", tasks.erase(erase).await.err()),
        // The last one, since it ends the task.
        ("answer", tasks.answer(answer).await.err()),
    ];
    said.into_iter().map(|(name, status)| (name, status.unwrap_or_else(|| Status::ok("")))).collect()
}

/// The owners of the tasks that a caller sees.
async fn seen(daemon: &Daemon, token: &str, owner: &str) -> Vec<String> {
    let request = v1::ListTasksRequest { owner: owner.to_owned(), ..v1::ListTasksRequest::default() };
    let mut owners: Vec<String> = tasks(daemon, token)
        .list(request)
        .await
        .unwrap()
        .into_inner()
        .tasks
        .into_iter()
        .map(|task| task.owner)
        .collect();
    owners.sort();
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_of_another_caller_are_as_if_there_were_none() {
    let daemon = asking_daemon().start().await;
    let alice = daemon.create_token("alice", "submit,read,answer", &[]).await;
    let bob = daemon.create_token("bob", "submit,read,answer", &[]).await;
    let id = waiting_task(&daemon, &alice, "order-1").await;
    let (others, none) = (about(&daemon, &bob, &id).await, about(&daemon, &bob, MISSING).await);
    for ((name, other), (_, none)) in others.iter().zip(&none) {
        let told = |status: &Status, id: &str| {
            let reason = status.get_details_error_info().map(|info| info.reason);
            (status.code(), status.message().replace(id, "ID"), reason)
        };
        assert_eq!(other.code(), Code::NotFound, "{name}: {other:?}");
        assert_eq!(told(other, &id), told(none, MISSING), "{name}");
    }
    let all_of_alice = v1::EraseRequest { task_ids: Vec::new(), owner: "alice".to_owned() };
    assert_eq!(tasks(&daemon, &bob).erase(all_of_alice).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!((seen(&daemon, &bob, "").await, seen(&daemon, &bob, "alice").await), (vec![], vec![]));
    let feedback = v1::ListFeedbackRequest::default();
    let entries = RouterClient::new(daemon.caller(&bob)).list_feedback(feedback).await.unwrap().into_inner().entries;
    assert!(entries.is_empty(), "{entries:?}");
    // A request id is one of its caller's own.
    let own = tasks(&daemon, &bob).submit(question("order-1")).await.unwrap().into_inner();
    assert!(own.id != id && own.owner == "bob", "{own:?}");
    let again = tasks(&daemon, &alice).submit(question("order-1")).await.unwrap().into_inner();
    assert_eq!((again.id, again.owner.as_str()), (id.clone(), "alice"));
    let task = daemon.task(&id).await;
    assert_eq!(
        (task.state(), task.input.as_str()),
        (v1::TaskState::Waiting, "the lease of alice"),
        "nothing was changed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_all_sees_and_watches_all_and_changes_nothing() {
    let daemon = asking_daemon().start().await;
    let alice = daemon.create_token("alice", "submit,read", &[]).await;
    let id = waiting_task(&daemon, &alice, "").await;
    let reader = daemon.create_token("reader", "read:all", &[]).await;
    assert_eq!(seen(&daemon, &reader, "").await, ["alice"]);
    for (name, status) in about(&daemon, &reader, &id).await {
        match name {
            "get" | "watch" => assert_eq!(status.code(), Code::Ok, "{name}: {status:?}"),
            "answer" => assert_eq!(lacked(&status).as_deref(), Some("answer"), "{status:?}"),
            _ => assert_eq!(lacked(&status).as_deref(), Some("submit"), "{name}: {status:?}"),
        }
    }
    // One that may submit as well changes its own tasks alone; what a task asks, it may answer.
    let auditor = daemon.create_token("auditor", "read:all,submit,answer", &[]).await;
    for (name, status) in about(&daemon, &auditor, &id).await {
        match name {
            "get" | "watch" | "fork" | "answer" => assert_eq!(status.code(), Code::Ok, "{name}: {status:?}"),
            _ => {
                let reason = status.get_details_error_info().map(|info| info.reason);
                let expected = (Code::PermissionDenied, Some("OTHER_CALLER".to_owned()));
                assert_eq!((status.code(), reason), expected, "{name}: {status:?}");
            }
        }
    }
    assert_eq!(seen(&daemon, &auditor, "").await, ["alice", "auditor"]);
}

/// A program as another user of the machine: exit code, and what it prints and says.
async fn as_other_user(cli: Cli) -> (i32, String) {
    let mut command = cli.into_command();
    let run = command.uid(OTHER_USER_ID).gid(OTHER_USER_ID).output();
    let output = tokio::time::timeout(TEST_TIMEOUT, run).await.expect("it ends").unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verbs_of_another_user_get_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = program_for_other_user(dir.path()) else { return };
    let daemon = asking_daemon().start().await;
    daemon.create_token("ci", "read", &[]).await;
    open_to_all(daemon.dir(), 0o755);
    let data = daemon.dir().join("data");
    let socket = format!("unix:{}", data.join("artel.sock").display());
    let verb = |address: &str| {
        let list = Cli::program(&program, ["task", "list", "--address", address, "--data"]).arg(&data);
        as_other_user(list.env("HOME", dir.path()))
    };
    let (code, said) = verb(&daemon.address).await;
    assert!(code == 1 && said.contains("a token is needed") && !said.contains(&daemon.token), "{code} {said}");
    let (code, said) = verb(&socket).await;
    assert!(code == 3 && said.contains("Permission denied"), "{code} {said}");
    let serve = Cli::program(&program, ["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let (code, said) = as_other_user(serve.env("HOME", dir.path())).await;
    assert!(code == 1 && said.contains("data"), "{code} {said}");
    // As if someone had opened the way to the files.
    open_to_all(&data, 0o755);
    open_to_all(&data.join("artel.sock"), 0o666);
    let (code, said) = verb(&socket).await;
    assert!(code != 0 && !said.contains("PANIC"), "{code} {said}");
    let (code, said) = verb(&daemon.address).await;
    assert!(code == 1 && said.contains("a token is needed"), "{code} {said}");
    for file in ["token", "tokens.json", "address", "journal.sqlite"] {
        let cat = Cli::program(Path::new("/bin/cat"), []).arg(data.join(file));
        let (code, said) = as_other_user(cat).await;
        assert!(code == 1 && said.contains("Permission denied"), "{file}: {code} {said}");
    }
    let log = daemon.whole_log().await;
    assert_eq!(log.matches("a connection of another user was closed").count(), 1, "{log}");
}
