//! Faults of a graph, and the checks that find them.

use std::collections::{BTreeMap, BTreeSet};

use super::node::Join;
use super::parts::{GraphParts, Node, NodeKind};
use crate::id::{MAX_DEPTH, NodeName, ValueName};

/// A fault of a graph; each names the node to look at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphFault {
    /// `start` names no node.
    #[error("`start` names node `{0}`, which does not exist")]
    UnknownStart(NodeName),
    /// `result` names no node.
    #[error("`result` names node `{0}`, which does not exist")]
    UnknownResult(NodeName),
    /// An edge leads to a node that does not exist.
    #[error("node `{node}` leads to `{to}`, which does not exist")]
    UnknownTarget {
        /// The node with the edge.
        node: NodeName,
        /// The edge's index in `next`; the index after the last is `on_failure`.
        edge: usize,
        /// The missing node.
        to: NodeName,
    },
    /// A node has no outgoing edge.
    #[error("node `{0}` has no `next`; add `next: done` if the branch ends here")]
    NoNext(NodeName),
    /// A node cannot be reached.
    #[error("node `{0}` cannot be reached from the start")]
    Unreachable(NodeName),
    /// `done` cannot be reached from a node.
    #[error("`done` cannot be reached from node `{0}`")]
    NoPathToDone(NodeName),
    /// A cycle has no bound.
    #[error("the cycle {} has no `at_most` on any of its edges", .0.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" -> "))]
    UnboundedCycle(Vec<NodeName>),
    /// `{from: X}` where X is not a router.
    #[error("node `{node}` takes its role from `{from}`, which is not a router node")]
    NotARouter {
        /// The node.
        node: NodeName,
        /// The node that it names.
        from: NodeName,
    },
    /// `check: X` where X is not a node of a role.
    #[error("node `{node}` checks the answer of `{answer}`, which is not a node of a role")]
    NotAnAnswer {
        /// The node.
        node: NodeName,
        /// The node that it names.
        answer: NodeName,
    },
    /// `passages: X` where X is not a search, or the node has neither a role nor a check.
    #[error(
        "node `{node}` takes its passages from `{from}`: it must be a node of a role or a check, and `{from}` one with `search`"
    )]
    NotASearch {
        /// The node.
        node: NodeName,
        /// The node that it names.
        from: NodeName,
    },
    /// `{from: X, rank: n}` where X chooses fewer roles.
    #[error("node `{node}` takes the role of rank {rank} from `{from}`, which chooses {best}")]
    RankTooHigh {
        /// The node.
        node: NodeName,
        /// The router.
        from: NodeName,
        /// The rank that it requests.
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
    /// A node may check an answer that there is not yet.
    #[error("node `{node}` can be reached before `{answer}` has answered")]
    BeforeAnswer {
        /// The node.
        node: NodeName,
        /// The node that it checks.
        answer: NodeName,
    },
    /// A node has several incoming edges and no `join`.
    #[error("node `{node}` has {sources} incoming edges: say `join: all`, `join: any` or `join: {{quorum: n}}`")]
    MissingJoin {
        /// The node.
        node: NodeName,
        /// The number of nodes with an edge to it.
        sources: usize,
    },
    /// A node writes a value that its graph does not declare.
    #[error("node `{node}` writes value `{value}`, which `reduce` does not declare")]
    UnknownValue {
        /// The node.
        node: NodeName,
        /// The undeclared value.
        value: ValueName,
    },
    /// A node without items takes its role from a router that decides per item.
    #[error("node `{node}` has no `for_each`, and takes its role from `{from}`, which decides per item")]
    PerItemRouter {
        /// The node.
        node: NodeName,
        /// The router.
        from: NodeName,
    },
    /// Sub-graphs are nested too deep.
    #[error("sub-graphs at node `{node}` are nested {depth} deep, the limit is {MAX_DEPTH}")]
    TooDeep {
        /// The node.
        node: NodeName,
        /// The nesting depth.
        depth: usize,
    },
    /// A quorum is zero or cannot be met.
    #[error("node `{node}` requires a quorum of {quorum} of {sources} sources")]
    InvalidQuorum {
        /// The node.
        node: NodeName,
        /// The required quorum.
        quorum: u32,
        /// The number of nodes with an edge to it.
        sources: usize,
    },
}

impl GraphFault {
    /// The node to report it at, if that node exists.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::UnknownStart(_) | Self::UnknownResult(_) => None,
            Self::NoNext(node) | Self::Unreachable(node) | Self::NoPathToDone(node) => Some(node),
            Self::UnboundedCycle(cycle) => cycle.first(),
            Self::UnknownTarget { node, .. }
            | Self::NotARouter { node, .. }
            | Self::NotASearch { node, .. }
            | Self::NotAnAnswer { node, .. }
            | Self::BeforeAnswer { node, .. }
            | Self::RankTooHigh { node, .. }
            | Self::BeforeRouter { node, .. }
            | Self::MissingJoin { node, .. }
            | Self::UnknownValue { node, .. }
            | Self::PerItemRouter { node, .. }
            | Self::TooDeep { node, .. }
            | Self::InvalidQuorum { node, .. } => Some(node),
        }
    }
}

pub(super) fn names(parts: &GraphParts) -> Vec<GraphFault> {
    let exists = |name: &NodeName| parts.nodes.contains_key(name);
    let mut faults = Vec::new();
    if !exists(&parts.start) {
        faults.push(GraphFault::UnknownStart(parts.start.clone()));
    }
    faults.extend(parts.result.iter().filter(|name| !exists(name)).cloned().map(GraphFault::UnknownResult));
    for (name, node) in &parts.nodes {
        if node.next.is_empty() {
            faults.push(GraphFault::NoNext(name.clone()));
        }
        for (edge, to) in node.edges().enumerate().filter_map(|(i, e)| Some((i, e.to.as_ref()?))) {
            if !exists(to) {
                faults.push(GraphFault::UnknownTarget { node: name.clone(), edge, to: to.clone() });
            }
        }
        if let NodeKind::Role { role, .. } = &node.kind
            && let Some((from, rank)) = role.router()
        {
            match parts.nodes.get(from).map(|n| &n.kind) {
                Some(NodeKind::Router(router)) if rank <= router.best.max(1) => {}
                Some(NodeKind::Router(router)) => {
                    let best = router.best.max(1);
                    faults.push(GraphFault::RankTooHigh { node: name.clone(), from: from.clone(), rank, best });
                }
                _ => faults.push(GraphFault::NotARouter { node: name.clone(), from: from.clone() }),
            }
        }
        faults.extend(references(parts, name, node));
    }
    faults
}

/// References of a node to the rest of its graph that do not hold.
fn references(parts: &GraphParts, name: &NodeName, node: &Node) -> Vec<GraphFault> {
    let mut faults = Vec::new();
    let name = || name.clone();
    if let Some(from) = &node.passages {
        let is_search = parts.nodes.get(from).is_some_and(|from| matches!(from.kind, NodeKind::Search(_)));
        if !is_search || !matches!(node.kind, NodeKind::Role { .. } | NodeKind::Check(_)) {
            faults.push(GraphFault::NotASearch { node: name(), from: from.clone() });
        }
    }
    if let Some(value) = node.write.as_ref().filter(|value| !parts.values.contains_key(*value)) {
        faults.push(GraphFault::UnknownValue { node: name(), value: value.clone() });
    }
    match &node.kind {
        NodeKind::Role { role, .. } => {
            if let Some((from, _)) = role.router()
                && node.for_each.is_none()
                && parts.nodes.get(from).is_some_and(|router| router.for_each.is_some())
            {
                faults.push(GraphFault::PerItemRouter { node: name(), from: from.clone() });
            }
        }
        NodeKind::Check(answer) => {
            let is_answer = parts.nodes.get(answer).is_some_and(|node| matches!(node.kind, NodeKind::Role { .. }));
            if !is_answer {
                faults.push(GraphFault::NotAnAnswer { node: name(), answer: answer.clone() });
            }
        }
        NodeKind::Graph { graph, .. } if graph.depth() >= MAX_DEPTH => {
            faults.push(GraphFault::TooDeep { node: name(), depth: graph.depth() + 1 });
        }
        _ => {}
    }
    faults
}

pub(super) fn paths(parts: &GraphParts) -> Vec<GraphFault> {
    let mut faults = Vec::new();
    let reached = reachable(parts, None);
    let ends = can_reach_done(parts);
    for (name, node) in &parts.nodes {
        if !reached.contains(name) {
            faults.push(GraphFault::Unreachable(name.clone()));
        } else if !ends.contains(name) {
            faults.push(GraphFault::NoPathToDone(name.clone()));
        }
        if let NodeKind::Role { role, .. } = &node.kind
            && let Some((from, _)) = role.router()
            && reachable(parts, Some(from)).contains(name)
        {
            faults.push(GraphFault::BeforeRouter { node: name.clone(), from: from.clone() });
        }
        if let NodeKind::Check(answer) = &node.kind
            && reachable(parts, Some(answer)).contains(name)
        {
            faults.push(GraphFault::BeforeAnswer { node: name.clone(), answer: answer.clone() });
        }
    }
    faults.extend(unbounded_cycle(parts).map(GraphFault::UnboundedCycle));
    faults
}

/// The nodes reachable from the start without passing `avoid`.
fn reachable(parts: &GraphParts, avoid: Option<&NodeName>) -> BTreeSet<NodeName> {
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
fn can_reach_done(parts: &GraphParts) -> BTreeSet<NodeName> {
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

/// A cycle over edges without `at_most`, if one exists: it remains after nodes without such successors have been peeled off.
fn unbounded_cycle(parts: &GraphParts) -> Option<Vec<NodeName>> {
    let free = |name: &NodeName| {
        parts.nodes[name].edges().filter(|e| e.at_most.is_none()).filter_map(|e| e.to.clone()).collect::<Vec<_>>()
    };
    let mut remaining: BTreeSet<NodeName> = parts.nodes.keys().cloned().collect();
    loop {
        let peeled: Vec<NodeName> =
            remaining.iter().filter(|name| !free(name).iter().any(|to| remaining.contains(to))).cloned().collect();
        if peeled.is_empty() {
            break;
        }
        for name in peeled {
            remaining.remove(&name);
        }
    }
    // Every remaining node has a remaining successor, so the walk must return to a visited node.
    let mut walk = vec![remaining.first()?.clone()];
    loop {
        let next = free(walk.last()?).into_iter().find(|to| remaining.contains(to))?;
        if let Some(at) = walk.iter().position(|visited| *visited == next) {
            let mut cycle = walk.split_off(at);
            cycle.push(next);
            return Some(cycle);
        }
        walk.push(next);
    }
}

pub(super) fn sources(parts: &GraphParts) -> BTreeMap<NodeName, BTreeSet<NodeName>> {
    let mut sources: BTreeMap<NodeName, BTreeSet<NodeName>> = BTreeMap::new();
    for (name, node) in &parts.nodes {
        for to in node.edges().filter(|e| e.at_most.is_none()).filter_map(|e| e.to.as_ref()) {
            sources.entry(to.clone()).or_default().insert(name.clone());
        }
    }
    sources
}

pub(super) fn joins(parts: &GraphParts, sources: &BTreeMap<NodeName, BTreeSet<NodeName>>) -> Vec<GraphFault> {
    let mut faults = Vec::new();
    for (name, node) in &parts.nodes {
        let sources = sources.get(name).map_or(0, BTreeSet::len);
        match node.join {
            None if sources > 1 => faults.push(GraphFault::MissingJoin { node: name.clone(), sources }),
            Some(Join::Quorum(n)) if n == 0 || n as usize > sources => {
                faults.push(GraphFault::InvalidQuorum { node: name.clone(), quorum: n, sources });
            }
            _ => {}
        }
    }
    faults
}
