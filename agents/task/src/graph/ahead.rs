//! Where a task may go from a visit, and how soon.

use std::collections::{BTreeSet, VecDeque};

use super::{Graph, Work};
use crate::id::{NodeName, Place, Visit};

impl Graph {
    /// The visits to which ways lead from this one, sub-graphs entered and left, with the fewest steps to each, the nearest
    /// first; none further than `most` steps, and nothing beyond a person, who may take days. Each node of a graph stands
    /// there once, with the number of the visit itself, since how often it was visited then cannot be known.
    pub fn ahead(&self, visit: &Visit, most: u32) -> Vec<(u32, Visit)> {
        let mut seen = BTreeSet::new();
        let mut waiting = VecDeque::new();
        let mut found = Vec::new();
        let mut reach = |steps: u32, visits: Vec<Visit>, waiting: &mut VecDeque<(u32, Visit)>| {
            for visit in visits {
                if seen.insert(path(&visit)) {
                    waiting.push_back((steps, visit));
                }
            }
        };
        if self.works_at(visit) && most > 0 {
            reach(1, self.after(visit), &mut waiting);
        }
        while let Some((steps, visit)) = waiting.pop_front() {
            if steps < most && self.works_at(&visit) {
                reach(steps + 1, self.after(&visit), &mut waiting);
            }
            found.push((steps, visit));
        }
        found
    }

    /// Whether a machine works there rather than a person.
    fn works_at(&self, visit: &Visit) -> bool {
        self.node_of(visit).is_some_and(|node| !matches!(node.work, Work::Ask(_)))
    }

    /// Where the edges of a visit lead: over the end of a sub-graph to where that leads, into sub-graphs to where they start.
    fn after(&self, visit: &Visit) -> Vec<Visit> {
        let edges = self.node_of(visit).map_or(&[][..], |node| &node.next);
        let mut targets: Vec<Visit> =
            edges.iter().filter_map(|edge| edge.to.as_ref()).map(|to| at(visit, to)).collect();
        if edges.iter().any(|edge| edge.to.is_none())
            && let Some((around, within)) = visit.within.split_last()
        {
            targets.extend(self.after(&Visit::new(within, around.clone())));
        }
        targets.into_iter().map(|target| self.enter(target)).collect()
    }

    fn enter(&self, mut visit: Visit) -> Visit {
        while let Some(Work::Graph { graph, .. }) = self.node_of(&visit).map(|node| &node.work) {
            let place = Place { node: visit.node, number: visit.number, item: visit.item };
            visit.within.push(place);
            visit.node = graph.start().clone();
        }
        visit
    }
}

fn at(visit: &Visit, node: &NodeName) -> Visit {
    Visit { node: node.clone(), item: None, ..visit.clone() }
}

fn path(visit: &Visit) -> Vec<NodeName> {
    visit.within.iter().map(|place| &place.node).chain([&visit.node]).cloned().collect()
}
