//! Why a setup failed, and what to do about it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use crate::tool::ToolEnd;

/// Why the trainer's environment could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The environment is in use.
    #[error("set up the trainer in {}: another setup or a training run uses it; try again when that has ended", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// There is no interpreter that fits.
    #[error(
        "find Python 3.11, 3.12 or 3.13 ({}); install one (Debian and Ubuntu: `apt install python3 python3-venv`, Fedora: `dnf \
         install python3.13`, macOS: `brew install python@3.13`) and run `artel train setup` again, or name an interpreter that \
         has the trainer's packages as `trainer_python` in the daemon's settings",
        Tried(tried)
    )]
    NoPython {
        /// What was tried, each with what does not fit.
        tried: Vec<String>,
    },
    /// The existing interpreter does not fit.
    #[error("use {reason}")]
    Existing {
        /// Which one, what does not fit, and what to do.
        reason: String,
    },
    /// The interpreter cannot make virtual environments.
    #[error(
        "make a virtual environment with {}: it lacks the module `ensurepip`; install it (Debian and Ubuntu: `apt install \
         python3-venv`) and run `artel train setup` again",
        python.display()
    )]
    NoVenv {
        /// The interpreter.
        python: PathBuf,
    },
    /// The disk has too little space to begin.
    #[error(
        "set up the trainer in {}: it still needs {} and the disk has {} free; make room, or put the daemon's data on another \
         disk, and run `artel train setup` again",
        path.display(), Size(*needed_bytes), Size(*free_bytes)
    )]
    TooLittleSpace {
        /// The directory.
        path: PathBuf,
        /// What it still needs, with what is to stay free.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The disk became full.
    #[error(
        "set up the trainer in {}: the disk is full; make room and run `artel train setup` again, it goes on where this one ended",
        path.display()
    )]
    DiskFull {
        /// The directory.
        path: PathBuf,
    },
    /// The packages could not be fetched.
    #[error(
        "fetch the trainer's packages: {tail}; see that this machine reaches the registry of Python packages or your mirror of \
         it (HTTPS_PROXY, UV_DEFAULT_INDEX), and run `artel train setup` again, it goes on where this one ended"
    )]
    Registry {
        /// What the program said at last.
        tail: String,
    },
    /// A program failed for another reason.
    #[error(
        "{step} ({end}): {tail}; once that is mended, run `artel train setup` again, it goes on where this one ended"
    )]
    Failed {
        /// What was being done.
        step: &'static str,
        /// How the program ended.
        end: String,
        /// What it said at last.
        tail: String,
    },
    /// A program was killed.
    #[error(
        "{step}: it was killed by signal {signal}, by a user or by the kernel for lack of memory; run `artel train setup` again, \
         it goes on where this one ended"
    )]
    Killed {
        /// What was being done.
        step: &'static str,
        /// The signal's number.
        signal: i32,
    },
    /// A program did nothing for too long.
    #[error(
        "{step}: nothing was written to the disk or said for {} s; see that this machine reaches the registry of Python packages, \
         and run `artel train setup` again, it goes on where this one ended",
        after.as_secs()
    )]
    Stalled {
        /// What was being done.
        step: &'static str,
        /// For how long.
        after: Duration,
    },
    /// It was cancelled.
    #[error("set up the trainer: it was cancelled; `artel train setup` goes on where this one ended")]
    Cancelled,
    /// The system refused something.
    #[error("{what} {}: {source}; mend that and try again", path.display())]
    Io {
        /// What.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What pip and uv say when a registry cannot be reached, or sends what it should not.
const REGISTRY_WORDS: [&str; 12] = [
    "failed to fetch",
    "failed to download",
    "error sending request",
    "request failed",
    "connection",
    "dns error",
    "name resolution",
    "timed out",
    "no matching distribution",
    "hash mismatch",
    "status code",
    "certificate",
];
/// What they say when the disk or a quota is full: the texts of ENOSPC and EDQUOT.
const FULL_WORDS: [&str; 4] = ["no space left on device", "os error 28)", "quota exceeded", "os error 122)"];
/// Lines of a tail in an error's text.
const MAX_TOLD_LINES: usize = 8;

impl SetupError {
    /// Whether a training that is left as it is may begin later: always, since what a setup lacks is not in a run.
    pub fn is_passing(&self) -> bool {
        true
    }

    /// A failure of the file system.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { what, path, source },
        }
    }

    /// The failure of a program that ended otherwise than well.
    pub(crate) fn of_program(step: &'static str, dir: PathBuf, end: &ToolEnd) -> Self {
        let said = |words: &[&str]| {
            let has_word = |line: &String| words.iter().any(|word| line.to_lowercase().contains(word));
            end.tail.iter().any(has_word)
        };
        if said(&FULL_WORDS) {
            return Self::DiskFull { path: dir };
        }
        if let Some(signal) = end.status.signal() {
            return Self::Killed { step, signal };
        }
        let tail = told(&end.tail);
        if said(&REGISTRY_WORDS) {
            Self::Registry { tail }
        } else {
            Self::Failed { step, end: end.status.to_string(), tail }
        }
    }
}

/// The lines from the first that is called an error, or the last ones.
fn told(tail: &[String]) -> String {
    let is_error = |line: &String| line.to_lowercase().starts_with("error");
    let begin = tail.iter().position(is_error).unwrap_or(tail.len().saturating_sub(MAX_TOLD_LINES));
    let lines: Vec<&str> = tail[begin..].iter().map(|line| line.trim()).take(MAX_TOLD_LINES).collect();
    if lines.is_empty() { "it said nothing".to_owned() } else { lines.join(" | ") }
}

/// What was tried, in words.
struct Tried<'t>(&'t [String]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none is on the path") } else { f.write_str(&self.0.join("; ")) }
    }
}

/// Bytes in words, in powers of 1000 as disks are sold.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A tenth of a gigabyte is exact enough to make room by.
        let tenths = self.0.div_ceil(100_000_000);
        write!(f, "{}.{} GB", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;

    fn failure(raw: i32, lines: &[&str]) -> SetupError {
        let tail = lines.iter().map(|line| (*line).to_owned()).collect();
        SetupError::of_program(
            "install the packages",
            "/data/trainer".into(),
            &ToolEnd { status: ExitStatus::from_raw(raw), tail },
        )
    }

    #[test]
    fn the_end_of_a_program_tells_a_full_disk_from_a_lost_registry() {
        let lost = failure(
            2 << 8,
            &["Resolved 3 packages", "error: Request failed after 3 retries", "  cause: Failed to fetch: x"],
        );
        let text = lost.to_string();
        assert!(
            matches!(lost, SetupError::Registry { .. })
                && text.contains("error: Request failed after 3 retries | cause: "),
            "{text}"
        );
        assert!(!text.contains("Resolved") && text.contains("run `artel train setup` again"), "{text}");
        let full = failure(
            2 << 8,
            &[
                "error: Failed to fetch x",
                "  cause: failed to write to file",
                "  cause: No space left on device (os error 28)",
            ],
        );
        assert!(matches!(full, SetupError::DiskFull { .. }), "{full}");
        let killed = failure(9, &["Resolved 3 packages"]);
        assert!(matches!(killed, SetupError::Killed { signal: 9, .. }), "{killed}");
        let other = failure(2 << 8, &[]).to_string();
        assert!(other.contains("exit status: 2") && other.contains("it said nothing"), "{other}");
    }

    #[test]
    fn a_missing_python_is_told_with_what_to_install_and_what_to_set() {
        let text = SetupError::NoPython { tried: vec!["/bin/python3: it is Python 3.9.2".to_owned()] }.to_string();
        for part in ["(/bin/python3: it is Python 3.9.2)", "apt install python3", "`trainer_python`"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(SetupError::NoPython { tried: Vec::new() }.to_string().contains("(none is on the path)"));
    }

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!(
            [0, 1, 100_000_000, 6_120_000_000].map(|bytes| Size(bytes).to_string()),
            ["0.0 GB", "0.1 GB", "0.1 GB", "6.2 GB"]
        );
    }
}
