//! A stand-in for a second machine: `artel rpc-serve` on the loopback.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::prerequisites::artel;

/// A server that offers the CPU of this machine as an RPC device. Dropping it kills it.
pub struct RpcServer {
    child: Child,
    dir: TempDir,
    /// Where it listens, `host:port`.
    pub address: String,
}

impl RpcServer {
    /// Starts it and waits until it listens.
    pub async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut child = Command::new(artel())
            .args(["rpc-serve", "--json", "--listen", "127.0.0.1:0", "--threads", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it listens");
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["devices"][0], "CPU");
        Self { child, dir, address: ready["listening"].as_str().unwrap().to_owned() }
    }

    /// The name of its device.
    pub fn device_name(&self) -> String {
        format!("RPC[{}]", self.address)
    }

    /// Bytes of anonymous memory that its processes hold for clients.
    pub fn client_memory_bytes(&self) -> u64 {
        let own_pid = self.child.id().expect("it runs");
        let memory_bytes = |process: &PathBuf| -> Option<u64> {
            let status = fs::read_to_string(process.join("status")).ok()?;
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let parent: u32 = field("PPid:")?.parse().ok()?;
            let memory_kb: u64 = field("RssAnon:")?.strip_suffix("kB")?.trim().parse().ok()?;
            (parent == own_pid).then_some(memory_kb * 1024)
        };
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        // A process without a client takes a little too.
        processes.filter_map(|process| memory_bytes(&process)).filter(|bytes| *bytes > 64 << 20).sum()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}
