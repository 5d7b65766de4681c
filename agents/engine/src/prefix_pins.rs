//! Flows whose prefixes will be needed soon.
//!
//! The pins are shared rather than sent as commands: a sleeping engine need not be woken for a request that may never come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The pinned flows and their counts of pins. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PrefixPins(Arc<Mutex<HashMap<Arc<str>, u32>>>);

impl PrefixPins {
    /// Pins these flows until the result is dropped.
    pub(crate) fn pin(&self, flows: Vec<Arc<str>>) -> PinnedFlows {
        let mut counts = self.counts();
        for flow in &flows {
            *counts.entry(flow.clone()).or_default() += 1;
        }
        drop(counts);
        PinnedFlows { flows, pins: self.clone() }
    }

    /// Whether a flow is pinned.
    pub(crate) fn contains(&self, flow: &Arc<str>) -> bool {
        self.counts().contains_key(flow)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        self.0.lock().expect("nothing panics while it holds the counts")
    }
}

/// Flows that are pinned; dropping it unpins them.
#[derive(Debug)]
pub(crate) struct PinnedFlows {
    flows: Vec<Arc<str>>,
    pins: PrefixPins,
}

impl Drop for PinnedFlows {
    fn drop(&mut self) {
        let mut counts = self.pins.counts();
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
    fn a_flow_is_pinned_until_its_last_pin_is_dropped() {
        let (pins, flow) = (PrefixPins::default(), Arc::<str>::from("a"));
        let one = pins.pin(vec![flow.clone(), flow.clone()]);
        let two = pins.pin(vec![flow.clone()]);
        drop(one);
        assert!(pins.contains(&flow) && !pins.contains(&"b".into()));
        drop(two);
        assert!(!pins.contains(&flow));
    }
}
