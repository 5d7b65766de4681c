//! What clients hand in, and what the catalog makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use artel_roles::{Catalog, Role, CandidateProfile};
use artel_task::event::{TaskSpec, TaskPriority, Decision, Signal, Timestamp};
use artel_task::graph::{Edge, GraphLimits, Node, GraphParts, RoleRef, RouterNode, NodeKind};
use artel_task::{
    CatalogVersion, Event, Graph, GraphName, EventKind, NodeName, RequestId, RoleName, RouterName, Seq, TaskId,
};

use super::Error;
use crate::router::Candidate;

/// The graph of tasks that name neither graph nor role, unless the daemon is told another.
pub(super) const DEFAULT_GRAPH: &str = "mentor";

/// In place of a graph's name: the router chooses.
pub(super) const AUTO: &str = "auto";

/// Below this confidence a task that names no graph runs the default one.
const SURE: f64 = 0.4;

/// How the graph of a task that names none is chosen.
pub(super) fn entry(catalog: &Catalog) -> RouterNode {
    let otherwise = catalog.graph(DEFAULT_GRAPH).and_then(|graph| RoleName::parse(graph.name().as_str()).ok());
    RouterNode { confidence: SURE, otherwise, ..RouterNode::default() }
}

/// A task to run.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What runs.
    pub target: Target,
    /// The text of the request.
    pub input: String,
    /// The client's own key: the same again gives the same task.
    pub request: Option<RequestId>,
    /// How urgent it is.
    pub class: TaskPriority,
    /// The client's own notes.
    pub labels: BTreeMap<String, String>,
}

impl Submission {
    /// Whether it is what was asked for in this task. A task of the default graph may have been given by name, or not.
    pub(super) fn asks_for(&self, accepted: &TaskSpec) -> bool {
        let target = match (&self.target, &accepted.role) {
            (Target::Role(name), Some(role)) => name == role.as_str(),
            (Target::Graph(name), None) => name == accepted.graph.as_str(),
            (Target::Default, None) => true,
            _ => false,
        };
        let forked = accepted.forked_from.is_some();
        target
            && !forked
            && (&self.input, &self.labels, self.class) == (&accepted.input, &accepted.labels, accepted.priority)
    }
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The daemon's default graph.
    Default,
    /// This graph.
    Graph(String),
    /// This role alone.
    Role(String),
}

/// Who may take a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidates {
    /// Every role that has examples.
    All,
    /// These roles.
    Roles(Vec<String>),
    /// These graphs; all that have examples if none is named.
    Graphs(Vec<String>),
    /// Those of a router node, with its threshold; `roles` replaces its candidates if it is not empty.
    Node {
        /// The graph.
        graph: String,
        /// Its router node.
        node: String,
        /// Other candidates.
        roles: Vec<String>,
    },
}

/// How a preview differs from what a router node, or the catalog, says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    /// The signals to ask; empty for those that are weighed.
    pub signals: Vec<Signal>,
    /// The router whose settings apply.
    pub settings: Option<RouterName>,
}

impl Candidates {
    /// The candidates, and the node that chooses from them.
    pub(super) fn resolve(self, catalog: &Catalog) -> Result<(Vec<Candidate>, RouterNode), Error> {
        let role = |name: &str| match catalog.role(name) {
            Some(role) => Ok(Candidate::Role(role.clone())),
            None => Err(Error::NoRole { name: name.to_owned() }),
        };
        let named = |names: &[String]| names.iter().map(|name| role(name)).collect::<Result<Vec<_>, Error>>();
        let (found, router) = match self {
            Self::All => {
                let all = catalog.roles().values().filter(|role| !role.examples.is_empty()).cloned();
                (all.map(Candidate::Role).collect(), RouterNode::default())
            }
            Self::Roles(names) => (named(&names)?, RouterNode::default()),
            Self::Graphs(names) => (graphs(&names, catalog)?, RouterNode::default()),
            Self::Node { graph, node, roles } => {
                let found = catalog.graph(&graph).ok_or_else(|| Error::NoGraph { name: graph.clone() })?;
                let place = NodeName::parse(&node).ok().and_then(|name| found.node(&name));
                let Some(NodeKind::Router(router)) = place.map(|place| &place.kind) else {
                    return Err(Error::NoRouter { graph, node });
                };
                let own: Vec<String> = router.roles.iter().map(ToString::to_string).collect();
                (named(if roles.is_empty() { &own } else { &roles })?, router.clone())
            }
        };
        if found.is_empty() { Err(Error::NoCandidates) } else { Ok((found, router)) }
    }
}

/// Graphs as candidates; all that have examples if none is named.
pub(super) fn graphs(names: &[String], catalog: &Catalog) -> Result<Vec<Candidate>, Error> {
    const ONE_FORM: &str = "names of roles, nodes and graphs have one form";
    let candidate =
        |name: &str, topic: &CandidateProfile| Candidate::Graph(RoleName::parse(name).expect(ONE_FORM), Arc::new(topic.clone()));
    if names.is_empty() {
        let topics = catalog.graphs().keys().filter_map(|name| Some((name, catalog.profile(name.as_str())?)));
        let known = topics.filter(|(_, topic)| !topic.examples.is_empty());
        return Ok(known.map(|(name, topic)| candidate(name.as_str(), topic)).collect());
    }
    let found = |name: &String| match catalog.profile(name) {
        Some(topic) => Ok(candidate(name, topic)),
        None => Err(Error::NoGraph { name: name.clone() }),
    };
    names.iter().map(found).collect()
}

/// The graph that a submission names, and its role if it asks for one alone.
pub(super) fn target(
    target: &Target,
    catalog: &Catalog,
    default: Option<&GraphName>,
) -> Result<(Arc<Graph>, Option<RoleName>), Error> {
    let graph = |name: &str| catalog.graph(name).cloned();
    match target {
        Target::Graph(name) => Ok((graph(name).ok_or_else(|| Error::NoGraph { name: name.clone() })?, None)),
        Target::Default => match default {
            Some(name) => Ok((graph(name.as_str()).ok_or_else(|| Error::NoGraph { name: name.to_string() })?, None)),
            None => Ok((graph(DEFAULT_GRAPH).ok_or(Error::NoTarget)?, None)),
        },
        Target::Role(name) => {
            let role = catalog.role(name).ok_or_else(|| Error::NoRole { name: name.clone() })?;
            Ok((single(role), Some(role.name.clone())))
        }
    }
}

/// A role as a graph of one node, both of the role's name.
pub(super) fn single(role: &Role) -> Arc<Graph> {
    const ONE_FORM: &str = "names of roles, nodes and graphs have one form";
    let node = NodeName::parse(role.name.as_str()).expect(ONE_FORM);
    let work = NodeKind::Role { role: RoleRef::Named(role.name.clone()), message: None };
    let end = Edge { to: None, when: None, at_most: None };
    // The role's own limits bound its steps.
    let time = role.limits.timeout.saturating_mul(role.limits.retries + 1) + GraphLimits::default().time;
    let parts = GraphParts {
        name: GraphName::parse(role.name.as_str()).expect(ONE_FORM),
        description: role.description.clone(),
        start: node.clone(),
        result: None,
        nodes: BTreeMap::from([(node, Node::new(work, vec![end]))]),
        values: BTreeMap::new(),
        fallback: None,
        limits: GraphLimits { steps: role.limits.retries + 1 + GraphLimits::default().steps, tokens: u64::MAX, time },
    };
    Arc::new(Graph::new(parts).expect("a node that leads to the end is a graph"))
}

/// A task's first event.
pub(super) fn accepted(
    submission: Submission,
    graph: &Graph,
    role: Option<RoleName>,
    catalog: &CatalogVersion,
    decision: Option<Decision>,
    at: Timestamp,
) -> Event {
    let Submission { input, request, class, labels, .. } = submission;
    let (graph, catalog) = (graph.name().clone(), catalog.clone());
    let decision = decision.map(Box::new);
    let kind = EventKind::Accepted(TaskSpec { graph, role, input, catalog, request, priority: class, labels, forked_from: None, decision });
    Event { task: TaskId::new(at.0, rand::random()), seq: Seq(1), at, kind }
}
