//! A graph that is being read, and what it may refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use artel_task::graph::{Graph, Reducer};
use artel_task::{GraphName, NodeName, RoleName, ValueName};
use artel_yaml::Diagnostics;

use super::spans::GraphSpans;
use crate::declared_names::DeclaredNames;
use crate::schema::Schema;
use crate::template::Template;

/// The name that ends a branch.
pub(super) const DONE: &str = "done";

/// What a graph may refer to.
pub(crate) struct DeclaredDefinitions<'a> {
    /// Everything that is defined, valid or not.
    pub(crate) names: &'a DeclaredNames,
    /// The roles that have examples.
    pub(crate) with_examples: &'a [RoleName],
    /// Whether every role could be read.
    pub(crate) has_all_roles: bool,
    /// Whether there is an embedding model, which routers need.
    pub(crate) has_embedding_model: bool,
    /// The graphs that could be read.
    pub(crate) graphs: &'a BTreeMap<GraphName, Arc<Graph>>,
    /// The graphs that the nodes of each graph run, as written.
    pub(crate) inner_graphs: &'a BTreeMap<String, BTreeSet<String>>,
}

/// The compiled parts of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct CompiledNode {
    /// The node's own message.
    pub(crate) message: Option<Template>,
    /// The shape of the answer to its question.
    pub(crate) answer: Option<Schema>,
}

/// A graph that is being read.
pub(super) struct GraphDecoder<'a, 's, 'r> {
    pub(super) declared: &'a DeclaredDefinitions<'a>,
    pub(super) report: &'r mut Diagnostics<'s>,
    pub(super) graph: &'a GraphName,
    pub(super) names: BTreeSet<NodeName>,
    pub(super) values: BTreeMap<ValueName, Reducer>,
    pub(super) compiled: BTreeMap<NodeName, CompiledNode>,
    pub(super) spans: GraphSpans,
    /// Whether a part is missing without which the graph as a whole cannot be checked.
    pub(super) is_incomplete: bool,
}
