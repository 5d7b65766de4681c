//! Callers: strangers, the owner, and those with tokens.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_proto::v1::event::Kind;
use artel_proto::v1::tasks_client::TasksClient;
use artel_proto::{FILE_DESCRIPTOR_SET, v1};
use artel_tests::scripted::asking_daemon;
use artel_tests::{Cli, Daemon, task_request};
use nix::sys::signal::Signal;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::Value;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes a token and gives its secret.
async fn create(daemon: &Daemon, name: &str, scopes: &[&str], lifetime: Option<Duration>) -> String {
    let request = v1::CreateTokenRequest {
        name: name.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        lifetime: lifetime.map(|lifetime| lifetime.try_into().unwrap()),
        limits: None,
    };
    daemon.access().create_token(request).await.unwrap().into_inner().secret
}

/// A call that reads, with this token.
async fn list(daemon: &Daemon, token: &str) -> Result<(), Status> {
    TasksClient::new(daemon.caller(token)).list(v1::ListTasksRequest::default()).await.map(drop)
}

fn code(result: Result<(), Status>) -> Code {
    result.map_or_else(|status| status.code(), |()| Code::Ok)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// The files in a directory and below it that contain a text.
fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes())) {
            found.push(path);
        }
    }
    found
}

/// The lines of the audit log: caller, method, object and outcome.
fn audited(daemon: &Daemon) -> Vec<[String; 4]> {
    let lines = daemon.log();
    let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let audited = records.filter(|record| record["target"] == "audit");
    let field = |record: &Value, name: &str| record["fields"][name].as_str().unwrap_or_default().to_owned();
    audited.map(|record| ["caller", "method", "object", "outcome"].map(|name| field(&record, name))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_health_and_nothing_else() {
    let daemon = asking_daemon().start().await;
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut paths: Vec<String> = Vec::new();
    for file in set.file.iter().filter(|file| file.package() == "artel.v1") {
        for service in &file.service {
            let path = |method: &str| format!("/artel.v1.{}/{method}", service.name());
            paths.extend(service.method.iter().map(|method| path(method.name())));
        }
    }
    assert!(paths.len() > 20, "{paths:?}");
    let reflection = "grpc.reflection.v1.ServerReflection";
    paths.extend([format!("/{reflection}/ServerReflectionInfo"), "/artel.v1.Tasks/Explode".to_owned()]);
    for path in paths {
        let mut stranger = Grpc::new(daemon.channel());
        stranger.ready().await.unwrap();
        let codec = ProstCodec::<(), ()>::default();
        let status = stranger.unary(Request::new(()), PathAndQuery::try_from(&path).unwrap(), codec).await.unwrap_err();
        let message = "a token is needed: send `authorization: Bearer TOKEN`";
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, message), "{path}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "UNAUTHENTICATED", "{path}");
    }
    HealthClient::new(daemon.channel()).check(HealthCheckRequest::default()).await.unwrap();
    let log = daemon.whole_log().await;
    assert_eq!(log.matches("calls were refused").count(), 1, "one line for all of them: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_what_its_scopes_say_and_no_more() {
    let daemon = asking_daemon().start().await;
    let reader = create(&daemon, "reader", &["read"], None).await;
    let submitter = create(&daemon, "submitter", &["submit"], None).await;
    let submit = async |token: &str| {
        let target = Some(v1::submit_request::Target::Role("writer".to_owned()));
        let request = v1::SubmitRequest { input: "Hello".to_owned(), target, ..v1::SubmitRequest::default() };
        TasksClient::new(daemon.caller(token)).submit(request).await.map(drop)
    };
    list(&daemon, &reader).await.unwrap();
    submit(&submitter).await.unwrap();
    for (refused, caller, scope) in
        [(submit(&reader).await, "reader", "submit"), (list(&daemon, &submitter).await, "submitter", "read")]
    {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert_eq!(status.message(), format!("the token `{caller}` lacks the scope `{scope}`"));
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["scope"].as_str()), ("MISSING_SCOPE", scope));
    }
    let (code, _, err) = daemon.cli(["run", "--role", "writer", "Hello"]).env("ARTEL_TOKEN", &reader).run().await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("lacks the scope `submit`") && err.contains("artel token create"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_revoked_and_wrong_tokens_are_refused_and_logged_once() {
    let daemon = asking_daemon().start().await;
    let [kept, revoked] = ["kept", "revoked"].map(|name| create(&daemon, name, &["read"], None));
    let (kept, revoked) = (kept.await, revoked.await);
    let expired = create(&daemon, "expired", &["read"], Some(Duration::from_millis(1))).await;
    list(&daemon, &revoked).await.unwrap();
    daemon.access().revoke_token(v1::RevokeTokenRequest { name: "revoked".to_owned() }).await.unwrap();
    let expires = async { while list(&daemon, &expired).await.is_ok() {} };
    tokio::time::timeout(TEST_TIMEOUT, expires).await.expect("a millisecond passes");
    for _ in 0..100 {
        for token in [&expired, &revoked, "artel_wrong", &"x".repeat(10_000)] {
            assert_eq!(code(list(&daemon, token).await), Code::Unauthenticated);
        }
    }
    list(&daemon, &kept).await.unwrap();
    let log = daemon.whole_log().await;
    let lines =
        |reason: &str| log.lines().filter(|line| line.contains("calls were refused") && line.contains(reason)).count();
    let reasons = ["the token `expired` has expired", "unknown or revoked", "is not `Bearer TOKEN`"];
    assert_eq!(reasons.map(lines), [1, 1, 1], "{log}");
    let mut daemon = daemon;
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    let daemon = daemon.restart().await;
    for token in [&expired, &revoked, "artel_wrong"] {
        assert_eq!(code(list(&daemon, token).await), Code::Unauthenticated, "after a restart");
    }
    list(&daemon, &kept).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_ends_when_its_token_is_revoked() {
    let daemon = asking_daemon().start().await;
    let mut run = daemon.run(task_request("Which?").with_graph("question")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let token = create(&daemon, "watcher", &["read:all"], None).await;
    let request = v1::WatchRequest { task_id: run.id.clone(), ..v1::WatchRequest::default() };
    let mut watch = TasksClient::new(daemon.caller(&token)).watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    daemon.access().revoke_token(v1::RevokeTokenRequest { name: "watcher".to_owned() }).await.unwrap();
    let end = async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                end => return end.unwrap_err().code(),
            }
        }
    };
    assert_eq!(tokio::time::timeout(TEST_TIMEOUT, end).await.expect("it ends"), Code::Unauthenticated);
    daemon.cancel(&run.id).await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_token_are_told_with_a_delay() {
    let daemon = asking_daemon().start().await;
    let limits = Some(v1::AccessLimits { calls_per_minute: 3, ..v1::AccessLimits::default() });
    let scopes = vec!["read".to_owned()];
    let request = v1::CreateTokenRequest { name: "busy".to_owned(), scopes, limits, lifetime: None };
    let busy = daemon.access().create_token(request).await.unwrap().into_inner().secret;
    let other = create(&daemon, "other", &["read"], None).await;
    let refused = async {
        loop {
            if let Err(status) = list(&daemon, &busy).await {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(TEST_TIMEOUT, refused).await.expect("three calls a minute are few");
    assert_eq!(
        (status.code(), status.get_details_error_info().unwrap().reason),
        (Code::ResourceExhausted, "CALLER_LIMIT".to_owned())
    );
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(!delay.is_zero() && delay <= Duration::from_secs(20), "{delay:?}");
    list(&daemon, &other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owners_token_is_private_kept_and_replaced_if_others_could_read_it() {
    let mut daemon = asking_daemon().start().await;
    create(&daemon, "ci", &["read"], None).await;
    let data = daemon.dir().join("data");
    let (token, tokens) = (data.join("token"), data.join("tokens.json"));
    assert_eq!((mode(&token), mode(&tokens)), (0o600, 0o600));
    let first = daemon.token.clone();
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    let mut daemon = daemon.restart().await;
    assert_eq!(daemon.token, first, "it is kept");
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    fs::set_permissions(&token, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&tokens, Permissions::from_mode(0o644)).unwrap();
    let daemon = daemon.restart().await;
    daemon.until_logged("other users could read it").await;
    assert_ne!(daemon.token, first);
    assert_eq!((mode(&token), mode(&tokens)), (0o600, 0o600));
    assert_eq!(
        (code(list(&daemon, &first).await), code(list(&daemon, &daemon.token).await)),
        (Code::Unauthenticated, Code::Ok)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_no_file_of_the_daemon() {
    let mut daemon = asking_daemon().with_env("ARTEL_LOG", "trace").start().await;
    let secret = create(&daemon, "canary", &["submit", "read"], None).await;
    let run = |token: &str| daemon.cli(["run", "--json", "--role", "writer", "Hello"]).env("ARTEL_TOKEN", token).run();
    let (code, out, err) = run(&secret).await;
    assert_eq!((code, out.contains(&secret)), (0, false), "{out}{err}");
    let wrong = secret.replace("artel_", "artel_x");
    let (code, out, err) = run(&wrong).await;
    assert_eq!((code, out.contains(&wrong) || err.contains(&wrong)), (1, false), "{out}{err}");
    daemon.access().revoke_token(v1::RevokeTokenRequest { name: "canary".to_owned() }).await.unwrap();
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    // Without their beginnings, which are the same in all tokens.
    let texts = [&secret, &wrong].map(|token| token["artel_".len()..].to_owned());
    for text in texts {
        assert_eq!(files_with(daemon.dir(), &text), Vec::<PathBuf>::new());
    }
    let own = files_with(daemon.dir(), &daemon.token["artel_".len()..]);
    assert_eq!(own, [daemon.dir().join("data/token")], "the search finds what is there");
    assert!(daemon.log().contains("canary"), "its name is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verbs_make_list_and_revoke_tokens() {
    let daemon = asking_daemon().start().await;
    let (code, out, err) = daemon.cli(["token", "list"]).run().await;
    assert_eq!((code, out.contains("no tokens")), (0, true), "{out}{err}");
    let create = daemon.cli(["token", "create", "--name", "ci", "--scopes", "submit,read", "--expires", "30d"]);
    let (code, secret, err) = create.arg("--calls-per-minute=600").run().await;
    assert_eq!(code, 0, "{err}");
    let secret = secret.trim_end();
    assert!(secret.starts_with("artel_") && secret.len() == 70 && !secret.contains('\n'), "{secret}");
    let run = daemon.cli(["run", "--role", "writer", "Hello"]).env("ARTEL_TOKEN", secret).run().await;
    assert_eq!(run.0, 0, "{}{}", run.1, run.2);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), secret).unwrap();
    let by_file = daemon.cli(["task", "list"]).env("ARTEL_TOKEN_FILE", dir.path().join("mine")).run().await;
    assert_eq!(by_file.0, 0, "{}{}", by_file.1, by_file.2);
    let (code, out, _) = daemon.cli(["token", "create", "--json", "--name=ops", "--scopes=admin"]).run().await;
    let made: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, made["token"]["name"].as_str(), made["secret"].as_str().unwrap().len()), (0, Some("ops"), 70));
    let (_, out, _) = daemon.cli(["token", "list", "--json"]).run().await;
    let tokens: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (tokens[0]["name"].as_str(), &tokens[0]["scopes"]),
        (Some("ci"), &serde_json::json!(["submit", "read"]))
    );
    assert_eq!((&tokens[0]["limits"]["calls_per_minute"], &tokens[0]["expired"]), (&600.into(), &false.into()));
    assert!(
        tokens[0]["expire_time"].is_string() && tokens[1]["expire_time"].is_null() && !out.contains(secret),
        "{out}"
    );
    let (_, out, _) = daemon.cli(["token", "list"]).run().await;
    assert!(out.contains("submit,read") && out.contains("600 calls a minute") && out.contains("never"), "{out}");
    let (code, out, _) = daemon.cli(["token", "revoke", "ci"]).run().await;
    assert_eq!((code, out.as_str()), (0, "ci: revoked\n"));
    let (code, _, err) = daemon.cli(["task", "list"]).env("ARTEL_TOKEN", secret).run().await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("unknown or revoked") && err.contains("the token of ARTEL_TOKEN"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_token_is_said() {
    let daemon = asking_daemon().start().await;
    create(&daemon, "ci", &["read"], None).await;
    let failed = async |args: [&str; 4]| {
        let (code, _, err) = daemon.cli(["token"]).arg(args[0]).arg(args[1]).arg(args[2]).arg(args[3]).run().await;
        (code, err)
    };
    for (args, code, words) in [
        (["create", "--name=ci", "--scopes=read", "--json"], 1, "there is a token `ci` already"),
        (["create", "--name=owner", "--scopes=read", "--json"], 2, "is that of the user whose daemon it is"),
        (["create", "--name=C I", "--scopes=read", "--json"], 2, "`C I` is not a name"),
        (["create", "--name=x", "--scopes=read,write", "--json"], 2, "there is no scope `write`"),
        (["create", "--name=x", "--scopes=read", "--expires=soon"], 2, "`soon` is no time"),
        (["create", "--name=x", "--scopes=read", "--expires=0s"], 2, "longer than zero"),
        (["revoke", "cj", "--json", "--color=never"], 2, "did you mean `ci`?"),
    ] {
        let (got, err) = failed(args).await;
        assert_eq!((got, err.contains(words)), (code, true), "{args:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_token_is_told_where_it_was_looked_for() {
    let daemon = asking_daemon().start().await;
    let empty = tempfile::tempdir().unwrap();
    let (code, _, err) = daemon.cli(["task", "list", "--data"]).arg(empty.path()).run().await;
    let path = empty.path().join("token");
    assert_eq!(code, 1, "{err}");
    for words in [
        "a token is needed",
        "ARTEL_TOKEN and ARTEL_TOKEN_FILE are not set",
        path.to_str().unwrap(),
        "artel token create",
    ] {
        assert!(err.contains(words), "{words}: {err}");
    }
    // An address for documentation: nothing is sent there.
    let (code, _, err) = Cli::new(["task", "list", "--address", "192.0.2.1"]).env("ARTEL_TOKEN", "artel_x").run().await;
    assert_eq!((code, err.contains("would be sent to it unencrypted")), (2, true), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_who_did_what_with_what_outcome() {
    let daemon = asking_daemon().start().await;
    let operator = create(&daemon, "operator", &["admin"], None).await;
    let reader = create(&daemon, "reader", &["read"], None).await;
    let mut run = daemon.run(task_request("Which?").with_graph("question")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let as_operator = |cli: Cli| cli.env("ARTEL_TOKEN", &operator).run();
    assert_eq!(as_operator(daemon.cli(["load", "talk"])).await.0, 0);
    assert_eq!(as_operator(daemon.cli(["unload", "nothing"])).await.0, 2);
    assert_eq!(as_operator(daemon.cli(["task", "cancel"]).arg(&run.id)).await.0, 0);
    assert_eq!(daemon.cli(["task", "cancel"]).arg(&run.id).env("ARTEL_TOKEN", &reader).run().await.0, 1);
    run.end().await;
    let mut waiting = daemon.run(task_request("Which?").with_graph("question")).await;
    waiting.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    assert_eq!(as_operator(daemon.cli(["task", "answer"]).arg(&waiting.id).arg("this")).await.0, 0);
    waiting.end().await;
    // Whatever the level of the log is, the audit log is written.
    assert_eq!(as_operator(daemon.cli(["log", "level", "off"])).await.0, 0);
    assert_eq!(daemon.cli(["task", "erase", "--yes"]).arg(&run.id).run().await.0, 0);
    assert_eq!(daemon.cli(["task", "erase", "--yes", "--owner", "nobody"]).run().await.0, 0);
    assert_eq!(daemon.cli(["token", "revoke", "reader"]).run().await.0, 0);
    daemon.until_logged("Access/RevokeToken").await;
    let expected = [
        ["owner", "Access/CreateToken", "operator", "ok"],
        ["owner", "Access/CreateToken", "reader", "ok"],
        ["operator", "Engines/Load", "talk", "ok"],
        ["operator", "Engines/Unload", "nothing", "NotFound"],
        ["operator", "Tasks/Cancel", &run.id, "ok"],
        ["operator", "Tasks/Answer", &waiting.id, "ok"],
        ["operator", "Admin/SetLogLevel", "off", "ok"],
        ["owner", "Tasks/Erase", &run.id, "ok"],
        ["owner", "Tasks/Erase", "nobody", "ok"],
        ["owner", "Access/RevokeToken", "reader", "ok"],
    ];
    assert_eq!(audited(&daemon), expected.map(|line| line.map(str::to_owned)), "a call that is refused does nothing");
}
