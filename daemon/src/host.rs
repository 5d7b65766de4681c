//! What this process can know of itself and its machine: memory, its own program.

use std::path::PathBuf;

/// Total and free memory for this process in bytes: of the machine, or of its control group if that is less.
pub(crate) fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let (total, free) = parse_meminfo(&text)?;
    let group = |file: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse().ok()
    };
    Some(match (group("memory.max"), group("memory.current")) {
        (Some(limit), Some(used)) => (total.min(limit), free.min(limit.saturating_sub(used))),
        _ => (total, free),
    })
}

/// Resident bytes of a process that are not backed by a file.
pub(crate) fn resident_bytes(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The path of the running program, even if its file was replaced.
///
/// # Errors
/// The system does not tell it.
pub(crate) fn own_program() -> std::io::Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() { Ok(running) } else { std::env::current_exe() }
}

fn parse_meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_parsed() {
        let text = "MemTotal:       24572844 kB\nMemFree:         1000 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(parse_meminfo(text), Some((24_572_844 * 1024, 20_000_000 * 1024)));
        assert_eq!(parse_meminfo("MemTotal: much"), None);
        assert!(memory().unwrap().0 > 0);
    }
}
