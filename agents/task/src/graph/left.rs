//! How far each node of a graph is from the end.

use std::collections::{BTreeMap, VecDeque};

use super::node::Node;
use crate::id::NodeName;

/// Per node, the fewest steps that follow it until the graph may be done.
pub(super) fn of(nodes: &BTreeMap<NodeName, Node>) -> BTreeMap<NodeName, u32> {
    let mut before: BTreeMap<&NodeName, Vec<&NodeName>> = BTreeMap::new();
    let mut found: BTreeMap<NodeName, u32> = BTreeMap::new();
    let mut reached = VecDeque::new();
    for (name, node) in nodes {
        if node.edges().any(|edge| edge.to.is_none()) {
            found.insert(name.clone(), 0);
            reached.push_back((name, 0));
        }
        for to in node.edges().filter_map(|edge| edge.to.as_ref()) {
            before.entry(to).or_default().push(name);
        }
    }
    while let Some((name, steps)) = reached.pop_front() {
        for earlier in before.get(name).into_iter().flatten() {
            if !found.contains_key(*earlier) {
                found.insert((*earlier).clone(), steps + 1);
                reached.push_back((earlier, steps + 1));
            }
        }
    }
    found
}
