//! Clients in other languages through the one port, encrypted and with tokens: grpcio, and gRPC-Web in Node.js.
//!
//! Each is generated from the public protos by its own tools, trusts the authority that `artel cert create` made, and prints
//! what it saw.

use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_tests::scripted::asking_daemon;
use artel_tests::scripts::{NodeScripts, python_modules, script};
use artel_tests::{Cli, Daemon, python};
use serde_json::{Value, json};

/// No test waits longer for a client.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);
/// An origin that is listed in the settings.
const LISTED_ORIGIN: &str = "https://desk.example";
/// The longest delay that a caller is told that may call three times a minute.
const MAX_RETRY_SECS: f64 = 20.0;

/// A daemon with the certificates of `artel cert create`.
struct EncryptedDaemon {
    daemon: Daemon,
    tls: PathBuf,
}

impl EncryptedDaemon {
    async fn start() -> Self {
        let builder = asking_daemon();
        let tls = builder.dir().join("tls");
        create_certificate(&tls, &["--name", "localhost"]).await;
        let settings = create_certificate(&tls, &["--client", "laptop"]).await;
        let settings = format!("{settings}\nhttp: {{origins: ['{LISTED_ORIGIN}']}}\n");
        Self { daemon: builder.with_settings(&settings).start().await, tls }
    }

    fn port(&self) -> &str {
        self.daemon.address.rsplit(':').next().unwrap()
    }

    /// A verb of the owner, which finds the Unix socket in the data directory.
    fn owner<const N: usize>(&self, args: [&str; N]) -> Cli {
        Cli::new(args).env("ARTEL_DATA", self.daemon.dir().join("data"))
    }

    /// Makes a token and gives its secret.
    async fn token(&self, name: &str, scopes: &str, limits: &[&str]) -> String {
        let create = self.owner(["token", "create", "--name", name, "--scopes", scopes]);
        let (code, out, err) = limits.iter().fold(create, Cli::arg).run().await;
        assert_eq!(code, 0, "{out}{err}");
        out.trim_end().to_owned()
    }

    /// Runs a client with the tokens that the scripts expect; what it saw.
    async fn run(&self, client: Cli) -> Value {
        let client = client.env("ARTEL_TOKEN", self.token("desk", "submit,read", &[]).await);
        let client = client.env("READER_TOKEN", self.token("reader", "read", &[]).await);
        let client = client.env("BUSY_TOKEN", self.token("busy", "read", &["--calls-per-minute=3"]).await);
        let (code, out, err) = tokio::time::timeout(TEST_TIMEOUT, client.run()).await.expect("the client ends");
        assert_eq!(code, 0, "{out}{err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
    }

    /// What every client sees. Its task is on disk, and what was refused is not.
    async fn assert_served(&self, seen: &Value, input: &str) {
        let kinds = seen["run"]["kinds"].as_array().unwrap();
        assert_eq!((&kinds[0], kinds.last().unwrap()), (&json!("accepted"), &json!("completed")), "{seen}");
        let run =
            json!({"kinds": kinds, "state": "TASK_STATE_COMPLETED", "text": format!("<{input}>"), "listed": true});
        assert_eq!(seen["run"], run);
        let stranger = json!({"code": "UNAUTHENTICATED", "reason": "UNAUTHENTICATED", "metadata": {}});
        assert_eq!((&seen["no_token"], &seen["wrong_token"]), (&stranger, &stranger), "{seen}");
        assert_eq!(seen["missing_scope"], missing_scope("reader"));
        assert_eq!(seen["deadline"]["code"], "DEADLINE_EXCEEDED", "{seen}");
        let limit = &seen["limit"];
        assert_eq!(
            (&limit["code"], &limit["reason"]),
            (&json!("RESOURCE_EXHAUSTED"), &json!("CALLER_LIMIT")),
            "{seen}"
        );
        let delay = limit["retry_seconds"].as_f64().unwrap();
        assert!(delay > 0.0 && delay <= MAX_RETRY_SECS, "{seen}");
        let (code, out, err) = self.owner(["task", "list", "--json"]).run().await;
        assert_eq!((code, out.lines().count()), (0, 2), "one that ran, and one that was watched: {out}{err}");
    }
}

/// The refusal of a caller that may only read.
fn missing_scope(caller: &str) -> Value {
    let metadata = json!({"scope": "submit", "caller": caller});
    json!({"code": "PERMISSION_DENIED", "reason": "MISSING_SCOPE", "metadata": metadata})
}

/// Makes a certificate and gives the line for the settings.
async fn create_certificate(dir: &Path, args: &[&str]) -> String {
    let create = Cli::new(["cert", "create", "--json", "--dir"]).arg(dir);
    let (code, out, err) = args.iter().fold(create, Cli::arg).run().await;
    assert_eq!(code, 0, "{out}{err}");
    let created: Value = serde_json::from_str(&out).unwrap();
    created["settings"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_calls_with_tls_and_a_token_or_a_certificate() {
    let served = EncryptedDaemon::start().await;
    let modules = tempfile::tempdir().unwrap();
    python_modules(modules.path()).await;
    // The client's certificate stands for this token.
    served.token("laptop", "read", &[]).await;
    let client = Cli::program(&python(), []).env("PYTHONPATH", modules.path()).arg(script("grpcio_client.py"));
    let client = client.arg(format!("localhost:{}", served.port())).arg(served.tls.join("ca.pem"));
    let client = client.arg(served.tls.join("client-laptop.pem")).arg(served.tls.join("client-laptop-key.pem"));
    let seen = served.run(client).await;
    served.assert_served(&seen, "over gRPC").await;
    assert_eq!(seen["untrusted"]["code"], "UNAVAILABLE", "a client of other authorities: {seen}");
    assert_eq!(seen["certificate"], json!({"code": "OK"}));
    assert_eq!(seen["certificate_submits"], missing_scope("laptop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_web_client_calls_with_tls_and_a_token() {
    let served = EncryptedDaemon::start().await;
    let scripts = NodeScripts::new().await;
    let client = scripts.cli("grpc_web.mjs").env("NODE_EXTRA_CA_CERTS", served.tls.join("ca.pem"));
    let client = client.arg(format!("https://localhost:{}", served.port())).arg(LISTED_ORIGIN);
    let seen = served.run(client).await;
    served.assert_served(&seen, "over gRPC-Web").await;
    let preflight = &seen["preflight"];
    assert_eq!((&preflight["status"], &preflight["origin"]), (&json!(204), &json!(LISTED_ORIGIN)), "{seen}");
    assert!(preflight["methods"].as_str().unwrap().contains("POST"), "{seen}");
    for header in ["authorization", "content-type", "grpc-timeout", "x-grpc-web", "x-user-agent"] {
        assert!(preflight["headers"].as_str().unwrap().contains(header), "{header}: {seen}");
    }
    let foreign = json!({"status": 403, "origin": null, "methods": null, "headers": null});
    assert_eq!(seen["foreign_preflight"], foreign);
}
