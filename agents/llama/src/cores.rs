//! The cores of the processor that we may use.

use std::collections::BTreeSet;

/// One logical processor of each core that this process may run on, by the system's numbers. None where the system does not
/// tell. Two logical processors of one core compute hardly more than one, and wait for each other.
pub fn cores() -> Option<Vec<usize>> {
    let siblings =
        |cpu| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
    Some(one_of_each(allowed()?, |cpu| siblings(cpu).ok()))
}

/// The first of each core; `siblings` are all processors of the one's core, in any form.
fn one_of_each(allowed: Vec<usize>, siblings: impl Fn(usize) -> Option<String>) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let is_first = |cpu: &usize| siblings(*cpu).is_none_or(|siblings| seen.insert(siblings));
    allowed.into_iter().filter(is_first).collect()
}

/// What the process may run on, whatever its threads may.
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
    fn of_two_processors_on_a_core_the_first_allowed_one_counts() {
        let siblings = |cpu: usize| (cpu < 8).then(|| format!("{},{}", cpu % 4, cpu % 4 + 4));
        assert_eq!(one_of_each((0..8).collect(), siblings), [0, 1, 2, 3]);
        assert_eq!(one_of_each(vec![1, 5, 6, 7], siblings), [1, 6, 7]);
        assert_eq!(one_of_each(vec![8, 9], siblings), [8, 9], "nothing is known of them");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn there_are_cores() {
        let (cores, allowed) = (cores().unwrap(), allowed().unwrap());
        assert!(!cores.is_empty() && cores.iter().all(|cpu| allowed.contains(cpu)), "{cores:?} of {allowed:?}");
    }
}
