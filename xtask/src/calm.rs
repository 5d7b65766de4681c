//! `cargo xtask calm`: false alarms of the watch over engines. Workloads of `artel bench` run on one core with a hog beside them;
//! no engine may be ended for being slow.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::{demo, models};

/// The workloads, in turn: long prompts beside streams, many roles, chains, decisions, and more load than there is capacity.
const WORKLOADS: [&str; 6] = ["stall", "roles", "hops", "choose", "decode", "overload"];
/// The message with which the daemon logs that an engine was ended for want of progress.
const HANG_MESSAGE: &str = "the engine hangs and its process is killed";
/// How often the logs are read: the daemons of a workload run for much longer, and leave no log behind.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The time between two lines of progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Runs workloads for so many minutes; fails if any engine was killed for want of progress.
pub(crate) fn run(cache: &Path, minutes: u64, artel: Option<PathBuf>) -> Result<()> {
    let artel = artel.map_or_else(demo::build, Ok)?;
    let dir = cache.join("calm");
    // Logs of an earlier run would count.
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("failed to empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir.join("logs")).with_context(|| format!("failed to create {}", dir.display()))?;
    use_one_core()?;
    let _hog = Hog::start()?;
    let (started, length) = (Instant::now(), Duration::from_secs(60 * minutes));
    let mut logs = DaemonLogs::new(&dir);
    let (mut runs, mut next_report) = (0usize, REPORT_INTERVAL);
    while started.elapsed() < length {
        let workload = WORKLOADS[runs % WORKLOADS.len()];
        let mut bench = bench(&artel, &models::chat(cache), &dir, workload)?;
        runs += 1;
        let ended = loop {
            logs.read()?;
            if let Some(ended) = bench.try_wait().context("failed to wait for artel bench")? {
                break ended;
            }
            if started.elapsed() >= next_report {
                let minute = started.elapsed().as_secs() / 60;
                println!("minute {minute} of {minutes}: workload {runs} ({workload}), engines killed: {}", logs.kills);
                next_report += REPORT_INTERVAL;
            }
            sleep(POLL_INTERVAL);
        };
        logs.read()?;
        if !ended.success() {
            bail!("the workload {workload} ended with {ended}; the logs of its daemons are in {}", logs.kept.display());
        }
    }
    println!("{} workloads in {} minutes, engines killed for slowness: {}", runs, minutes, logs.kills);
    if logs.seen.is_empty() {
        bail!("no log of a daemon was found below {}: nothing was counted", dir.display());
    }
    if logs.kills > 0 {
        bail!("slow engines were taken for dead ones; the logs of their daemons are in {}", logs.kept.display());
    }
    Ok(())
}

/// Binds this process, and so all that it starts, to the first of its cores.
fn use_one_core() -> Result<()> {
    let own = sched_getaffinity(Pid::from_raw(0)).context("failed to read the cores of this process")?;
    let first = (0..CpuSet::count()).find(|core| own.is_set(*core).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.context("this process has no core")?).context("failed to choose a core")?;
    sched_setaffinity(Pid::from_raw(0), &one).context("failed to bind this process to one core")
}

/// Starts a workload; its daemons make their directories below `dir`.
fn bench(artel: &Path, model: &Path, dir: &Path, workload: &str) -> Result<Child> {
    let mut command = Command::new(artel);
    command.args(["bench", workload, "--repeats", "1", "--threads", "1", "--model"]).arg(model);
    command.env("TMPDIR", dir).stdout(Stdio::null());
    command.spawn().with_context(|| format!("failed to start {}", artel.display()))
}

/// A process that takes all of a core that it can get. Dropping it ends it.
struct Hog(Child);

impl Hog {
    fn start() -> Result<Self> {
        let hog = Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        hog.map(Self).context("failed to start the hog")
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // Nothing is left to do if it cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The logs of the daemons that ran, and what they tell. Each is linked before its daemon removes it, so that nothing of it is
/// lost.
struct DaemonLogs {
    /// Where daemons have their directories.
    dir: PathBuf,
    /// Where the links are.
    kept: PathBuf,
    /// By the path of the log: the link, and how much of it was read.
    seen: HashMap<PathBuf, (PathBuf, u64)>,
    kills: usize,
}

impl DaemonLogs {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), kept: dir.join("logs"), seen: HashMap::new(), kills: 0 }
    }

    /// Links new logs, and counts what was written since the last call.
    fn read(&mut self) -> Result<()> {
        let dirs = fs::read_dir(&self.dir).with_context(|| format!("failed to list {}", self.dir.display()))?;
        for log in dirs.flatten().map(|dir| dir.path().join("log")) {
            if self.seen.contains_key(&log) {
                continue;
            }
            let link = self.kept.join(format!("{}.json", self.seen.len()));
            // Not every directory is a daemon's, and one may be gone already.
            if fs::hard_link(&log, &link).is_ok() {
                self.seen.insert(log, (link, 0));
            }
        }
        for (link, read_bytes) in self.seen.values_mut() {
            let mut file = fs::File::open(&*link).with_context(|| format!("failed to open {}", link.display()))?;
            file.seek(SeekFrom::Start(*read_bytes)).context("failed to read a log")?;
            let mut more = Vec::new();
            file.read_to_end(&mut more).context("failed to read a log")?;
            let (kills, complete_bytes) = count_kills(&more);
            self.kills += kills;
            *read_bytes += complete_bytes as u64;
        }
        Ok(())
    }
}

/// The engines that were killed for want of progress according to these lines of a log, and the bytes of its complete lines.
fn count_kills(log: &[u8]) -> (usize, usize) {
    let complete = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines = log[..complete].split(|byte| *byte == b'\n');
    let is_kill = |line: &&[u8]| {
        let record: Option<serde_json::Value> = serde_json::from_slice(line).ok();
        record.is_some_and(|record| record["fields"]["message"] == HANG_MESSAGE)
    };
    (lines.filter(is_kill).count(), complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(message: &str) -> String {
        format!("{{\"level\":\"ERROR\",\"fields\":{{\"message\":\"{message}\",\"model\":\"bench\"}}}}\n")
    }

    #[test]
    fn only_engines_that_were_killed_for_want_of_progress_count() {
        let other = record("the engine exited unexpectedly");
        let log = [other.as_str(), &record(HANG_MESSAGE), "no JSON\n", &record(HANG_MESSAGE), &other].concat();
        assert_eq!(count_kills(log.as_bytes()), (2, log.len()));
        assert_eq!(count_kills(b""), (0, 0));
        // A line that is still being written counts when it is complete.
        let (line, cut) = (record(HANG_MESSAGE), 20);
        let partial = format!("{other}{}", &line[..cut]);
        assert_eq!(count_kills(partial.as_bytes()), (0, other.len()));
    }

    #[test]
    fn a_log_is_read_once_and_kept_when_its_daemon_removes_it() {
        let dir = std::env::temp_dir().join(format!("artel-calm-{}", std::process::id()));
        fs::create_dir_all(dir.join("logs")).unwrap();
        fs::create_dir(dir.join("daemon")).unwrap();
        fs::write(dir.join("daemon/log"), record(HANG_MESSAGE)).unwrap();
        let mut logs = DaemonLogs::new(&dir);
        logs.read().unwrap();
        logs.read().unwrap();
        assert_eq!((logs.kills, logs.seen.len()), (1, 1));
        let mut log = fs::File::options().append(true).open(dir.join("daemon/log")).unwrap();
        fs::remove_dir_all(dir.join("daemon")).unwrap();
        std::io::Write::write_all(&mut log, record(HANG_MESSAGE).as_bytes()).unwrap();
        logs.read().unwrap();
        assert_eq!(logs.kills, 2);
        fs::remove_dir_all(dir).unwrap();
    }

    /// The daemon's message is a literal of another crate.
    #[test]
    fn the_message_is_the_one_of_the_daemon() {
        let source = include_str!("../../agents/process/src/supervision.rs");
        assert!(source.contains(&format!("\"{HANG_MESSAGE}\"")), "the daemon logs another message");
    }
}
