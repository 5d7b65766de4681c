//! Faults at chosen commits.

use std::str::FromStr;
use std::thread;

use artel_journal::{CommitHook, InjectedFault};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A fault, and the commit at which it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failpoint {
    side: CommitSide,
    /// Which commit since the journal was opened, from 1.
    commit: u64,
    fault: CommitFault,
}

/// A side of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitSide {
    /// All rows are written, none is committed.
    Before,
    /// The commit is on disk, and no caller has its answer yet.
    After,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitFault {
    /// The process dies of SIGKILL.
    Kill,
    /// The commit never ends, as on a disk whose sync hangs.
    Hang,
    /// The disk is full.
    Full,
    /// The disk does not write, or does not confirm what it wrote.
    Io,
    /// The journal's writer panics.
    Panic,
}

/// Why a failpoint is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{0}` is neither before:N nor after:N")]
    Point(String),
    #[error("`{0}` is not a fault: it is `kill`, `hang`, `full`, `ioerr` or `panic`")]
    Fault(String),
}

impl FromStr for Failpoint {
    type Err = Error;

    /// Parses `before:3=hang`; without a fault it is `kill`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (point, fault) = text.split_once('=').unwrap_or((text, "kill"));
        let fault = match fault {
            "kill" => CommitFault::Kill,
            "hang" => CommitFault::Hang,
            "full" => CommitFault::Full,
            "ioerr" => CommitFault::Io,
            "panic" => CommitFault::Panic,
            other => return Err(Error::Fault(other.to_owned())),
        };
        let parsed = point.split_once(':').and_then(|(side, commit)| {
            let side = match side {
                "before" => CommitSide::Before,
                "after" => CommitSide::After,
                _ => return None,
            };
            Some(Self { side, commit: commit.parse().ok()?, fault })
        });
        parsed.ok_or_else(|| Error::Point(point.to_owned()))
    }
}

impl Failpoint {
    /// Happens; returns if the journal has an error of SQLite to take from it.
    fn strike(self) -> InjectedFault {
        match self.fault {
            CommitFault::Kill => die(),
            CommitFault::Hang => hang(),
            CommitFault::Full => InjectedFault::DISK_FULL,
            CommitFault::Io if self.side == CommitSide::Before => InjectedFault::WRITE_FAILED,
            CommitFault::Io => InjectedFault::SYNC_FAILED,
            CommitFault::Panic => panic!("a panic was ordered at commit {}", self.commit),
        }
    }
}

/// Ends the process. SIGKILL runs no destructor and flushes no buffer, like the crash that is tested.
pub(crate) fn die() -> ! {
    kill(Pid::this(), Signal::SIGKILL).expect("a process may kill itself");
    hang()
}

fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// The failpoints of a journal.
#[derive(Debug, Default)]
pub(crate) struct Failpoints(Vec<Failpoint>);

impl Failpoints {
    pub(crate) fn add(&mut self, failpoint: Failpoint) {
        self.0.push(failpoint);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn reach(&self, side: CommitSide, commit: u64) -> Result<(), InjectedFault> {
        let reached = self.0.iter().find(|failpoint| (failpoint.side, failpoint.commit) == (side, commit));
        reached.map_or(Ok(()), |failpoint| Err(failpoint.strike()))
    }
}

impl CommitHook for Failpoints {
    fn before(&self, commit: u64) -> Result<(), InjectedFault> {
        self.reach(CommitSide::Before, commit)
    }

    fn after(&self, commit: u64) -> Result<(), InjectedFault> {
        self.reach(CommitSide::After, commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failpoint(text: &str) -> Failpoint {
        text.parse().unwrap()
    }

    #[test]
    fn a_failpoint_is_a_side_a_commit_and_a_fault() {
        let expected = Failpoint { side: CommitSide::After, commit: 12, fault: CommitFault::Hang };
        assert_eq!(failpoint("after:12=hang"), expected);
        assert_eq!(failpoint("before:3"), failpoint("before:3=kill"));
    }

    #[test]
    fn an_error_names_what_is_wrong() {
        let error = |text: &str| text.parse::<Failpoint>().unwrap_err();
        for text in ["", "before", "before:x", "during:3"] {
            assert_eq!(error(text), Error::Point(text.to_owned()));
        }
        assert_eq!(error("before:3=flood"), Error::Fault("flood".to_owned()));
    }

    #[test]
    fn a_fault_happens_once_on_its_side_of_its_commit() {
        let mut failpoints = Failpoints::default();
        failpoints.add(failpoint("before:2=full"));
        failpoints.add(failpoint("before:3=ioerr"));
        failpoints.add(failpoint("after:3=ioerr"));
        let before: Vec<_> = (1..=4).map(|commit| failpoints.before(commit)).collect();
        let (full, write) = (InjectedFault::DISK_FULL, InjectedFault::WRITE_FAILED);
        assert_eq!(before, [Ok(()), Err(full), Err(write), Ok(())]);
        let after: Vec<_> = (1..=4).map(|commit| failpoints.after(commit)).collect();
        assert_eq!(after, [Ok(()), Ok(()), Err(InjectedFault::SYNC_FAILED), Ok(())]);
    }

    #[test]
    #[should_panic(expected = "a panic was ordered at commit 1")]
    fn a_panic_is_one_of_the_writer() {
        let mut failpoints = Failpoints::default();
        failpoints.add(failpoint("before:1=panic"));
        let _ = failpoints.before(1);
    }
}
