//! One port: gRPC, gRPC-Web and HTTP, over TCP, TLS and a Unix socket, and the requests that it refuses.
//!
//! Health is what every client may ask for, with or without a token.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::progress::Stage;
use artel_tests::https::{HttpResponse, exchange, tls};
use artel_tests::hub::{HubServer, MODEL_URI};
use artel_tests::scripted::{asking_daemon, scripted_daemon};
use artel_tests::{Cli, Daemon, DaemonBuilder, OTHER_USER_ID, daemon, task_request, until};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd, generate_simple_self_signed};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
const HEALTH_CHECK: &str = "POST /grpc.health.v1.Health/Check";
/// An empty message of gRPC: no compression, no bytes.
const EMPTY_MESSAGE: &[u8] = &[0, 0, 0, 0, 0];
const WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");
const LOCAL: (&str, &str) = ("host", "localhost");
/// Space for some dozens of tasks.
const MAX_FILE_BYTES: u64 = 1_000_000;
/// A program that asks for health over a Unix socket, and prints what it gets.
const CONNECT: &str = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ntry:\n  \
                       s.sendall(b'GET /healthz HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n')\n  \
                       print(s.recv(100))\nexcept ConnectionError:\n  print(b'')\n";

fn address(daemon: &Daemon) -> &str {
    daemon.address.strip_prefix("http://").unwrap()
}

fn get(daemon: &Daemon, path: &str, headers: &[(&str, &str)]) -> HttpResponse {
    let stream = TcpStream::connect(address(daemon)).unwrap();
    exchange(stream, &format!("GET {path}"), headers, b"").unwrap()
}

fn socket(daemon: &Daemon) -> PathBuf {
    daemon.dir().join("data/artel.sock")
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_over_http_and_every_error_is_json() {
    let mut daemon = scripted_daemon().start().await;
    let alive = get(&daemon, "/healthz", &[LOCAL]);
    assert_eq!((alive.status(), alive.text().as_str()), (200, "ok"), "{alive:?}");
    let ready = get(&daemon, "/readyz", &[LOCAL]);
    assert_eq!(ready.status(), 200, "{ready:?}");
    let stranger = get(&daemon, "/nothing", &[LOCAL]);
    assert_eq!(stranger.status(), 401, "a stranger does not learn which pages there are: {stranger:?}");
    let token = format!("Bearer {}", daemon.token);
    let missing = get(&daemon, "/nothing", &[LOCAL, ("authorization", &token)]);
    let error: serde_json::Value = serde_json::from_slice(&missing.body).unwrap();
    assert_eq!((missing.status(), error["error"]["code"].as_str()), (404, Some("not_found")), "{missing:?}");
    assert!(error["error"]["message"].as_str().unwrap().contains("no such page"), "{error}");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_over_http_1_is_answered_on_the_port_of_grpc() {
    let daemon = scripted_daemon().start().await;
    let call = |headers: &[(&str, &str)]| {
        let stream = TcpStream::connect(address(&daemon)).unwrap();
        exchange(stream, HEALTH_CHECK, headers, EMPTY_MESSAGE).unwrap()
    };
    let answer = call(&[LOCAL, WEB]);
    assert_eq!(answer.status(), 200, "{answer:?}");
    // A frame with the message `status: SERVING`, and one with the trailers.
    let message = [0, 0, 0, 0, 2, 8, 1];
    assert!(answer.body.windows(message.len()).any(|window| window == message), "{answer:?}");
    assert!(answer.text().contains("grpc-status:0"), "{answer:?}");
    let plain = call(&[LOCAL, ("content-type", "application/grpc")]);
    assert!(plain.text().contains("grpc_needs_http2"), "{plain:?}");
    let mut grpc = HealthClient::new(daemon.channel());
    grpc.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_the_daemons_is_refused_in_every_protocol() {
    let daemon = scripted_daemon().with_settings("http: {hosts: [artel.home]}\n").start().await;
    let rebound = get(&daemon, "/healthz", &[("host", "evil.example")]);
    assert_eq!(rebound.status(), 421, "{rebound:?}");
    assert!(rebound.text().contains("http: {hosts: [...]}"), "{rebound:?}");
    assert_eq!(get(&daemon, "/healthz", &[("host", "artel.home:7430")]).status(), 200);
    let stream = TcpStream::connect(address(&daemon)).unwrap();
    let web = exchange(stream, HEALTH_CHECK, &[("host", "evil.example"), WEB], EMPTY_MESSAGE).unwrap();
    assert!(web.head.contains("grpc-status: 7") && web.head.contains("application/grpc-web+proto"), "{web:?}");
    let endpoint = Endpoint::from_shared(daemon.address.clone()).unwrap();
    let mut grpc = HealthClient::new(endpoint.origin("http://evil.example".parse().unwrap()).connect_lazy());
    let refused = grpc.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "HOST_REFUSED"), "{refused}");
    let log = daemon.whole_log().await;
    assert_eq!(log.matches("requests are refused").count(), 1, "{log}");
}

fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_listed_origin_may_call_and_others_get_nothing() {
    let daemon = scripted_daemon().with_settings("http: {origins: ['https://desk.example']}\n").start().await;
    let (listed, foreign) = (("origin", "https://desk.example"), ("origin", "https://evil.example"));
    let preflight = |origin| {
        let stream = TcpStream::connect(address(&daemon)).unwrap();
        let line = HEALTH_CHECK.replace("POST", "OPTIONS");
        exchange(stream, &line, &[LOCAL, origin, ("access-control-request-method", "POST")], b"").unwrap()
    };
    let call = |origin| {
        let stream = TcpStream::connect(address(&daemon)).unwrap();
        exchange(stream, HEALTH_CHECK, &[LOCAL, WEB, origin], EMPTY_MESSAGE).unwrap()
    };
    let allowed = preflight(listed);
    assert_eq!(allowed.status(), 204, "{allowed:?}");
    assert!(allowed.head.contains("access-control-allow-origin: https://desk.example"), "{allowed:?}");
    assert!(allowed.head.contains("x-grpc-web"), "{allowed:?}");
    let answer = call(listed);
    assert!(answer.head.contains("access-control-expose-headers: grpc-status"), "{answer:?}");
    assert!(answer.text().contains("grpc-status:0"), "{answer:?}");
    for refused in [preflight(foreign), call(foreign), get(&daemon, "/healthz", &[LOCAL, foreign])] {
        assert!(!refused.head.contains("access-control"), "{refused:?}");
        assert!(refused.status() == 403 || refused.head.contains("grpc-status: 7"), "{refused:?}");
    }
    let image = get(&daemon, "/healthz", &[LOCAL, ("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "image")]);
    assert_eq!(image.status(), 403, "{image:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_are_refused_with_a_delay_and_health_is_told() {
    let daemon = asking_daemon();
    let daemon = daemon.with_settings("http: {requests: 1}\n").start().await;
    let mut run = daemon.run(task_request("Hello").with_graph("question")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let refused = daemon.submit(task_request("Hello").with_role("writer")).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_REQUESTS"),
        "{refused}"
    );
    assert!(refused.get_details_retry_info().unwrap().retry_delay.is_some());
    let plain = get(&daemon, "/nothing", &[LOCAL]);
    assert!(plain.status() == 503 && plain.head.contains("retry-after: 2"), "{plain:?}");
    assert_eq!(get(&daemon, "/healthz", &[LOCAL]).status(), 200);
    let mut health = HealthClient::new(daemon.channel());
    health.check(HealthCheckRequest::default()).await.unwrap();
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("its health is told as well");
    let large = get(&daemon, "/healthz", &[LOCAL, ("x-large", &"x".repeat(17 << 10))]);
    assert_eq!(large.status(), 431, "{large:?}");
    drop(run);
    until("its place is free", || get(&daemon, "/nothing", &[LOCAL]).status() == 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_is_closed_like_a_silent_connection() {
    use std::io::{Read as _, Write as _};
    let daemon = scripted_daemon().with_settings("connections: {handshake: 1s}\n").start().await;
    let mut stream = TcpStream::connect(address(&daemon)).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: local").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unix_socket_is_private_and_goes_with_the_daemon() {
    let daemon = scripted_daemon().start().await;
    let path = socket(&daemon);
    let found = fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket() && found.mode() & 0o777 == 0o600, "{found:?}");
    let alive = exchange(UnixStream::connect(&path).unwrap(), "GET /healthz", &[("host", "anything")], b"").unwrap();
    assert_eq!((alive.status(), alive.text().as_str()), (200, "ok"), "{alive:?}");
    // Killed, it leaves its socket, which the next one replaces.
    daemon.signal(Signal::SIGKILL);
    let mut daemon = daemon.restart().await;
    assert!(UnixStream::connect(&path).is_ok());
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_gets_nothing_from_the_unix_socket() {
    if !geteuid().is_root() {
        // Only root can become another user.
        return;
    }
    let daemon = scripted_daemon().start().await;
    let path = socket(&daemon);
    let connect = |user_id| {
        let mut python = std::process::Command::new("python3");
        let output = python.args(["-c", CONNECT]).arg(&path).uid(user_id).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    assert!(connect(OTHER_USER_ID).contains("PermissionError"), "the directory is private");
    // As if someone had opened the way to it.
    for (path, mode) in [(daemon.dir(), 0o755), (path.parent().unwrap(), 0o755), (path.as_path(), 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    assert_eq!(connect(OTHER_USER_ID).trim(), "b''");
    assert_eq!(connect(OTHER_USER_ID).trim(), "b''");
    assert!(connect(0).contains("200 OK"));
    let log = daemon.whole_log().await;
    assert_eq!(log.matches("a connection of another user was closed").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_too_long_for_a_socket_is_told_with_the_setting_to_use() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d".repeat(120));
    let serve = Cli::new(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let (code, _, err) = tokio::time::timeout(TEST_TIMEOUT, serve.run()).await.expect("it does not serve");
    assert_eq!((code, err.contains("`socket: FILE` in the settings")), (1, true), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_reach_is_refused_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("artel.yaml");
    let serve = Cli::new(["serve", "--listen", "0.0.0.0:0", "--data"]).arg(dir.path().join("data"));
    let (code, _, err) = tokio::time::timeout(TEST_TIMEOUT, serve.run()).await.expect("it does not serve");
    for line in ["tls: {certificate: cert.pem, key: key.pem}", "tls: proxy", "listen: 127.0.0.1:0"] {
        assert!(code == 1 && err.contains(line), "{line}: {err}");
    }
    fs::write(&settings, "listen: 192.0.2.1:7430\ndata: data\n").unwrap();
    let port = |report: &str| {
        let report: serde_json::Value = serde_json::from_str(report).unwrap_or_else(|_| panic!("{report}"));
        report["advice"].as_array().unwrap().iter().find(|advice| advice["subject"] == "port").cloned()
    };
    let doctor = async || Cli::new(["doctor", "--json", "--config"]).arg(&settings).run().await.1;
    assert!(port(&doctor().await).unwrap()["message"].as_str().unwrap().contains("192.0.2.1:7430 can be reached"));
    fs::write(&settings, "listen: 192.0.2.1:7430\ndata: data\ntls: proxy\n").unwrap();
    assert_eq!(port(&doctor().await), None);
}

/// Where the tests keep the certificate and the key, in the daemon's directory.
const TLS_SETTINGS: &str = "tls: {certificate: catalog/cert.pem, key: catalog/key.pem}\n";

/// A certificate for `localhost` and its key, in PEM.
fn pair() -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

fn tls_daemon(pair: &(String, String)) -> DaemonBuilder {
    let daemon = scripted_daemon().with_settings(TLS_SETTINGS);
    daemon.with_file("cert.pem", pair.0.as_bytes()).with_file("key.pem", pair.1.as_bytes())
}

fn tls_health(daemon: &Daemon, name: &str, trusted: &str) -> Result<u16, String> {
    let stream = tls(address(daemon), name, trusted).map_err(|error| error.to_string())?;
    let answer = exchange(stream, "GET /healthz", &[LOCAL], b"").map_err(|error| error.to_string())?;
    Ok(answer.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_and_the_certificate_is_reloaded_without_a_restart() {
    let first = pair();
    let daemon = tls_daemon(&first).start().await;
    assert_eq!(tls_health(&daemon, "localhost", &first.0), Ok(200));
    let wrong_name = tls_health(&daemon, "other.example", &first.0).unwrap_err();
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    let plain = get(&daemon, "/healthz", &[LOCAL]);
    assert!(plain.status() == 400 && plain.text().contains("this port speaks TLS"), "{plain:?}");
    let second = pair();
    let replace = |pair: &(String, String)| {
        fs::write(daemon.dir().join("catalog/cert.pem"), &pair.0).unwrap();
        fs::write(daemon.dir().join("catalog/key.pem"), &pair.1).unwrap();
    };
    replace(&second);
    until("the new one is served", || tls_health(&daemon, "localhost", &second.0) == Ok(200)).await;
    assert!(tls_health(&daemon, "localhost", &first.0).is_err(), "the old one is not");
    replace(&(pair().0, "no key".to_owned()));
    until("the log tells of it", || {
        let _ = tls_health(&daemon, "localhost", &second.0);
        daemon.log().contains("failed to reload the certificate")
    })
    .await;
    assert_eq!(tls_health(&daemon, "localhost", &second.0), Ok(200), "the one before stays");
    let alive = exchange(UnixStream::connect(socket(&daemon)).unwrap(), "GET /healthz", &[LOCAL], b"").unwrap();
    assert_eq!(alive.status(), 200, "the Unix socket needs no encryption");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_told_at_the_start_and_by_the_doctor_and_refused_by_clients() {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().unwrap();
    let expired = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
    let daemon = tls_daemon(&expired).start().await;
    daemon.until_logged("the certificate expired on").await;
    let refused = tls_health(&daemon, "localhost", &expired.0).unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
    let doctor = Cli::new(["doctor", "--json", "--config"]).arg(daemon.dir().join("settings.yaml"));
    let (code, out, err) = doctor.arg("--data").arg(daemon.dir().join("other")).run().await;
    assert!(code == 1 && out.contains("the certificate expired on"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_journal_is_full_is_alive_and_not_ready() {
    let daemon = scripted_daemon().with_file_size_limit(MAX_FILE_BYTES).start().await;
    assert_eq!(get(&daemon, "/readyz", &[LOCAL]).status(), 200);
    let large = || task_request(&"x".repeat(16 << 10)).with_role("writer");
    while daemon.submit(large()).await.is_ok() {}
    let ready = get(&daemon, "/readyz", &[LOCAL]);
    assert!(ready.status() == 503 && ready.text().contains("the disk of its journal is full"), "{ready:?}");
    assert_eq!(get(&daemon, "/healthz", &[LOCAL]).status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_drains_is_alive_and_not_ready() {
    let hub = HubServer::start();
    let yaml = format!(
        "model: smol\nfile: {MODEL_URI}\ncontext: 512\nsequences: 1\n---\n\
         role: speaker\ndescription: D.\nmodel: smol\nprompt: You answer.\nlimits: {{timeout: 5m, idle: 5m}}\n"
    );
    let builder = daemon().with_yaml(&yaml).without_models().with_settings("grace: 5m\n");
    let mut daemon = builder.with_env("HF_ENDPOINT", &hub.endpoint).start().await;
    // Its model is never downloaded, so that it runs until the grace period ends.
    let mut run = daemon.run(task_request("Hello").with_role("speaker")).await;
    run.until(|kind| matches!(kind, Kind::Progress(v1::Progress { stage: Some(Stage::Loading(_)), .. }))).await;
    daemon.signal(Signal::SIGTERM);
    until("it is not ready", || get(&daemon, "/readyz", &[LOCAL]).status() == 503).await;
    assert!(get(&daemon, "/readyz", &[LOCAL]).text().contains("it is shutting down"));
    assert_eq!(get(&daemon, "/healthz", &[LOCAL]).status(), 200);
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
}
