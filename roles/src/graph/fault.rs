//! The lines of the file at which a graph's faults are reported.

use std::collections::BTreeSet;

use artel_task::graph::GraphFault;
use artel_task::{NodeName, ValueName};
use artel_yaml::{Diagnostics, Span, did_you_mean};

use super::decoder::DONE;
use super::spans::GraphSpans;

/// The names that a graph has.
pub(super) struct GraphNames<'a> {
    pub(super) nodes: &'a BTreeSet<NodeName>,
    pub(super) values: Vec<ValueName>,
}

impl GraphSpans {
    /// Reports a fault at its span, with the nearest valid name or a fix as the hint.
    pub(super) fn report(&self, fault: &GraphFault, names: &GraphNames<'_>, report: &mut Diagnostics<'_>) {
        report.push_error(self.span(fault), fault.to_string(), self.hint(fault, names));
    }

    fn span(&self, fault: &GraphFault) -> Span {
        let spans = fault.node().and_then(|node| self.nodes.get(node));
        let span = match fault {
            GraphFault::UnknownStart(_) => Some(self.start),
            GraphFault::UnknownResult(_) => Some(self.result),
            GraphFault::UnknownTarget { edge, .. } => spans.and_then(|s| s.targets.get(*edge).copied()),
            GraphFault::UnknownValue { .. } => spans.and_then(|s| s.write),
            GraphFault::NotARouter { .. }
            | GraphFault::NotASearch { .. }
            | GraphFault::RankTooHigh { .. }
            | GraphFault::BeforeRouter { .. }
            | GraphFault::PerItemRouter { .. }
            | GraphFault::TooDeep { .. } => spans.and_then(|s| s.from),
            GraphFault::InvalidQuorum { .. } => spans.and_then(|s| s.join),
            _ => None,
        };
        span.or_else(|| spans.map(|s| s.key)).unwrap_or_default()
    }

    fn hint(&self, fault: &GraphFault, names: &GraphNames<'_>) -> Option<String> {
        let nodes = || names.nodes.iter().map(NodeName::as_str);
        match fault {
            GraphFault::UnknownStart(name) | GraphFault::UnknownResult(name) => did_you_mean(name.as_str(), nodes()),
            GraphFault::UnknownTarget { to, .. } => did_you_mean(to.as_str(), nodes().chain([DONE])),
            GraphFault::NotARouter { from, .. }
            | GraphFault::NotASearch { from, .. }
            | GraphFault::NotAnAnswer { answer: from, .. } => {
                did_you_mean(from.as_str(), nodes().filter(|n| *n != from.as_str()))
            }
            GraphFault::UnboundedCycle(cycle) => {
                let (last, first) = (cycle.iter().rev().nth(1)?, cycle.last()?);
                Some(format!("bound one of its edges, for example `next: {{to: {first}, at_most: 2}}` in `{last}`"))
            }
            GraphFault::Unreachable(name) => Some(format!("add an edge to it, `next: {name}`, or remove it")),
            GraphFault::NoPathToDone(_) => Some("add an edge to `done` here or at a node after it".to_owned()),
            GraphFault::InvalidQuorum { sources, .. } => Some(format!("a quorum here is from 1 to {sources}")),
            GraphFault::BeforeAnswer { answer: from, .. } | GraphFault::BeforeRouter { from, .. } => {
                Some(format!("let every path to this node pass through `{from}`"))
            }
            GraphFault::RankTooHigh { from, rank, .. } => {
                Some(format!("write `best: {rank}` in the router of `{from}`"))
            }
            GraphFault::UnknownValue { value, .. } => {
                let near = did_you_mean(value.as_str(), names.values.iter().map(ValueName::as_str));
                near.or_else(|| Some(format!("add `reduce: {{{value}: append}}` to the graph")))
            }
            GraphFault::PerItemRouter { .. } => Some("map this node over the same list".to_owned()),
            GraphFault::NoNext(_) | GraphFault::MissingJoin { .. } | GraphFault::TooDeep { .. } => None,
        }
    }
}
