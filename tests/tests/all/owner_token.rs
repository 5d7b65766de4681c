//! The owner's token is sent to the daemon of its data directory, and to nothing else that listens on this machine.

use std::net::TcpListener as StdListener;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_proto::v1::event::Kind;
use artel_tests::scripted::asking_daemon;
use artel_tests::{Cli, Daemon, task_request};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic::{Request, Status};

/// No test waits longer for what must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A server that is not the daemon, and notes what it gets.
struct Impostor {
    address: String,
    connections: Arc<AtomicUsize>,
    /// The header of each call, or nothing.
    calls: Arc<Mutex<Vec<Option<String>>>>,
    server: JoinHandle<()>,
}

impl Impostor {
    /// Listens at an address that is free, such as one of a daemon that has ended.
    fn at(address: &str) -> Self {
        let listener = StdListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (connections, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let counted = connections.clone();
        let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap()).map(move |connection| {
            counted.fetch_add(1, Ordering::SeqCst);
            connection
        });
        let noted = calls.clone();
        let note = move |request: Request<()>| {
            let header = request.metadata().get("authorization").map(|value| value.to_str().unwrap_or("?").to_owned());
            noted.lock().unwrap().push(header);
            Err::<Request<()>, _>(Status::unimplemented("it only listens"))
        };
        let (_, health) = tonic_health::server::health_reporter();
        let server = Server::builder().layer(InterceptorLayer::new(note)).add_service(health);
        let server = tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        Self { address, connections, calls, server }
    }

    fn headers(&self) -> Vec<Option<String>> {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn start() -> Daemon {
    let daemon = asking_daemon();
    // Without the socket in the data directory, which the verbs prefer.
    let elsewhere = daemon.dir().join("elsewhere.sock");
    daemon.with_settings(&format!("socket: {}\n", elsewhere.display())).start().await
}

fn list(daemon: &Daemon) -> Cli {
    Cli::new(["task", "list", "--data"]).arg(daemon.dir().join("data"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verbs_find_a_daemon_at_the_address_that_it_says_in_its_data_directory() {
    let mut daemon = start().await;
    let (code, out, err) = list(&daemon).run().await;
    assert_eq!((code, err.as_str()), (0, ""), "no address is named: {out}");
    let port = daemon.address.rsplit_once(':').unwrap().1.to_owned();
    let (code, out, err) = list(&daemon).arg("--address").arg(format!("localhost:{port}")).run().await;
    assert_eq!(code, 0, "{out}{err}");
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    assert!(!daemon.dir().join("data/address").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_listens_elsewhere_or_in_the_place_of_a_daemon_that_was_killed_is_not_sent_the_token() {
    let mut daemon = start().await;
    let address = daemon.address.strip_prefix("http://").unwrap().to_owned();
    let elsewhere = Impostor::at("127.0.0.1:0");
    let (code, _, err) = list(&daemon).arg("--address").arg(&elsewhere.address).run().await;
    assert_ne!(code, 0, "{err}");
    assert_eq!(elsewhere.headers(), [None], "a call without a token: {err}");
    let token = daemon.dir().join("data/token");
    list(&daemon).arg("--address").arg(&elsewhere.address).env("ARTEL_TOKEN_FILE", &token).run().await;
    assert_eq!(
        elsewhere.headers().last().cloned().flatten(),
        Some(format!("Bearer {}", daemon.token)),
        "a token that is named is sent"
    );
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    assert!(daemon.dir().join("data/address").exists(), "it is left");
    let impostor = Impostor::at(&address);
    let (code, _, err) = list(&daemon).arg("--address").arg(&address).run().await;
    assert_ne!(code, 0, "{err}");
    assert_eq!(impostor.headers(), [None], "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_does_not_send_the_token_to_what_takes_the_place_of_its_daemon() {
    let mut daemon = start().await;
    let address = daemon.address.strip_prefix("http://").unwrap().to_owned();
    let mut run = daemon.run(task_request("Which?").with_graph("question")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let watch = Cli::new(["task", "watch", "--json", "--address", &address, "--data"]).arg(daemon.dir().join("data"));
    let mut command = watch.arg(&run.id).into_command();
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(watch.stdout.take().unwrap()));
    let waiting = async { while !lines.next_line().await.unwrap().unwrap().contains("\"waiting\"") {} };
    tokio::time::timeout(TEST_TIMEOUT, waiting).await.expect("it follows the task");
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    let impostor = Impostor::at(&address);
    let connected = async {
        while impostor.connections.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, connected).await.expect("it tries to connect again");
    watch.kill().await.unwrap();
    assert_eq!(impostor.headers(), Vec::<Option<String>>::new(), "no call, and no token");
    drop(impostor);
}
