//! Distances in a graph: the visits that may follow one, and the steps from each node to the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::parts::{Graph, Node, NodeKind};
use crate::id::{NodeName, PathSegment, Visit};

impl Graph {
    /// The visits that can follow this one, into and out of sub-graphs, with the fewest steps to each, the nearest first. It
    /// includes none further than `max_steps` steps and none beyond a question to a human, whose answer may take days. Each
    /// node occurs once, with the number of this visit, since the number that it will have is unknown.
    pub fn lookahead(&self, visit: &Visit, max_steps: u32) -> Vec<(u32, Visit)> {
        let mut seen = BTreeSet::new();
        let mut pending = VecDeque::new();
        let mut found = Vec::new();
        let mut reach = |steps: u32, visits: Vec<Visit>, pending: &mut VecDeque<(u32, Visit)>| {
            for visit in visits {
                if seen.insert(node_path(&visit)) {
                    pending.push_back((steps, visit));
                }
            }
        };
        if self.is_automatic(visit) && max_steps > 0 {
            reach(1, self.successors(visit), &mut pending);
        }
        while let Some((steps, visit)) = pending.pop_front() {
            if steps < max_steps && self.is_automatic(&visit) {
                reach(steps + 1, self.successors(&visit), &mut pending);
            }
            found.push((steps, visit));
        }
        found
    }

    /// Whether the node exists and runs without a human.
    fn is_automatic(&self, visit: &Visit) -> bool {
        self.node_at(visit).is_some_and(|node| !matches!(node.kind, NodeKind::Ask(_)))
    }

    /// The targets of a visit's edges: past the end of a sub-graph, the targets of the sub-graph's node; for a sub-graph, its
    /// start.
    fn successors(&self, visit: &Visit) -> Vec<Visit> {
        let edges = self.node_at(visit).map_or(&[][..], |node| &node.next);
        let mut targets: Vec<Visit> =
            edges.iter().filter_map(|edge| edge.to.as_ref()).map(|to| sibling(visit, to)).collect();
        if edges.iter().any(|edge| edge.to.is_none())
            && let Some((parent, parents)) = visit.parents.split_last()
        {
            targets.extend(self.successors(&Visit::new(parents, parent.clone())));
        }
        targets.into_iter().map(|target| self.enter(target)).collect()
    }

    fn enter(&self, mut visit: Visit) -> Visit {
        while let Some(NodeKind::Graph { graph, .. }) = self.node_at(&visit).map(|node| &node.kind) {
            let segment = PathSegment { node: visit.node, number: visit.number, item: visit.item };
            visit.parents.push(segment);
            visit.node = graph.start().clone();
        }
        visit
    }
}

fn sibling(visit: &Visit, node: &NodeName) -> Visit {
    Visit { node: node.clone(), item: None, ..visit.clone() }
}

fn node_path(visit: &Visit) -> Vec<NodeName> {
    visit.parents.iter().map(|segment| &segment.node).chain([&visit.node]).cloned().collect()
}

/// Per node, the fewest steps that follow it until the graph may be done.
pub(super) fn steps_to_done(nodes: &BTreeMap<NodeName, Node>) -> BTreeMap<NodeName, u32> {
    let mut predecessors: BTreeMap<&NodeName, Vec<&NodeName>> = BTreeMap::new();
    let mut distances: BTreeMap<NodeName, u32> = BTreeMap::new();
    let mut reached = VecDeque::new();
    for (name, node) in nodes {
        if node.edges().any(|edge| edge.to.is_none()) {
            distances.insert(name.clone(), 0);
            reached.push_back((name, 0));
        }
        for to in node.edges().filter_map(|edge| edge.to.as_ref()) {
            predecessors.entry(to).or_default().push(name);
        }
    }
    while let Some((name, steps)) = reached.pop_front() {
        for earlier in predecessors.get(name).into_iter().flatten() {
            if !distances.contains_key(*earlier) {
                distances.insert((*earlier).clone(), steps + 1);
                reached.push_back((earlier, steps + 1));
            }
        }
    }
    distances
}
