//! Death at a commit: what a daemon that is killed there leaves is what the next one must live with. For tests alone.

use std::str::FromStr;

use nix::sys::signal::{Signal, raise};

/// When the process kills itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    /// Before or after.
    pub moment: Moment,
    /// Which commit since the journal was opened, from 1.
    pub commit: u64,
}

/// A side of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Everything is written, nothing is committed.
    Before,
    /// It is on disk, and nobody has heard of it.
    After,
}

impl FromStr for Death {
    type Err = String;

    /// Reads `before:3` or `after:3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(moment, commit)| {
            let moment = match moment {
                "before" => Moment::Before,
                "after" => Moment::After,
                _ => return None,
            };
            Some(Self { moment, commit: commit.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("`{text}` is neither before:N nor after:N"))
    }
}

impl Death {
    /// Does not return if this is the moment.
    pub(crate) fn come(self, moment: Moment, commit: u64) {
        if (moment, commit) == (self.moment, self.commit) {
            // No destructor, no buffer, no lock is tidied up: that is what is rehearsed.
            raise(Signal::SIGKILL).expect("a process may kill itself");
        }
    }
}
