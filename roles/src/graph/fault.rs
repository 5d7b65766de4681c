//! Where in the file a graph's faults are.

use std::collections::{BTreeMap, BTreeSet};

use artel_task::graph::GraphFault;
use artel_task::{NodeName, ValueName};

use super::DONE;
use crate::node::{Node, Span};
use crate::problem::{Report, did_you_mean};

/// The names that a graph has.
pub(super) struct Names<'a> {
    pub(super) nodes: &'a BTreeSet<NodeName>,
    pub(super) values: Vec<ValueName>,
}

/// Where the parts of a graph are written.
#[derive(Default)]
pub(super) struct Places {
    pub(super) start: Span,
    pub(super) result: Span,
    pub(super) nodes: BTreeMap<NodeName, Spot>,
}

/// Where the parts of a node are written.
pub(super) struct Spot {
    key: Span,
    from: Option<Span>,
    join: Option<Span>,
    write: Option<Span>,
    /// The targets, in the order of the edges.
    targets: Vec<Span>,
    pub(super) message: Option<Node>,
}

impl Spot {
    pub(super) fn new(key: Span) -> Self {
        Self { key, from: None, join: None, write: None, targets: Vec::new(), message: None }
    }
}

impl Places {
    fn spot(&mut self, node: &NodeName) -> &mut Spot {
        self.nodes.entry(node.clone()).or_insert_with(|| Spot::new(Span::default()))
    }

    pub(super) fn from(&mut self, node: &NodeName, span: Span) {
        self.spot(node).from = Some(span);
    }

    pub(super) fn join(&mut self, node: &NodeName, span: Span) {
        self.spot(node).join = Some(span);
    }

    pub(super) fn write(&mut self, node: &NodeName, span: Span) {
        self.spot(node).write = Some(span);
    }

    pub(super) fn edge(&mut self, node: &NodeName, span: Span) {
        self.spot(node).targets.push(span);
    }

    pub(super) fn message(&mut self, node: &NodeName, message: &Node) {
        self.spot(node).message = Some(message.clone());
    }

    /// Reports a fault at its place, with the nearest right name or the way to mend it.
    pub(super) fn report(&self, fault: &GraphFault, names: &Names<'_>, report: &mut Report<'_>) {
        report.push(self.place(fault), fault.to_string(), self.hint(fault, names));
    }

    fn place(&self, fault: &GraphFault) -> Span {
        let spot = fault.node().and_then(|node| self.nodes.get(node));
        let found = match fault {
            GraphFault::UnknownStart(_) => Some(self.start),
            GraphFault::UnknownResult(_) => Some(self.result),
            GraphFault::UnknownTarget { edge, .. } => spot.and_then(|s| s.targets.get(*edge).copied()),
            GraphFault::UnknownValue { .. } => spot.and_then(|s| s.write),
            GraphFault::NotARouter { .. }
            | GraphFault::RankTooHigh { .. }
            | GraphFault::BeforeRouter { .. }
            | GraphFault::PerItemRouter { .. }
            | GraphFault::TooDeep { .. } => spot.and_then(|s| s.from),
            GraphFault::InvalidQuorum { .. } => spot.and_then(|s| s.join),
            _ => None,
        };
        found.or_else(|| spot.map(|s| s.key)).unwrap_or_default()
    }

    fn hint(&self, fault: &GraphFault, names: &Names<'_>) -> Option<String> {
        let nodes = || names.nodes.iter().map(NodeName::as_str);
        match fault {
            GraphFault::UnknownStart(name) | GraphFault::UnknownResult(name) => did_you_mean(name.as_str(), nodes()),
            GraphFault::UnknownTarget { to, .. } => did_you_mean(to.as_str(), nodes().chain([DONE])),
            GraphFault::NotARouter { from, .. } => did_you_mean(from.as_str(), nodes().filter(|n| *n != from.as_str())),
            GraphFault::UnboundedCycle(cycle) => {
                let (last, first) = (cycle.iter().rev().nth(1)?, cycle.last()?);
                Some(format!("bound one of its edges, for example `next: {{to: {first}, at_most: 2}}` in `{last}`"))
            }
            GraphFault::Unreachable(name) => Some(format!("lead to it with `next: {name}`, or remove it")),
            GraphFault::NoPathToDone(_) => Some("lead to `done` from here or from a node after it".to_owned()),
            GraphFault::InvalidQuorum { sources, .. } => Some(format!("a quorum here is from 1 to {sources}")),
            GraphFault::BeforeRouter { from, .. } => Some(format!("let every way to this node lead through `{from}`")),
            GraphFault::RankTooHigh { from, rank, .. } => Some(format!("say `best: {rank}` in the router of `{from}`")),
            GraphFault::UnknownValue { value, .. } => {
                let near = did_you_mean(value.as_str(), names.values.iter().map(ValueName::as_str));
                near.or_else(|| Some(format!("add `reduce: {{{value}: append}}` to the graph")))
            }
            GraphFault::PerItemRouter { .. } => Some("map this node over the same list".to_owned()),
            GraphFault::NoNext(_) | GraphFault::MissingJoin { .. } | GraphFault::TooDeep { .. } => None,
        }
    }
}
