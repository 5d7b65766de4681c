//! What can be wrong with a graph, and how it is found.

use std::collections::{BTreeMap, BTreeSet};

use super::{Join, Node, Parts, Work};
use crate::id::MAX_DEPTH;
use crate::id::{NodeName, ValueName};

/// What is wrong with a graph; each fault names the node to look at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `start` names no node.
    #[error("start names no node: `{0}`")]
    Start(NodeName),
    /// `result` names no node.
    #[error("result names no node: `{0}`")]
    Result(NodeName),
    /// An edge leads nowhere.
    #[error("node `{node}` leads to `{to}`, which does not exist")]
    Target {
        /// The node with the edge.
        node: NodeName,
        /// The edge's place in `next`; the one behind the last is `on_failure`.
        edge: usize,
        /// The name that is missing.
        to: NodeName,
    },
    /// A node has no way on.
    #[error("node `{0}` has no `next`; add `next: done` if the branch ends here")]
    NoNext(NodeName),
    /// A node cannot be reached.
    #[error("node `{0}` cannot be reached from the start")]
    Unreachable(NodeName),
    /// A node cannot reach the end.
    #[error("from node `{0}` there is no way to `done`")]
    NoEnd(NodeName),
    /// A cycle could run for ever.
    #[error("the cycle {} has no `at_most` on any of its edges", .0.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" -> "))]
    Unbounded(Vec<NodeName>),
    /// `{from: X}` where X is no router.
    #[error("node `{node}` takes its role from `{from}`, which is no router node")]
    NotARouter {
        /// The node.
        node: NodeName,
        /// The name it gives.
        from: NodeName,
    },
    /// `{from: X, rank: n}` where X chooses fewer roles.
    #[error("node `{node}` takes role number {rank} of `{from}`, which chooses {best}")]
    Rank {
        /// The node.
        node: NodeName,
        /// The router.
        from: NodeName,
        /// The place that it asks for.
        rank: u32,
        /// How many roles the router chooses.
        best: u32,
    },
    /// A node may run before the router that it takes its role from.
    #[error("node `{node}` can be reached before router `{from}` has decided")]
    BeforeRouter {
        /// The node.
        node: NodeName,
        /// The router.
        from: NodeName,
    },
    /// Several ways in, and nothing says how they meet.
    #[error("node `{node}` has {sources} incoming edges: say `join: all`, `join: any` or `join: {{quorum: n}}`")]
    JoinMissing {
        /// The node.
        node: NodeName,
        /// How many nodes lead here.
        sources: usize,
    },
    /// A node writes a value that its graph does not have.
    #[error("node `{node}` writes `{value}`, which `reduce` does not name")]
    Value {
        /// The node.
        node: NodeName,
        /// The name it gives.
        value: ValueName,
    },
    /// A role taken from a router that decided about each item, at a node without items.
    #[error("node `{node}` takes its role from `{from}`, which decides for each item, and has no `for_each` itself")]
    EachRouter {
        /// The node.
        node: NodeName,
        /// The router.
        from: NodeName,
    },
    /// Sub-graphs nest too deep.
    #[error("node `{node}` nests sub-graphs {depth} deep, the limit is {MAX_DEPTH}")]
    Depth {
        /// The node.
        node: NodeName,
        /// How deep.
        depth: usize,
    },
    /// A quorum that cannot be met, or is none.
    #[error("node `{node}` wants a quorum of {quorum} of {sources} sources")]
    Quorum {
        /// The node.
        node: NodeName,
        /// What it asks for.
        quorum: u32,
        /// How many nodes lead here.
        sources: usize,
    },
}

impl Fault {
    /// The node to point at, if it exists.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Start(_) | Self::Result(_) => None,
            Self::NoNext(node) | Self::Unreachable(node) | Self::NoEnd(node) => Some(node),
            Self::Unbounded(cycle) => cycle.first(),
            Self::Target { node, .. }
            | Self::NotARouter { node, .. }
            | Self::Rank { node, .. }
            | Self::BeforeRouter { node, .. }
            | Self::JoinMissing { node, .. }
            | Self::Value { node, .. }
            | Self::EachRouter { node, .. }
            | Self::Depth { node, .. }
            | Self::Quorum { node, .. } => Some(node),
        }
    }
}

pub(super) fn names(parts: &Parts) -> Vec<Fault> {
    let exists = |name: &NodeName| parts.nodes.contains_key(name);
    let mut faults = Vec::new();
    if !exists(&parts.start) {
        faults.push(Fault::Start(parts.start.clone()));
    }
    faults.extend(parts.result.iter().filter(|name| !exists(name)).cloned().map(Fault::Result));
    for (name, node) in &parts.nodes {
        if node.next.is_empty() {
            faults.push(Fault::NoNext(name.clone()));
        }
        for (edge, to) in node.edges().enumerate().filter_map(|(i, e)| Some((i, e.to.as_ref()?))) {
            if !exists(to) {
                faults.push(Fault::Target { node: name.clone(), edge, to: to.clone() });
            }
        }
        if let Work::Role { role, .. } = &node.work
            && let Some((from, rank)) = role.router()
        {
            match parts.nodes.get(from).map(|n| &n.work) {
                Some(Work::Router(router)) if rank <= router.best.max(1) => {}
                Some(Work::Router(router)) => {
                    let best = router.best.max(1);
                    faults.push(Fault::Rank { node: name.clone(), from: from.clone(), rank, best });
                }
                _ => faults.push(Fault::NotARouter { node: name.clone(), from: from.clone() }),
            }
        }
        faults.extend(odd(parts, name, node));
    }
    faults
}

/// What a node asks of the rest of its graph and does not find there.
fn odd(parts: &Parts, name: &NodeName, node: &Node) -> Vec<Fault> {
    let mut faults = Vec::new();
    let name = || name.clone();
    if let Some(value) = node.write.as_ref().filter(|value| !parts.values.contains_key(*value)) {
        faults.push(Fault::Value { node: name(), value: value.clone() });
    }
    match &node.work {
        Work::Role { role, .. } => {
            if let Some((from, _)) = role.router()
                && node.each.is_none()
                && parts.nodes.get(from).is_some_and(|router| router.each.is_some())
            {
                faults.push(Fault::EachRouter { node: name(), from: from.clone() });
            }
        }
        Work::Graph { graph, .. } if graph.depth() >= MAX_DEPTH => {
            faults.push(Fault::Depth { node: name(), depth: graph.depth() + 1 });
        }
        _ => {}
    }
    faults
}

pub(super) fn ways(parts: &Parts) -> Vec<Fault> {
    let mut faults = Vec::new();
    let reached = reach(parts, None);
    let ends = ending(parts);
    for (name, node) in &parts.nodes {
        if !reached.contains(name) {
            faults.push(Fault::Unreachable(name.clone()));
        } else if !ends.contains(name) {
            faults.push(Fault::NoEnd(name.clone()));
        }
        if let Work::Role { role, .. } = &node.work
            && let Some((from, _)) = role.router()
            && reach(parts, Some(from)).contains(name)
        {
            faults.push(Fault::BeforeRouter { node: name.clone(), from: from.clone() });
        }
    }
    faults.extend(unbounded_cycle(parts).map(Fault::Unbounded));
    faults
}

/// The nodes that can be reached from the start without passing `avoid`.
fn reach(parts: &Parts, avoid: Option<&NodeName>) -> BTreeSet<NodeName> {
    let mut seen = BTreeSet::new();
    let mut open = vec![&parts.start];
    while let Some(name) = open.pop() {
        if Some(name) != avoid && seen.insert(name.clone()) {
            open.extend(parts.nodes[name].edges().filter_map(|e| e.to.as_ref()));
        }
    }
    seen
}

/// The nodes from which `done` can be reached.
fn ending(parts: &Parts) -> BTreeSet<NodeName> {
    let mut ends: BTreeSet<NodeName> = BTreeSet::new();
    loop {
        let more: Vec<NodeName> = parts
            .nodes
            .iter()
            .filter(|(name, _)| !ends.contains(*name))
            .filter(|(_, node)| node.edges().any(|e| e.to.as_ref().is_none_or(|to| ends.contains(to))))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return ends;
        }
        ends.extend(more);
    }
}

/// A cycle over edges without `at_most`, if there is one: what remains when nodes without such successors are peeled off.
fn unbounded_cycle(parts: &Parts) -> Option<Vec<NodeName>> {
    let free = |name: &NodeName| {
        parts.nodes[name].edges().filter(|e| e.at_most.is_none()).filter_map(|e| e.to.clone()).collect::<Vec<_>>()
    };
    let mut left: BTreeSet<NodeName> = parts.nodes.keys().cloned().collect();
    loop {
        let peeled: Vec<NodeName> =
            left.iter().filter(|name| !free(name).iter().any(|to| left.contains(to))).cloned().collect();
        if peeled.is_empty() {
            break;
        }
        for name in peeled {
            left.remove(&name);
        }
    }
    // Every node left has a successor that is left, so walking on must come back to a node seen before.
    let mut walk = vec![left.first()?.clone()];
    loop {
        let next = free(walk.last()?).into_iter().find(|to| left.contains(to))?;
        if let Some(at) = walk.iter().position(|seen| *seen == next) {
            let mut cycle = walk.split_off(at);
            cycle.push(next);
            return Some(cycle);
        }
        walk.push(next);
    }
}

pub(super) fn sources(parts: &Parts) -> BTreeMap<NodeName, BTreeSet<NodeName>> {
    let mut sources: BTreeMap<NodeName, BTreeSet<NodeName>> = BTreeMap::new();
    for (name, node) in &parts.nodes {
        for to in node.edges().filter(|e| e.at_most.is_none()).filter_map(|e| e.to.as_ref()) {
            sources.entry(to.clone()).or_default().insert(name.clone());
        }
    }
    sources
}

pub(super) fn joins(parts: &Parts, sources: &BTreeMap<NodeName, BTreeSet<NodeName>>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, node) in &parts.nodes {
        let sources = sources.get(name).map_or(0, BTreeSet::len);
        match node.join {
            None if sources > 1 => faults.push(Fault::JoinMissing { node: name.clone(), sources }),
            Some(Join::Quorum(n)) if n == 0 || n as usize > sources => {
                faults.push(Fault::Quorum { node: name.clone(), quorum: n, sources });
            }
            _ => {}
        }
    }
    faults
}
