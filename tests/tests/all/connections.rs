//! Connections that say nothing, little or too much: they are closed, and other clients are served meanwhile.

use std::error::Error as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::time::Duration;

use artel_proto::v1;
use artel_proto::v1::engines_client::EnginesClient;
use artel_proto::v1::tasks_client::TasksClient;
use artel_tests::raw_connection::{HTTP2_CLOSED_WINDOW, HTTP2_HANDSHAKE, connect, http2_headers, is_closed};
use artel_tests::scripted::{asking_daemon, scripted_daemon};
use artel_tests::{CallerChannel, Daemon, RpcServer, TokenHeader, daemon, task_request, until};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a task on a connection of its own, as the command line does.
async fn run_task(daemon: &Daemon) {
    let run = daemon.cli(["run", "--role", "writer", "Hello"]).run();
    let (code, out, err) = tokio::time::timeout(TEST_TIMEOUT, run).await.expect("it is served");
    assert_eq!((code, out.contains("<Hello>")), (0, true), "{out}{err}");
}

/// The CPU time of a process in ticks of 10 ms.
fn cpu_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name of the program, in parentheses, may have spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Waits until the daemon, whose router is warmed up first, leaves half of a core alone. A loop that spins never does.
async fn until_calm(daemon: &Daemon) {
    let calms_down = async {
        let mut ticks = cpu_ticks(daemon.process_id());
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = cpu_ticks(daemon.process_id());
            if now - ticks < 50 {
                return;
            }
            ticks = now;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, calms_down).await.expect("the daemon has nothing to do");
}

/// The headers of a request, with those that every request has.
fn headers<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 5] {
    let authority = (":authority", "localhost");
    [(":method", method), (":scheme", "http"), (":path", path), authority, ("content-type", "application/grpc")]
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_keep_no_connection_from_others_whatever_they_leave_unsent() {
    let daemon = scripted_daemon().with_settings("connections: {max: 8, per_peer: 8}\n").start().await;
    let call = http2_headers(1, &headers("POST", "/grpc.health.v1.Health/Check"), false);
    let strangers = [HTTP2_HANDSHAKE, &call].concat();
    let page = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n";
    let mut connections = Vec::new();
    for text in [&strangers[..], page].into_iter().cycle().take(32) {
        let mut stream = connect(&daemon);
        // It may be closed for another one already.
        let _ = stream.write_all(text);
        connections.push(stream);
    }
    until("the strangers make room for one another", || {
        connections.iter().filter(|stream| is_closed(stream)).count() >= 24
    })
    .await;
    run_task(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_strangers_do_not_read_take_no_request_from_others() {
    let daemon = scripted_daemon().with_settings("http: {requests: 4}\n").start().await;
    let mut stream = TcpStream::connect(daemon.address.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(HTTP2_CLOSED_WINDOW).unwrap();
    for at in 0..8 {
        let [method, scheme, path, authority, _] = headers("GET", "/metrics");
        stream.write_all(&http2_headers(2 * at + 1, &[method, scheme, path, authority], true)).unwrap();
    }
    // Each answer begins with a HEADERS frame; its body waits for the client.
    let answered = tokio::task::spawn_blocking(move || {
        let mut answers = 0;
        while answers < 8 {
            let mut frame = [0; 9];
            stream.read_exact(&mut frame).unwrap();
            let length = u64::from(u32::from_be_bytes([0, frame[0], frame[1], frame[2]]));
            std::io::copy(&mut (&stream).take(length), &mut std::io::sink()).unwrap();
            answers += usize::from(frame[3] == 0x1);
        }
        stream
    });
    let _stream = tokio::time::timeout(TEST_TIMEOUT, answered).await.expect("all are answered").unwrap();
    run_task(&daemon).await;
}

/// The connections that the daemon has open.
fn open_connections(daemon: &Daemon) -> usize {
    /// The state of a socket that both sides have open.
    const ESTABLISHED_CODE: &str = "01";
    let port: u16 = daemon.address.rsplit_once(':').unwrap().1.parse().unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_ours = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next().unwrap(), fields.nth(1).unwrap());
        local.ends_with(&format!(":{port:04X}")) && state == ESTABLISHED_CODE
    };
    table.lines().skip(1).filter(is_ours).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_beyond_the_descriptors_neither_block_others_nor_keep_the_daemon_busy() {
    const DESCRIPTORS: usize = 128;
    let daemon = scripted_daemon().with_descriptor_limit(128).start().await;
    run_task(&daemon).await;
    until_calm(&daemon).await;
    let before = daemon.open_descriptors();
    let idle: Vec<TcpStream> = (0..200).map(|_| connect(&daemon)).collect();
    // Those that the limits allow stay open for a while, the others make room.
    until("most are closed", || idle.iter().filter(|stream| is_closed(stream)).count() > 200 - DESCRIPTORS / 2).await;
    run_task(&daemon).await;
    until_calm(&daemon).await;
    // A call to mark the log's end would take a descriptor.
    daemon.until_logged("idle ones are closed for new ones").await;
    let log = daemon.log();
    assert_eq!(log.matches("idle ones are closed for new ones").count(), 1, "{log}");
    assert!(!log.contains("failed to accept"), "{log}");
    drop(idle);
    until("the descriptors come back", || daemon.open_descriptors() <= before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silent_or_trickles_or_never_calls_is_closed() {
    let daemon = scripted_daemon().with_settings("connections: {handshake: 1s}\n").start().await;
    let (silent, calm) = (connect(&daemon), connect(&daemon));
    (&calm).write_all(HTTP2_HANDSHAKE).unwrap();
    let trickling = connect(&daemon);
    let mut bytes = HTTP2_HANDSHAKE.iter().cycle();
    run_task(&daemon).await;
    until("all are closed", || {
        // A write fails once it is closed.
        let _ = (&trickling).write(&[*bytes.next().unwrap()]);
        [&silent, &calm, &trickling].into_iter().all(is_closed)
    })
    .await;
    run_task(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_idles_after_a_call_is_closed_and_its_client_calls_again() {
    let daemon = scripted_daemon().with_settings("connections: {idle: 1s}\n").start().await;
    let call = async || daemon.engines().list_engines(v1::ListEnginesRequest::default()).await.unwrap();
    call().await;
    assert_eq!(open_connections(&daemon), 1);
    until("it is closed", || open_connections(&daemon) == 0).await;
    call().await;
    // A watch is a call for as long as it lasts.
    let mut health = HealthClient::new(daemon.channel());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let next = tokio::time::timeout(Duration::from_secs(3), watch.message()).await;
    assert!(next.is_err(), "it goes on beyond the idle timeout: {next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_at_its_maximum_leaves_room_for_others_and_gets_no_more() {
    let daemon = asking_daemon().with_settings("connections: {max: 4, per_peer: 2}\n").start().await;
    let task = daemon.submit(task_request("Which?").with_graph("question")).await.unwrap().id;
    let from = |last: u8| {
        let endpoint = Endpoint::from_shared(daemon.address.clone()).unwrap();
        endpoint.local_address(Some(IpAddr::from([127, 0, 0, last]))).connect_lazy()
    };
    let mut watches = Vec::new();
    for _ in 0..2 {
        let mut tasks = TasksClient::new(CallerChannel::new(from(2), TokenHeader::new(&daemon.token)));
        let request = v1::WatchRequest { task_id: task.clone(), ..Default::default() };
        watches.push(tasks.watch(request).await.unwrap().into_inner());
    }
    let list = |last: u8| {
        let mut engines = EnginesClient::new(CallerChannel::new(from(last), TokenHeader::new(&daemon.token)));
        async move { engines.list_engines(v1::ListEnginesRequest::default()).await }
    };
    let refused = tokio::time::timeout(TEST_TIMEOUT, list(2)).await.expect("it is closed at once").unwrap_err();
    // The connection failed at one point or another: the daemon gave no status.
    assert!(refused.source().is_some(), "{refused}");
    list(3).await.unwrap();
    run_task(&daemon).await;
    for watch in &mut watches {
        watch.message().await.unwrap().expect("a call is never cut off for another connection");
    }
    let log = daemon.whole_log().await;
    assert_eq!(log.matches("connections are refused").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_of_an_rpc_server_start_no_process_and_a_real_one_is_served() {
    let server = RpcServer::start().await;
    let silent: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    // One byte is not a command.
    (&silent[63]).write_all(&[14]).unwrap();
    let daemon = daemon().with_settings(&format!("rpc: ['{}']\n", server.address)).start().await;
    let list = daemon.engines().list_devices(v1::ListDevicesRequest::default()).await;
    let devices = list.unwrap().into_inner().devices;
    let served = devices.iter().find(|device| device.name == server.device_name());
    assert!(served.is_some_and(|device| device.available), "{devices:?}");
    // Those of the daemon, which asks for devices, end with its connections.
    until("no process is left", || server.clients() == 0).await;
    silent.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
}
