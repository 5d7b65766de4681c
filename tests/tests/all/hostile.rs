//! Everything hostile at once against one daemon with real engines: what is not a protocol, what is too much of it, documents that
//! cost too much, engines and a remote device that hang or die. After each attack another client's task completes. A second,
//! identical round leaves the memory and the descriptors of the daemon where they were after the first.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use artel_proto::v1;
use artel_tests::raw_connection::{HTTP2_HANDSHAKE, connect, is_closed};
use artel_tests::{Daemon, RpcServer, TaskStream, daemon, task_request, test_catalog, until};
use futures::future::join_all;
use nix::sys::signal::Signal;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::budgets::{costly_documents, file};
use crate::engines::{ROLE_WITH_EXAMPLE, engines, load, resident_bytes, signal_engine};

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(180);
/// How often a test looks whether it has happened.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Streams that are opened and dropped in each round.
const ROUND_STREAMS: usize = 10_000;
/// Streams of one connection: a client that resets more than a thousand closes the connection itself.
const CONNECTION_STREAMS: usize = 500;
/// How long the daemon may take to give back what the second round took.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than an idle connection may live here, so that each look tells something new.
const USAGE_INTERVAL: Duration = Duration::from_secs(5);
/// How much the memory of the daemon may grow in the second round, in percent.
const MAX_GROWTH_PERCENT: u64 = 5;

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, work).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// What the daemon uses of the machine.
#[derive(Debug, Clone, Copy)]
struct DaemonUsage {
    descriptors: usize,
    resident_bytes: u64,
}

impl DaemonUsage {
    fn of(daemon: &Daemon) -> Self {
        Self { descriptors: daemon.open_descriptors(), resident_bytes: resident_bytes(daemon.process_id()) }
    }
}

/// Looks at the usage until this holds.
async fn until_usage(daemon: &Daemon, mut holds: impl FnMut(DaemonUsage) -> bool) {
    while !holds(DaemonUsage::of(daemon)) {
        tokio::time::sleep(USAGE_INTERVAL).await;
    }
}

/// The usage once nothing is given back any more: connections idle out, and the allocator returns pages a while later.
async fn settled_usage(daemon: &Daemon) -> DaemonUsage {
    let mut last = DaemonUsage::of(daemon);
    let settles = until_usage(daemon, |now| {
        let settled = now.descriptors == last.descriptors && now.resident_bytes >= last.resident_bytes;
        last = now;
        settled
    });
    within("the usage settles", settles).await;
    last
}

/// Another client's task completes.
async fn others_are_served(daemon: &Daemon) {
    let mut task = daemon.run(task_request("What is a ship?").with_role("short")).await;
    let text = within("another client's task completes", task.end()).await.text();
    assert!(!text.is_empty());
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The HEADERS frame of a call of `Tasks.Submit`.
fn call_headers() -> Vec<u8> {
    let literal = |start: &[u8], value: &str| [start, &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    // Indexed: POST and http. Then literals with a name of the static table: path, authority, content type.
    let block = [
        vec![0x83, 0x86],
        literal(&[0x04], "/artel.v1.Tasks/Submit"),
        literal(&[0x01], "localhost"),
        literal(&[0x0f, 0x10], "application/grpc"),
        // A name of its own.
        [literal(&[0x00], "te"), literal(&[], "trailers")].concat(),
    ];
    frame(1, 4, 1, &block.concat())
}

/// What no client would send: each from the first byte of a connection on.
fn malformed_inputs() -> Vec<Vec<u8>> {
    let after_handshake = |frames: &[Vec<u8>]| [HTTP2_HANDSHAKE, &frames.concat()].concat();
    let with_message = |message: &[u8]| after_handshake(&[call_headers(), frame(0, 1, 1, message)]);
    let mut inputs = vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        // A frame larger than was agreed, one of an unknown kind, headers that cannot be decompressed, data before headers, a
        // reset of a stream that never was, a window beyond its maximum, settings that break the protocol.
        after_handshake(&[frame(0, 0, 1, &vec![0; 1 << 20])]),
        after_handshake(&[frame(0xee, 0xff, 7, b"what")]),
        after_handshake(&[frame(1, 5, 1, &[0xff; 64])]),
        after_handshake(&[frame(0, 1, 3, b"data")]),
        after_handshake(&[frame(3, 0, 9, &[0, 0, 0, 8])]),
        after_handshake(&vec![frame(8, 0, 0, &0x7fff_ffffu32.to_be_bytes()); 4]),
        after_handshake(&[frame(4, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])]),
        // Headers without an end, in ever more frames.
        after_handshake(
            &[vec![frame(1, 0, 1, &[0x83]), frame(9, 0, 1, &[0x86; 8192])], vec![frame(9, 0, 1, &[0x86; 8192]); 64]]
                .concat(),
        ),
        // Messages: longer than any may be, cut off, compressed without saying how, no protobuf.
        with_message(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
        with_message(&[0, 0, 0, 1, 0, 1, 2, 3]),
        with_message(&[1, 0, 0, 0, 3, 1, 2, 3]),
        with_message(&[0, 0, 0, 0, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ];
    // Random bytes, the same in each round: a linear congruential generator, alone and after the handshake.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |bytes: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..bytes).map(|_| next()).collect()
    };
    for length in [1, 24, 1000, 70_000] {
        inputs.push(random(length));
        inputs.push([HTTP2_HANDSHAKE, &random(length)].concat());
    }
    inputs
}

/// Sends what it can of each input, then nothing more: the daemon closes every connection.
async fn send_malformed_inputs(daemon: &Daemon) {
    for input in malformed_inputs() {
        let stream = connect(daemon);
        let mut rest = input.as_slice();
        until("it is closed", || {
            // A write fails once it is closed.
            if let Ok(written) = (&stream).write(rest) {
                rest = &rest[written..];
            }
            is_closed(&stream)
        })
        .await;
    }
}

/// Connections that send a byte at a time, and some that send nothing.
async fn trickle(daemon: &Daemon) {
    let streams: Vec<TcpStream> = (0..32).map(|_| connect(daemon)).collect();
    let mut bytes = HTTP2_HANDSHAKE.iter().cycle();
    until("all are closed", || {
        let byte = *bytes.next().unwrap();
        streams.iter().skip(16).for_each(|mut stream| drop(stream.write(&[byte])));
        streams.iter().all(is_closed)
    })
    .await;
}

/// Opens streams and drops them while they are open.
async fn open_and_drop_streams(daemon: &Daemon) {
    for _ in 0..ROUND_STREAMS / CONNECTION_STREAMS {
        let channel = Endpoint::from_shared(daemon.address.clone()).unwrap().connect().await.unwrap();
        let open = (0..CONNECTION_STREAMS).map(|_| {
            let mut health = HealthClient::new(channel.clone());
            async move { health.watch(HealthCheckRequest::default()).await.map(tonic::Response::into_inner) }
        });
        let watches = within("all are answered", join_all(open)).await;
        // More of them than the daemon has places for are refused.
        for refused in watches.iter().filter_map(|watch| watch.as_ref().err()) {
            assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
        }
        assert!(watches.iter().any(Result::is_ok));
    }
}

/// Sends documents that cost too much over gRPC, and puts one into the directory and takes it out again.
async fn send_costly_documents(daemon: &Daemon) {
    for (text, expected) in costly_documents() {
        let mut catalog = daemon.catalog();
        let validation = catalog.validate(v1::ValidateRequest { files: vec![file(&text)] });
        let answer = within(expected, validation).await.unwrap().into_inner();
        assert!(answer.problems.iter().any(|problem| problem.message.contains(expected)), "{expected}: {answer:?}");
    }
    let path = daemon.dir().join("catalog/costly.yaml");
    let (text, _) = &costly_documents()[1];
    fs::write(&path, text).unwrap();
    directory_problems(daemon, |problems| problems > 0).await;
    fs::remove_file(&path).unwrap();
    directory_problems(daemon, |problems| problems == 0).await;
}

/// Reloads the directory until this holds for the number of its problems.
async fn directory_problems(daemon: &Daemon, holds: impl Fn(usize) -> bool) {
    daemon.signal(Signal::SIGHUP);
    let reported = async {
        loop {
            let list = daemon.catalog().list(v1::ListCatalogRequest::default()).await.unwrap().into_inner();
            if holds(list.directory_problems.len()) {
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    within("the directory is read again", reported).await;
}

/// A story whose first token has come.
async fn begun_story(daemon: &Daemon, role: &str) -> TaskStream {
    let mut story = daemon.run(task_request("Tell me a story.").with_role(role)).await;
    within("the story begins", story.until_token()).await;
    story
}

/// Stops or kills an engine under a story: others are served, and the story is told to its end by the next engine.
async fn lose_engine(daemon: &Daemon, signal: Signal) {
    let mut story = begun_story(daemon, "storyteller").await;
    signal_engine(&engines(daemon).await["solo"], signal);
    others_are_served(daemon).await;
    assert!(!within("the story ends", story.end()).await.text().is_empty());
}

/// Stops or kills the embedding engine: a decision is made all the same.
async fn lose_embedding_engine(daemon: &Daemon, signal: Signal, question: &str) {
    signal_engine(&load(daemon, "minilm").await, signal);
    let request = v1::PreviewRequest {
        question: question.to_owned(),
        roles: vec!["words".to_owned()],
        signals: vec!["embedding".to_owned()],
        settings: "plain".to_owned(),
        ..v1::PreviewRequest::default()
    };
    let mut router = daemon.router();
    let (decided, ()) = tokio::join!(within("it decides", router.preview(request)), others_are_served(daemon));
    assert!(decided.unwrap().into_inner().decision.is_some());
}

/// Stops or kills what serves the remote device in the middle of an answer.
async fn lose_remote_device(daemon: &Daemon, server: &RpcServer, signal: Signal) {
    let mut story = begun_story(daemon, "far").await;
    server.signal_clients(signal);
    others_are_served(daemon).await;
    assert!(!within("the story ends", story.end()).await.text().is_empty());
}

async fn attack(daemon: &Daemon, server: &RpcServer) {
    send_malformed_inputs(daemon).await;
    others_are_served(daemon).await;
    trickle(daemon).await;
    others_are_served(daemon).await;
    open_and_drop_streams(daemon).await;
    others_are_served(daemon).await;
    send_costly_documents(daemon).await;
    others_are_served(daemon).await;
    for (signal, question) in [(Signal::SIGSTOP, "What is a letter?"), (Signal::SIGKILL, "What is a verb?")] {
        lose_engine(daemon, signal).await;
        lose_embedding_engine(daemon, signal, question).await;
        lose_remote_device(daemon, server, signal).await;
    }
    others_are_served(daemon).await;
    for model in ["talk", "solo", "minilm", "remote"] {
        within("it is loaded", load(daemon, model)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_under_attack_serves_others_and_a_second_round_leaves_nothing_behind() {
    let server = RpcServer::start().await;
    let story = "sampling: {temperature: 0.8, seed: 7, max_tokens: 48, repeat_penalty: 1.1}\n\
                 limits: {timeout: 10m, idle: 10m, retries: 0}\n";
    let yaml = format!(
        "{}{ROLE_WITH_EXAMPLE}---\nmodel: remote\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 1\n\
         devices: ['{}']\n---\nrole: far\ndescription: D.\nmodel: remote\nprompt: You tell stories that never end.\n{story}\
         ---\nrole: storyteller\ndescription: Tells stories.\nmodel: solo\nprompt: You tell stories that never end.\n{story}",
        test_catalog(),
        server.device_name()
    );
    let settings = format!("hang_timeout: 2s\nconnections: {{handshake: 1s, idle: 2s}}\nrpc: ['{}']\n", server.address);
    let daemon = daemon().with_yaml(&yaml).with_settings(&settings).start().await;
    attack(&daemon, &server).await;
    let first = settled_usage(&daemon).await;
    attack(&daemon, &server).await;
    let max_bytes = first.resident_bytes + first.resident_bytes * MAX_GROWTH_PERCENT / 100;
    let returned = until_usage(&daemon, |now| now.descriptors == first.descriptors && now.resident_bytes <= max_bytes);
    let returned = tokio::time::timeout(SETTLE_TIMEOUT, returned).await;
    let second = DaemonUsage::of(&daemon);
    println!("after the first round {first:?}, after the second {second:?}");
    assert!(returned.is_ok(), "after the first round {first:?}, after the second {second:?}");
    let log = daemon.whole_log().await;
    assert!(!log.contains("panicked"), "{log}");
}
