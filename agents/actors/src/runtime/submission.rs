//! Submissions of clients, resolved against the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use artel_roles::{Catalog, Role};
use artel_router::CandidateProfile;
use artel_task::event::{
    Conversation, Decision, ReasoningParams, RequestSampling, ResponseFormat, Signal, TaskPriority, TaskSpec,
    Timestamp, ToolSet,
};
use artel_task::graph::{Edge, GraphLimits, GraphParts, Node, NodeKind, RoleRef, RouterNode};
use artel_task::{
    CallerName, CatalogVersion, Event, EventKind, Graph, GraphName, NodeName, RequestId, RoleName, RouterName, Seq,
    TaskId, TraceContext,
};

use super::Error;
use artel_admission::CallerQuota;
use artel_routing::Candidate;

/// The graph of tasks that name neither graph nor role, unless the daemon is configured with another.
pub(super) const DEFAULT_GRAPH: &str = "mentor";

/// Stands for a graph's name: the router chooses the graph.
pub(super) const AUTO: &str = "auto";

/// Below this confidence a task that names no graph runs the default one.
const MIN_GRAPH_CONFIDENCE: f64 = 0.4;

/// The router that chooses the graph of a task that names none.
pub(super) fn graph_router(catalog: &Catalog) -> RouterNode {
    let otherwise = catalog.graph(DEFAULT_GRAPH).and_then(|graph| RoleName::parse(graph.name().as_str()).ok());
    RouterNode { confidence: MIN_GRAPH_CONFIDENCE, otherwise, ..RouterNode::default() }
}

/// A task to run.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The graph or role to run.
    pub target: Target,
    /// The text of the request.
    pub input: String,
    /// The client's idempotency key: the same again gives the same task.
    pub request_id: Option<RequestId>,
    /// The priority of the task's steps.
    pub priority: TaskPriority,
    /// The client's own labels.
    pub labels: BTreeMap<String, String>,
    /// The caller that the task belongs to; request ids are its own.
    pub owner: CallerName,
    /// The span that the task's own is a child of, if its trace is recorded.
    pub trace: Option<TraceContext>,
    /// What the client allows of the reasoning of its models.
    pub reasoning: Option<ReasoningParams>,
    /// How much the tasks of that caller may take.
    pub quota: CallerQuota,
    /// How the answer of a single role is sampled, within what the role allows.
    pub sampling: Option<Box<RequestSampling>>,
    /// The form of the answer of a single role.
    pub response: Option<Box<ResponseFormat>>,
    /// Tools of the caller, for a single role.
    pub tools: Option<Arc<ToolSet>>,
    /// The conversation that the input continues.
    pub conversation: Option<Arc<Conversation>>,
}

impl Submission {
    /// Whether it is the submission of this accepted task. The default graph may have been named, or not.
    pub(super) fn is_same_as(&self, accepted: &TaskSpec) -> bool {
        let target = match (&self.target, &accepted.role) {
            (Target::Role(name), Some(role)) => name == role.as_str(),
            (Target::Graph(name), None) => name == accepted.graph.as_str(),
            (Target::Default, None) => true,
            _ => false,
        };
        let is_fork = accepted.forked_from.is_some();
        target
            && !is_fork
            && (&self.input, &self.labels, self.priority) == (&accepted.input, &accepted.labels, accepted.priority)
            && (&self.sampling, &self.response, &self.tools)
                == (&accepted.sampling, &accepted.response, &accepted.tools)
            && (self.reasoning, &self.conversation) == (accepted.reasoning, &accepted.conversation)
    }
}

/// The graph or role that a task runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The daemon's default graph.
    Default,
    /// This graph.
    Graph(String),
    /// This role alone.
    Role(String),
}

/// The roles or graphs that a question may be routed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidates {
    /// Every role that has examples.
    All,
    /// These roles.
    Roles(Vec<String>),
    /// These graphs; all that have examples if none is named.
    Graphs(Vec<String>),
    /// The candidates of a router node, with its threshold; `roles` replaces its candidates if it is not empty.
    Node {
        /// The graph.
        graph: String,
        /// Its router node.
        node: String,
        /// Other candidates.
        roles: Vec<String>,
    },
}

/// Settings of a preview that replace those of the router node or of the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PreviewOptions {
    /// The signals to use; empty for those that have weights.
    pub signals: Vec<Signal>,
    /// The router definition whose settings apply.
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
        let (candidates, router) = match self {
            Self::All => {
                let all = catalog.roles().values().filter(|role| !role.examples.is_empty()).cloned();
                (all.map(Candidate::Role).collect(), RouterNode::default())
            }
            Self::Roles(names) => (named(&names)?, RouterNode::default()),
            Self::Graphs(names) => (graph_candidates(&names, catalog)?, RouterNode::default()),
            Self::Node { graph, node, roles } => {
                let definition = catalog.graph(&graph).ok_or_else(|| Error::NoGraph { name: graph.clone() })?;
                let found = NodeName::parse(&node).ok().and_then(|name| definition.node(&name));
                let Some(NodeKind::Router(router)) = found.map(|node| &node.kind) else {
                    return Err(Error::NoRouter { graph, node });
                };
                let own: Vec<String> = router.roles.iter().map(ToString::to_string).collect();
                (named(if roles.is_empty() { &own } else { &roles })?, router.clone())
            }
        };
        if candidates.is_empty() { Err(Error::NoCandidates) } else { Ok((candidates, router)) }
    }
}

/// Graphs as candidates; all that have examples if none is named.
pub(super) fn graph_candidates(names: &[String], catalog: &Catalog) -> Result<Vec<Candidate>, Error> {
    const ONE_FORM: &str = "names of roles, nodes and graphs have one form";
    let candidate = |name: &str, topic: &CandidateProfile| {
        Candidate::Graph(RoleName::parse(name).expect(ONE_FORM), Arc::new(topic.clone()))
    };
    if names.is_empty() {
        let topics = catalog.graphs().keys().filter_map(|name| Some((name, catalog.profile(name.as_str())?)));
        let with_examples = topics.filter(|(_, topic)| !topic.examples.is_empty());
        return Ok(with_examples.map(|(name, topic)| candidate(name.as_str(), topic)).collect());
    }
    let named = |name: &String| match catalog.profile(name) {
        Some(topic) => Ok(candidate(name, topic)),
        None => Err(Error::NoGraph { name: name.clone() }),
    };
    names.iter().map(named).collect()
}

/// The graph that a submission names, and its role if it asks for a single one.
pub(super) fn resolve_target(
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
            Ok((single_role(role), Some(role.name.clone())))
        }
    }
}

/// An error if tools are given to what takes none.
pub(super) fn check_tools(tools: Option<&ToolSet>, role: Option<&RoleName>, catalog: &Catalog) -> Result<(), Error> {
    if tools.is_none() {
        return Ok(());
    }
    let Some(role) = role.and_then(|name| catalog.role(name.as_str())) else { return Err(Error::ToolsOfGraph) };
    if role.caller_tools { Ok(()) } else { Err(Error::ToolsOfRole { role: role.name.clone() }) }
}

/// A role as a graph of one node; graph and node have the role's name.
pub(super) fn single_role(role: &Role) -> Arc<Graph> {
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
pub(super) fn accepted_event(
    submission: Submission,
    graph: &Graph,
    role: Option<RoleName>,
    catalog: &CatalogVersion,
    decision: Option<Decision>,
    at: Timestamp,
) -> Event {
    let Submission { input, request_id, priority, labels, owner, trace, .. } = submission;
    let Submission { sampling, response, tools, reasoning, conversation, .. } = submission;
    let (graph, catalog) = (graph.name().clone(), catalog.clone());
    let decision = decision.map(Box::new);
    let kind = EventKind::Accepted(TaskSpec {
        graph,
        role,
        input,
        catalog,
        request: request_id,
        priority,
        labels,
        forked_from: None,
        decision,
        owner,
        erased: None,
        trace,
        sampling,
        response,
        tools,
        reasoning,
        conversation,
    });
    Event { task: TaskId::new(at.0, rand::random()), seq: Seq(1), at, kind }
}
