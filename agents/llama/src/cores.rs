//! The CPU cores that this process may use.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

/// The number of cores that this process may use, at least one.
pub fn usable_cores() -> u32 {
    // The CPU quota of a container may be less than its cores.
    let allowed = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let cores = physical_cores().map_or(allowed, |cores| cores.len().clamp(1, allowed));
    u32::try_from(cores).unwrap_or(u32::MAX)
}

/// One logical processor of each core that this process may run on, by the system's numbers; `None` if the system does not
/// report them. Two logical processors of one core compute hardly more than one, and wait for each other.
pub fn physical_cores() -> Option<Vec<usize>> {
    let siblings =
        |cpu| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
    Some(first_of_each_core(allowed()?, |cpu| siblings(cpu).ok()))
}

/// The first logical processor of each core; `siblings` identifies the core of a logical processor.
fn first_of_each_core(allowed: Vec<usize>, siblings: impl Fn(usize) -> Option<String>) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let is_first = |cpu: &usize| siblings(*cpu).is_none_or(|siblings| seen.insert(siblings));
    allowed.into_iter().filter(is_first).collect()
}

/// The logical processors that the process may run on; its threads may be restricted further.
#[cfg(target_os = "linux")]
fn allowed() -> Option<Vec<usize>> {
    use nix::sched::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(nix::unistd::Pid::this()).ok()?;
    Some((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Option<Vec<usize>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_allowed_processor_of_each_core_is_taken() {
        let siblings = |cpu: usize| (cpu < 8).then(|| format!("{},{}", cpu % 4, cpu % 4 + 4));
        assert_eq!(first_of_each_core((0..8).collect(), siblings), [0, 1, 2, 3]);
        assert_eq!(first_of_each_core(vec![1, 5, 6, 7], siblings), [1, 6, 7]);
        assert_eq!(first_of_each_core(vec![8, 9], siblings), [8, 9], "their cores are unknown");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn at_least_one_core_is_found() {
        let (cores, allowed) = (physical_cores().unwrap(), allowed().unwrap());
        assert!(!cores.is_empty() && cores.iter().all(|cpu| allowed.contains(cpu)), "{cores:?} of {allowed:?}");
    }
}
