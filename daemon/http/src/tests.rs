//! The port on real sockets, with routes that answer what is needed.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_accept::{Acceptor, ConnectionLimits, ConnectionPlaces, Peer, UnixSocket};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::routing::{get, post};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::{
    ConnectionTimeouts, HostRules, OriginRules, Pages, Port, PortSockets, Readiness, TlsFiles, TlsIdentity,
    with_body_limits,
};

const MAX_REQUESTS: usize = 2;
const SECOND: Duration = Duration::from_secs(1);

struct TestPort {
    address: SocketAddr,
    dir: TempDir,
    /// Why requests were refused.
    refused: Arc<Mutex<Vec<&'static str>>>,
    /// Notified when a request hangs.
    hanging: Arc<Notify>,
    closing: CancellationToken,
    served: JoinHandle<usize>,
}

impl TestPort {
    async fn start(timeouts: ConnectionTimeouts) -> Self {
        Self::with_tls(timeouts, None).await
    }

    async fn with_tls(timeouts: ConnectionTimeouts, tls: Option<Arc<TlsIdentity>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let places = ConnectionPlaces::new(ConnectionLimits { total: 16, per_peer: 16 });
        let tcp = Acceptor::new(listener, places.clone());
        let address = tcp.local_addr().unwrap();
        let unix = UnixSocket::bind(&dir.path().join("artel.sock")).unwrap();
        let unix = Some(Acceptor::new(unix, places));
        let (hanging, closing) = (Arc::new(Notify::new()), CancellationToken::new());
        let hangs = hanging.clone();
        let hang = get(move || async move {
            hangs.notify_one();
            pending::<()>().await;
        });
        let peer = get(|request: Request| async move { format!("{:?}", request.extensions().get::<Peer>().unwrap()) });
        let echo = with_body_limits(Router::new().route("/echo", post(|body: Bytes| async move { body })));
        let pages =
            Pages::new(|| Readiness::NotReady("it rests".to_owned())).with_metrics(|| async { "# EOF\n".to_owned() });
        let refused = Arc::<Mutex<Vec<_>>>::default();
        let reasons = refused.clone();
        let port = Port {
            grpc: Router::new(),
            pages: pages.routes().merge(echo).route("/hang", hang).route("/peer", peer),
            hosts: HostRules::default(),
            origins: OriginRules::new(["https://desk.example".to_owned()]).unwrap(),
            max_requests: MAX_REQUESTS,
            timeouts,
            tls,
            observer: Some(Arc::new(move |reason| reasons.lock().unwrap().push(reason))),
            closing: closing.clone(),
        };
        let served = tokio::spawn(port.serve(PortSockets { tcp, unix }));
        Self { address, dir, refused, hanging, closing, served }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The response to a request over TCP.
    async fn get(&self, request: &str) -> String {
        exchange(self.tcp().await, request).await
    }
}

fn timeouts() -> ConnectionTimeouts {
    ConnectionTimeouts { handshake: SECOND * 30, idle: SECOND * 30, close: SECOND * 30 }
}

/// Sends the beginning of a request, with the headers of every one, and reads until the server closes.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    let (line, rest) = request.split_once("\r\n").unwrap_or((request, ""));
    let host = if rest.contains("host:") { "" } else { "host: localhost\r\n" };
    let body = if rest.contains("\r\n\r\n") { "" } else { "\r\n" };
    let text = format!("{line} HTTP/1.1\r\n{host}connection: close\r\n{rest}{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn pages_answer_and_errors_are_json() {
    let port = TestPort::start(timeouts()).await;
    let alive = port.get("GET /healthz").await;
    assert!(alive.starts_with("HTTP/1.1 200") && alive.ends_with("\r\n\r\nok"), "{alive}");
    let ready = port.get("GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("it rests"), "{ready}");
    let metrics = port.get("GET /metrics").await;
    assert!(metrics.contains("application/openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
    let missing = port.get("GET /nothing").await;
    assert!(missing.starts_with("HTTP/1.1 404") && missing.contains(r#""code":"not_found""#), "{missing}");
    let posted = port.get("POST /healthz").await;
    assert!(posted.starts_with("HTTP/1.1 405") && posted.contains("method_not_allowed"), "{posted}");
}

#[tokio::test]
async fn hosts_and_origins_are_checked_over_tcp_and_no_host_over_the_unix_socket() {
    let port = TestPort::start(timeouts()).await;
    let rebound = port.get("GET /healthz\r\nhost: evil.example\r\n").await;
    assert!(rebound.starts_with("HTTP/1.1 421") && rebound.contains("host_refused"), "{rebound}");
    let foreign = port.get("GET /healthz\r\norigin: https://evil.example\r\n").await;
    assert!(foreign.starts_with("HTTP/1.1 403") && !foreign.contains("access-control"), "{foreign}");
    assert_eq!(*port.refused.lock().unwrap(), ["HOST_REFUSED", "ORIGIN_REFUSED"]);
    let listed = port.get("GET /healthz\r\norigin: https://desk.example\r\n").await;
    assert!(listed.contains("access-control-allow-origin: https://desk.example"), "{listed}");
    let preflight = "OPTIONS /echo\r\norigin: https://desk.example\r\naccess-control-request-method: POST\r\n";
    let answer = port.get(preflight).await;
    assert!(
        answer.starts_with("HTTP/1.1 204") && answer.contains("access-control-allow-headers: authorization"),
        "{answer}"
    );
    let unix = UnixStream::connect(port.dir.path().join("artel.sock")).await.unwrap();
    let local = exchange(unix, "GET /peer\r\nhost: anything\r\n").await;
    assert!(local.starts_with("HTTP/1.1 200") && local.contains("Unix { user_id:"), "{local}");
    let peer = port.get("GET /peer").await;
    assert!(peer.contains("is_encrypted: false, certificate_name: None"), "{peer}");
}

#[tokio::test]
async fn headers_and_bodies_have_limits() {
    let port = TestPort::start(timeouts()).await;
    let large = port.get(&format!("GET /healthz\r\nx-large: {}\r\n", "x".repeat(17 << 10))).await;
    assert!(large.starts_with("HTTP/1.1 431") && large.contains("the limit is 16384"), "{large}");
    let echoed = port.get("POST /echo\r\ncontent-length: 5\r\n\r\nhello").await;
    assert!(echoed.ends_with("\r\n\r\nhello"), "{echoed}");
    let large = port.get("POST /echo\r\ncontent-length: 5000000\r\n").await;
    assert!(large.starts_with("HTTP/1.1 413") && large.contains("body_too_large"), "{large}");
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_with_a_delay_and_health_is_told() {
    let port = TestPort::start(timeouts()).await;
    let mut hanging = Vec::new();
    for _ in 0..MAX_REQUESTS {
        let mut stream = port.tcp().await;
        stream.write_all(b"GET /hang HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        port.hanging.notified().await;
        hanging.push(stream);
    }
    let refused = port.get("GET /peer").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 2"), "{refused}");
    assert!(port.get("GET /healthz").await.starts_with("HTTP/1.1 200"));
    drop(hanging);
    // Their share comes back once the connections are seen to be closed.
    while !port.get("GET /peer").await.starts_with("HTTP/1.1 200") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn half_a_request_is_cut_off_before_and_after_a_whole_one() {
    let short = ConnectionTimeouts { handshake: Duration::from_millis(100), ..timeouts() };
    let port = TestPort::start(short).await;
    let mut rest = String::new();
    let mut first = port.tcp().await;
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").await.unwrap();
    first.read_to_string(&mut rest).await.unwrap();
    assert!(!rest.contains("200"), "{rest}");
    let mut second = port.tcp().await;
    let whole = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nhost: loc";
    second.write_all(whole).await.unwrap();
    rest.clear();
    second.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest.matches("200 OK").count(), 1, "{rest}");
}

#[tokio::test]
async fn a_closing_port_removes_its_socket_and_counts_what_it_cut_off() {
    let port = TestPort::start(ConnectionTimeouts { close: Duration::from_millis(50), ..timeouts() }).await;
    let mut stream = port.tcp().await;
    stream.write_all(b"GET /hang HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    port.hanging.notified().await;
    port.closing.cancel();
    assert_eq!(port.served.await.unwrap(), 1);
    assert!(!port.dir.path().join("artel.sock").exists());
}

/// The certificate and the key of a server and of a client, both from one authority, and the authority's, in PEM.
struct TestAuthority {
    authority: String,
    server: [String; 2],
    client: [String; 2],
}

impl TestAuthority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let signed = |name: &str| {
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            [params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem()]
        };
        Self { authority, server: signed("localhost"), client: signed("ann") }
    }

    fn identity(&self, dir: &TempDir) -> Arc<TlsIdentity> {
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let [certificate, key] = &self.server;
        let (certificate, key) = (file("cert.pem", certificate), file("key.pem", key));
        TlsIdentity::load(TlsFiles { certificate, key, client_ca: Some(file("ca.pem", &self.authority)) }).unwrap()
    }

    /// A client that trusts the authority, and shows this pair.
    fn connector(&self, shown: Option<&[String; 2]>, protocol: &[u8]) -> TlsConnector {
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.authority)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some([pem, key]) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate(pem)], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config).into()
    }
}

#[tokio::test]
async fn a_client_may_show_a_certificate_of_the_authority_and_no_other() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), TestAuthority::new());
    let port = TestPort::with_tls(timeouts(), Some(authority.identity(&dir))).await;
    let name = || ServerName::try_from("localhost").unwrap();
    let peer = async |shown: Option<&[String; 2]>| {
        let connector = authority.connector(shown, b"http/1.1");
        exchange(connector.connect(name(), port.tcp().await).await.unwrap(), "GET /peer").await
    };
    let shown = peer(Some(&authority.client)).await;
    assert!(shown.contains("is_encrypted: true, certificate_name: Some(\"ann\")"), "{shown}");
    let stranger = peer(None).await;
    assert!(stranger.contains("is_encrypted: true, certificate_name: None"), "{stranger}");
    let connector = authority.connector(Some(&TestAuthority::new().client), b"http/1.1");
    let mut refused = connector.connect(name(), port.tcp().await).await.unwrap();
    // With TLS 1.3, the client learns of it when it reads.
    assert!(refused.read_to_end(&mut Vec::new()).await.is_err());
    let plain = port.get("GET /healthz").await;
    assert!(plain.starts_with("HTTP/1.1 400") && plain.contains("this port speaks TLS"), "{plain}");
    let stream = authority.connector(None, b"h2").connect(name(), port.tcp().await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "for gRPC");
}

#[tokio::test]
async fn a_client_that_does_not_finish_the_handshake_of_tls_is_closed() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), TestAuthority::new());
    let short = ConnectionTimeouts { handshake: Duration::from_millis(100), ..timeouts() };
    let port = TestPort::with_tls(short, Some(authority.identity(&dir))).await;
    let mut silent = port.tcp().await;
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
}
