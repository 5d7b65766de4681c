//! A stand-in for a second machine: `artel rpc-serve` on the loopback.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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
        let memory_bytes = |process: &ClientProcess| -> Option<u64> {
            let memory_kb: u64 = process.field("RssAnon:")?.strip_suffix("kB")?.trim().parse().ok()?;
            Some(memory_kb * 1024)
        };
        // A process without a client takes a little too.
        self.client_processes().iter().filter_map(memory_bytes).filter(|bytes| *bytes > 64 << 20).sum()
    }

    /// Sends a signal to the processes that serve its clients.
    pub fn signal_clients(&self, signal: Signal) {
        for process in self.client_processes() {
            // It may have exited meanwhile.
            let _ = kill(Pid::from_raw(process.id), signal);
        }
    }

    /// How many processes serve its clients.
    pub fn clients(&self) -> usize {
        self.client_processes().len()
    }

    /// Its processes that serve clients.
    fn client_processes(&self) -> Vec<ClientProcess> {
        let own_pid = self.child.id().expect("it runs").to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            Some(ClientProcess { id, status })
        });
        processes.filter(|process| process.field("PPid:") == Some(&own_pid)).collect()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

/// A process that serves a client.
struct ClientProcess {
    id: i32,
    /// The content of its `status`.
    status: String,
}

impl ClientProcess {
    fn field(&self, name: &str) -> Option<&str> {
        self.status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
    }
}
