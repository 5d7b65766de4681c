//! The reason of a process's exit, for error messages.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// Kills for lack of memory on this machine since boot.
pub(crate) fn oom_kill_count() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

/// Describes an exit: the signal, its meaning, and the last lines of standard error. `had_oom_kill`: the kernel killed some
/// process for lack of memory in the same interval.
pub(crate) fn describe(status: ExitStatus, last_lines: &[String], had_oom_kill: bool) -> String {
    let cause = match (status.signal(), status.code()) {
        (Some(9), _) if had_oom_kill => "the kernel killed its process for lack of memory (SIGKILL)".to_owned(),
        (Some(9), _) => "its process was killed (SIGKILL), by a user or by the kernel for lack of memory".to_owned(),
        (Some(number), _) => {
            let name = Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.to_string());
            match name.as_str() {
                "SIGABRT" => "llama.cpp aborted (SIGABRT)".to_owned(),
                "SIGSEGV" | "SIGBUS" | "SIGILL" | "SIGFPE" => format!("its process crashed ({name})"),
                _ => format!("its process was terminated by {name}"),
            }
        }
        // The process printed the reason itself.
        (None, Some(_)) if !last_lines.is_empty() => return last_lines.join(" | "),
        (None, Some(0)) => "its process exited".to_owned(),
        (None, code) => format!("its process exited with code {}", code.unwrap_or(-1)),
    };
    if last_lines.is_empty() { cause } else { format!("{cause}; last output: {}", last_lines.join(" | ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_a_description() {
        let exited = |raw| describe(ExitStatus::from_raw(raw), &[], false);
        assert_eq!(exited(0), "its process exited");
        assert_eq!(exited(3 << 8), "its process exited with code 3");
        assert_eq!(exited(11), "its process crashed (SIGSEGV)");
        assert_eq!(exited(15), "its process was terminated by SIGTERM");
        assert!(exited(9).contains("by a user or by the kernel"));
        assert!(describe(ExitStatus::from_raw(9), &[], true).contains("for lack of memory (SIGKILL)"));
        let lines = ["ggml.c:1: GGML_ASSERT(a) failed".to_owned()];
        assert_eq!(
            describe(ExitStatus::from_raw(6), &lines, false),
            "llama.cpp aborted (SIGABRT); last output: ggml.c:1: GGML_ASSERT(a) failed"
        );
    }
}
