//! The process that indexes, as its parent sees it and from within.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use artel_knowledge::{EntryKey, Index};

use crate::reader;

pub(crate) const DATABASE_VARIABLE: &str = "ORACLE_DATABASE";
const DOCS_VARIABLE: &str = "ORACLE_DOCS";

/// What the process writes before each of its lines, so that they are told from those of the test harness.
const LINE_MARK: &str = "oracle:";

/// A running indexer in a process of its own.
pub(crate) struct ChildIndexer {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl ChildIndexer {
    pub(crate) fn start(docs: &Path, database: &Path) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
            .env(DATABASE_VARIABLE, database)
            .env(DOCS_VARIABLE, docs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        // It ends with the process.
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let line = line.split_once(LINE_MARK).map(|(_, line)| line.to_owned());
                if line.is_some_and(|line| sender.send(line).is_err()) {
                    break;
                }
            }
        });
        Self { process, input, lines }
    }

    /// Waits until it has done something since the last call, or has nothing to do.
    pub(crate) fn wait_for_work(&self, timeout: Duration) {
        while self.lines.try_recv().is_ok() {}
        let _ = self.lines.recv_timeout(timeout);
    }

    /// Waits until it has indexed this file and all that was changed before it.
    pub(crate) fn settle(&mut self, sentinel: &Path, timeout: Duration) {
        writeln!(self.input, "{}", sentinel.display()).unwrap();
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("the indexer did not settle");
            if line == "settled" {
                return;
            }
        }
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// What the process does: it indexes until it is killed, or its parent is gone.
pub(crate) fn run() {
    let path = |variable: &str| PathBuf::from(env::var_os(variable).unwrap());
    let (docs, database) = (path(DOCS_VARIABLE), path(DATABASE_VARIABLE));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let index = Index::open(&database).await.unwrap();
        let indexer = reader::start(&index, &docs, true).await;
        let mut progress = indexer.progress();
        tokio::spawn(async move {
            while progress.changed().await.is_ok() {
                say("worked");
            }
        });
        let (sender, mut sentinels) = tokio::sync::mpsc::unbounded_channel();
        thread::spawn(move || {
            for line in stdin().lock().lines().map_while(Result::ok) {
                sender.send(PathBuf::from(line)).unwrap();
            }
        });
        while let Some(sentinel) = sentinels.recv().await {
            let key = EntryKey::file(&sentinel).unwrap();
            let base = index.open_base(reader::BASE, &reader::settings()).await.unwrap();
            let mut progress = indexer.progress();
            loop {
                indexer.idle().await;
                let entries = index.entries(base.target).await.unwrap();
                if entries.iter().any(|entry| entry.key == key) {
                    break;
                }
                progress.changed().await.unwrap();
            }
            say("settled");
        }
    });
}

fn say(line: &str) {
    let mut out = stdout().lock();
    // The parent may be gone.
    let _ = writeln!(out, "\n{LINE_MARK}{line}");
    let _ = out.flush();
}
