//! How commands end.

use std::process::ExitCode;

/// How a command ended; determines the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutcome {
    /// Success.
    Done,
    /// The task or check failed.
    Failed,
    /// Invalid usage.
    Usage,
    /// The daemon cannot be reached.
    NoDaemon,
}

impl From<CommandOutcome> for ExitCode {
    fn from(outcome: CommandOutcome) -> Self {
        match outcome {
            CommandOutcome::Done => 0.into(),
            CommandOutcome::Failed => 1.into(),
            CommandOutcome::Usage => 2.into(),
            CommandOutcome::NoDaemon => 3.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_those_of_the_help() {
        let code = |outcome: CommandOutcome| format!("{:?}", ExitCode::from(outcome));
        let all = [CommandOutcome::Done, CommandOutcome::Failed, CommandOutcome::Usage, CommandOutcome::NoDaemon];
        assert_eq!(all.map(code), [0, 1, 2, 3].map(|code: u8| format!("{:?}", ExitCode::from(code))));
    }
}
