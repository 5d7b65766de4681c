//! Where the parts of a graph are in its file.

use std::collections::BTreeMap;

use artel_task::NodeName;
use artel_yaml::{Span, YamlNode};

/// The spans of the parts of a graph.
#[derive(Default)]
pub(super) struct GraphSpans {
    pub(super) start: Span,
    pub(super) result: Span,
    pub(super) nodes: BTreeMap<NodeName, NodeSpans>,
}

/// The spans of the parts of a node.
pub(super) struct NodeSpans {
    pub(super) key: Span,
    pub(super) from: Option<Span>,
    pub(super) join: Option<Span>,
    pub(super) write: Option<Span>,
    /// The targets, in the order of the edges.
    pub(super) targets: Vec<Span>,
    pub(super) message: Option<YamlNode>,
}

impl NodeSpans {
    pub(super) fn new(key: Span) -> Self {
        Self { key, from: None, join: None, write: None, targets: Vec::new(), message: None }
    }
}

impl GraphSpans {
    fn node(&mut self, node: &NodeName) -> &mut NodeSpans {
        self.nodes.entry(node.clone()).or_insert_with(|| NodeSpans::new(Span::default()))
    }

    pub(super) fn from(&mut self, node: &NodeName, span: Span) {
        self.node(node).from = Some(span);
    }

    pub(super) fn join(&mut self, node: &NodeName, span: Span) {
        self.node(node).join = Some(span);
    }

    pub(super) fn write(&mut self, node: &NodeName, span: Span) {
        self.node(node).write = Some(span);
    }

    pub(super) fn edge(&mut self, node: &NodeName, span: Span) {
        self.node(node).targets.push(span);
    }

    pub(super) fn message(&mut self, node: &NodeName, message: &YamlNode) {
        self.node(node).message = Some(message.clone());
    }
}
