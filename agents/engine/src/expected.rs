//! Flows that will soon need the beginnings of their prompts.
//!
//! It is shared rather than told: an engine that sleeps need not be woken for what it may never ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Who is expected, and by how many. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected(Arc<Mutex<HashMap<Arc<str>, u32>>>);

impl Expected {
    /// Expects these flows until the result is dropped.
    pub(crate) fn expect(&self, flows: Vec<Arc<str>>) -> Expecting {
        let mut counts = self.counts();
        for flow in &flows {
            *counts.entry(flow.clone()).or_default() += 1;
        }
        drop(counts);
        Expecting { flows, expected: self.clone() }
    }

    /// Whether somebody expects a flow.
    pub(crate) fn has(&self, flow: &Arc<str>) -> bool {
        self.counts().contains_key(flow)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        self.0.lock().expect("nothing panics while it holds the counts")
    }
}

/// Some that are expected; dropping it says that they no longer are.
#[derive(Debug)]
pub(crate) struct Expecting {
    flows: Vec<Arc<str>>,
    expected: Expected,
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut counts = self.expected.counts();
        for flow in &self.flows {
            match counts.get_mut(flow) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(counts.remove(flow)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_expected_until_the_last_one_who_does_is_gone() {
        let (expected, flow) = (Expected::default(), Arc::<str>::from("a"));
        let one = expected.expect(vec![flow.clone(), flow.clone()]);
        let two = expected.expect(vec![flow.clone()]);
        drop(one);
        assert!(expected.has(&flow) && !expected.has(&"b".into()));
        drop(two);
        assert!(!expected.has(&flow));
    }
}
