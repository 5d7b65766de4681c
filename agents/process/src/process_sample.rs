//! What the kernel tells about a process: whether it does anything at all. Read from `/proc`, where there is one.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// The unit of CPU times in `/proc`: `USER_HZ`, which is 100 on every architecture that engines run on.
const TICK_DURATION: Duration = Duration::from_millis(10);

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ProcessSample {
    /// CPU time of all its threads since its start.
    pub(crate) cpu_time: Duration,
    /// Page faults since its start that had to wait for a disk: a process that is swapped in computes nothing else.
    pub(crate) major_faults: u64,
    /// Whether a signal or a debugger has stopped it.
    pub(crate) is_stopped: bool,
    /// Whether its main thread, which answers calls, can run or waits for a disk.
    pub(crate) is_main_thread_active: bool,
    /// The same of any other thread.
    pub(crate) is_worker_active: bool,
}

impl ProcessSample {
    /// Samples a process; `None` if it has exited, or on a system without `/proc`.
    pub(crate) fn read(process_id: u32) -> Option<Self> {
        let dir = Path::new("/proc").join(process_id.to_string());
        let process = ThreadStat::parse(&fs::read_to_string(dir.join("stat")).ok()?)?;
        let threads = fs::read_dir(dir.join("task")).ok()?.flatten();
        let main = process_id.to_string();
        let workers = threads.filter(|thread| thread.file_name() != *main);
        // A thread may end meanwhile.
        let stat = |thread: fs::DirEntry| ThreadStat::parse(&fs::read_to_string(thread.path().join("stat")).ok()?);
        let is_worker_active = workers.filter_map(stat).any(|thread| thread.is_active());
        Some(Self {
            cpu_time: TICK_DURATION.saturating_mul(u32::try_from(process.cpu_ticks).unwrap_or(u32::MAX)),
            major_faults: process.major_faults,
            is_stopped: matches!(process.state, 'T' | 't'),
            is_main_thread_active: process.is_active(),
            is_worker_active,
        })
    }

    /// Whether a process is stopped now.
    pub(crate) fn is_stopped(process_id: u32) -> bool {
        Self::read(process_id).is_some_and(|sample| sample.is_stopped)
    }
}

/// A line of `stat`, of a process or of one of its threads.
#[derive(Debug, PartialEq, Eq)]
struct ThreadStat {
    state: char,
    major_faults: u64,
    cpu_ticks: u64,
}

impl ThreadStat {
    fn parse(line: &str) -> Option<Self> {
        // The name of the program, in parentheses, may contain spaces and parentheses.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // Numbered from 1 in proc(5), where the state is the third.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let cpu_ticks = number(14)?.saturating_add(number(15)?);
        Some(Self { state: fields.first()?.chars().next()?, major_faults: number(12)?, cpu_ticks })
    }

    /// Whether it can run, or waits for a disk.
    fn is_active(&self) -> bool {
        matches!(self.state, 'R' | 'D')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let line = "42 (a (very) odd) name) S 1 42 42 0 -1 4194560 90 80 7 6 250 50 3 2 20 0 9 0 100 1000 200 300";
        let stat = ThreadStat::parse(line).unwrap();
        assert_eq!(stat, ThreadStat { state: 'S', major_faults: 7, cpu_ticks: 300 });
        for broken in ["", "42 (x", "42 (x) S 1 2", "42 (x) S 1 42 42 0 -1 0 90 80 a 6 b 50"] {
            assert_eq!(ThreadStat::parse(broken), None, "{broken}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_is_stopped_is_told_from_one_that_sleeps() {
        use nix::sys::signal::{Signal, kill};
        use nix::sys::wait::{WaitPidFlag, waitpid};
        use nix::unistd::Pid;

        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let id = Pid::from_raw(child.id().cast_signed());
        assert!(!ProcessSample::is_stopped(child.id()));
        kill(id, Signal::SIGSTOP).unwrap();
        waitpid(id, Some(WaitPidFlag::WUNTRACED)).unwrap();
        let sample = ProcessSample::read(child.id()).unwrap();
        assert!(sample.is_stopped && !sample.is_worker_active, "{sample:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ProcessSample::read(child.id()), None);
    }
}
