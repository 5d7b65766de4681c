//! A real Prometheus on the loopback, which scrapes a daemon.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::Daemon;
use crate::monitoring;
use crate::prerequisites::prometheus_program;

/// The interval between two looks at what a program does by itself.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// No count comes later.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(60);

/// A Prometheus that runs. Dropping it ends it.
pub struct PrometheusServer {
    _child: Child,
    _dir: TempDir,
    address: String,
}

impl PrometheusServer {
    /// Starts one that scrapes this daemon every second, with the daemon's own token if it has one, and with the alerts.
    pub async fn watching(daemon: &Daemon) -> Self {
        let dir = TempDir::new().unwrap();
        let target = daemon.address.trim_start_matches("http://");
        let token = daemon.dir().join("data/token");
        let authorization = match token.is_file() {
            true => format!("    authorization: {{credentials_file: {}}}\n", token.display()),
            false => String::new(),
        };
        let rules = monitoring::directory().join("artel-alerts.yml").canonicalize().unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n  - job_name: artel\n\
             {authorization}    static_configs: [{{targets: [\"{target}\"]}}]\n",
            rules.display()
        );
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let mut child = Command::new(prometheus_program("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("it listens before it ends");
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.split(' ').next().unwrap().to_owned();
            }
        };
        // Its log is read on, so that it is never stopped by it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { _child: child, _dir: dir, address }
    }

    /// The result of a query, or what is wrong with it.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let (_, body) = http_get(&self.address, &format!("/api/v1/query?query={}", percent_encoded(query)), None).await;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error} in {body}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// Waits until a query has a result.
    pub async fn wait_for(&self, query: &str) {
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        loop {
            polls.tick().await;
            if self.query(query).await.is_ok_and(|result| !result.is_empty()) {
                return;
            }
        }
    }
}

/// The text that a daemon gives to Prometheus, and its headers.
pub async fn scrape(daemon: &Daemon) -> (String, String) {
    let token = fs::read_to_string(daemon.dir().join("data/token")).ok();
    let token = token.as_deref().map(str::trim);
    http_get(daemon.address.trim_start_matches("http://"), "/metrics", token).await
}

/// Waits until a daemon gives this line to Prometheus, of which the count may come after what is counted.
///
/// # Panics
/// It never does.
pub async fn until_scraped(daemon: &Daemon, line: &str) {
    let found = async {
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        while !scrape(daemon).await.1.lines().any(|scraped| scraped == line) {
            polls.tick().await;
        }
    };
    let found = tokio::time::timeout(SCRAPE_TIMEOUT, found).await;
    assert!(found.is_ok(), "`{line}` never came: {}", scrape(daemon).await.1);
}

/// The headers and the body of an answer. HTTP/1.0, so that the body is not in chunks.
async fn http_get(address: &str, path: &str, token: Option<&str>) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Runs `promtool` in the directory of the alerts; what it says if it fails.
pub async fn promtool(arguments: &[&str], directory: &Path) -> Result<(), String> {
    let output =
        Command::new(prometheus_program("promtool")).args(arguments).current_dir(directory).output().await.unwrap();
    let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said()) }
}
