//! How a run of the trainer ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use crate::trainer_event::{TrainerEvent, TrainerFailure};

/// Lines of standard error in a text about an end.
const MAX_TOLD_LINES: usize = 4;

/// How the trainer's process ended.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainerOutcome {
    /// The adapter is written.
    Finished {
        /// The last step.
        step: u64,
        /// Samples a second over all steps.
        samples_per_second: f64,
        /// The most memory that was used at once.
        peak_bytes: u64,
    },
    /// It stopped as asked; another goes on from its checkpoint.
    Paused {
        /// The step of the checkpoint.
        step: u64,
    },
    /// It said why the run cannot go on.
    Failed(TrainerFailure),
    /// A signal ended it; another goes on from its last checkpoint.
    Killed {
        /// The signal's number.
        signal: i32,
        /// The last lines of its standard error.
        stderr: Vec<String>,
    },
    /// It ended and did not say why.
    Ended {
        /// Its exit code; none if the system does not tell.
        code: Option<i32>,
        /// The last lines of its standard error.
        stderr: Vec<String>,
    },
}

impl TrainerOutcome {
    /// The outcome of a process, by the last of the events that end a run which it wrote, else by its status. The event holds
    /// whatever the status: what it tells of is whole on the disk, and libraries of GPUs may crash while a process ends.
    pub(crate) fn new(status: Option<ExitStatus>, last: Option<TrainerEvent>, stderr: Vec<String>) -> Self {
        match (last, status.and_then(|status| status.signal())) {
            (Some(TrainerEvent::Finished { step, samples_per_second, peak_bytes }), _) => {
                Self::Finished { step, samples_per_second, peak_bytes }
            }
            (Some(TrainerEvent::Paused { step }), _) => Self::Paused { step },
            (Some(TrainerEvent::Failed(failure)), _) => Self::Failed(failure),
            (_, Some(signal)) => Self::Killed { signal, stderr },
            (_, None) => Self::Ended { code: status.and_then(|status| status.code()), stderr },
        }
    }
}

impl fmt::Display for TrainerOutcome {
    /// A clause about the trainer: "it …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (end, stderr) = match self {
            Self::Finished { step, .. } => return write!(f, "it finished after step {step}"),
            Self::Paused { step } => return write!(f, "it paused after step {step}"),
            Self::Failed(failure) => return f.write_str(&failure.message),
            Self::Killed { signal: 9, stderr } => {
                ("it was killed (SIGKILL), by a user or by the kernel for lack of memory".to_owned(), stderr)
            }
            Self::Killed { signal, stderr } => {
                let name = Signal::try_from(*signal).map_or_else(|_| format!("signal {signal}"), |s| s.to_string());
                (format!("it was ended by {name}"), stderr)
            }
            Self::Ended { code: Some(code), stderr } => {
                (format!("it exited with code {code} without a reason"), stderr)
            }
            Self::Ended { code: None, stderr } => ("its process is gone".to_owned(), stderr),
        };
        let told = &stderr[stderr.len().saturating_sub(MAX_TOLD_LINES)..];
        if told.is_empty() { f.write_str(&end) } else { write!(f, "{end}; last output: {}", told.join(" | ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer_event::FailureKind;

    #[test]
    fn the_outcome_is_what_the_process_said_or_else_how_it_ended() {
        let finished = TrainerEvent::Finished { step: 8, samples_per_second: 0.5, peak_bytes: 7 };
        let paused = TrainerEvent::Paused { step: 3 };
        let failure = TrainerFailure { kind: FailureKind::Memory, message: "no memory".to_owned(), origin: None };
        let of = |raw: i32, event: Option<TrainerEvent>| {
            TrainerOutcome::new(Some(ExitStatus::from_raw(raw)), event, vec!["x".to_owned()]).to_string()
        };
        assert_eq!(of(0, Some(finished.clone())), "it finished after step 8");
        assert_eq!(of(6, Some(finished)), "it finished after step 8");
        assert_eq!(of(4 << 8, Some(paused)), "it paused after step 3");
        assert_eq!(of(3 << 8, Some(TrainerEvent::Failed(failure))), "no memory");
        assert_eq!(of(0, None), "it exited with code 0 without a reason; last output: x");
        assert_eq!(of(1 << 8, None), "it exited with code 1 without a reason; last output: x");
        assert_eq!(of(11, None), "it was ended by SIGSEGV; last output: x");
        assert!(of(9, None).starts_with("it was killed (SIGKILL), by a user or"));
        assert_eq!(TrainerOutcome::new(None, None, Vec::new()).to_string(), "its process is gone");
    }
}
