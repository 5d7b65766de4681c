//! Failpoints: the process kills itself at a chosen commit, so that tests can check the recovery after it. For tests only.

use std::str::FromStr;

use nix::sys::signal::{Signal, raise};

/// The commit at which the process kills itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failpoint {
    /// Before or after the commit.
    pub side: CommitSide,
    /// Which commit since the journal was opened, from 1.
    pub commit: u64,
}

/// A side of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitSide {
    /// All rows are written, none is committed.
    Before,
    /// The commit is on disk, and no caller has its answer yet.
    After,
}

impl FromStr for Failpoint {
    type Err = String;

    /// Parses `before:3` or `after:3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(side, commit)| {
            let side = match side {
                "before" => CommitSide::Before,
                "after" => CommitSide::After,
                _ => return None,
            };
            Some(Self { side, commit: commit.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("`{text}` is neither before:N nor after:N"))
    }
}

impl Failpoint {
    /// Kills the process if this is the chosen commit.
    pub(crate) fn kill_at(self, side: CommitSide, commit: u64) {
        if (side, commit) == (self.side, self.commit) {
            // SIGKILL runs no destructor and flushes no buffer, like the crash that is tested.
            raise(Signal::SIGKILL).expect("a process may kill itself");
        }
    }
}
