//! How a process died, in words.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// Kills for lack of memory so far, on this machine.
pub(crate) fn kills_for_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

/// What to say of a death: the signal and what it means, and the last words. `starved`: the kernel killed somebody for lack
/// of memory meanwhile.
pub(crate) fn explain(status: ExitStatus, last_words: &[String], starved: bool) -> String {
    let how = match (status.signal(), status.code()) {
        (Some(9), _) if starved => "the kernel killed its process for lack of memory (SIGKILL)".to_owned(),
        (Some(9), _) => "its process was killed (SIGKILL), by somebody or by the kernel for lack of memory".to_owned(),
        (Some(number), _) => {
            let name = Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.to_string());
            match name.as_str() {
                "SIGABRT" => "llama.cpp gave up (SIGABRT)".to_owned(),
                "SIGSEGV" | "SIGBUS" | "SIGILL" | "SIGFPE" => format!("its process crashed ({name})"),
                _ => format!("its process was ended by {name}"),
            }
        }
        // It said why.
        (None, Some(_)) if !last_words.is_empty() => return last_words.join(" | "),
        (None, Some(0)) => "its process ended".to_owned(),
        (None, code) => format!("its process ended with code {}", code.unwrap_or(-1)),
    };
    if last_words.is_empty() { how } else { format!("{how}; its last words: {}", last_words.join(" | ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_death_has_words() {
        let died = |raw| explain(ExitStatus::from_raw(raw), &[], false);
        assert_eq!(died(0), "its process ended");
        assert_eq!(died(3 << 8), "its process ended with code 3");
        assert_eq!(died(11), "its process crashed (SIGSEGV)");
        assert_eq!(died(15), "its process was ended by SIGTERM");
        assert!(died(9).contains("by somebody or by the kernel"));
        assert!(explain(ExitStatus::from_raw(9), &[], true).contains("for lack of memory (SIGKILL)"));
        let words = ["ggml.c:1: GGML_ASSERT(a) failed".to_owned()];
        assert_eq!(
            explain(ExitStatus::from_raw(6), &words, false),
            "llama.cpp gave up (SIGABRT); its last words: ggml.c:1: GGML_ASSERT(a) failed"
        );
    }
}
