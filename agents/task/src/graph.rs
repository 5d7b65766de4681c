//! A graph that exists is bounded: built once from its parts, checked as a whole, never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Condition;
use crate::id::{GraphName, NodeName, RoleName};

/// What a graph is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// Its name.
    pub name: GraphName,
    /// What it is for.
    pub description: String,
    /// The node that runs first.
    pub start: NodeName,
    /// The node whose last output is the task's result; without it, the last node that went to `done`.
    pub result: Option<NodeName>,
    /// Its nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Its limits.
    pub limits: Limits,
}

/// A place in a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Who works here.
    pub work: Work,
    /// When it runs, if several edges lead here.
    pub join: Option<Join>,
    /// The ways from here, in the order in which they are tried.
    pub next: Vec<Edge>,
}

/// Who works at a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A role, with a message template that replaces the role's own in this place.
    Role {
        /// Which role.
        role: RoleRef,
        /// A Jinja source.
        message: Option<String>,
    },
    /// A router.
    Router(Router),
}

/// A role, named or chosen by a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleRef {
    /// This role.
    Named(RoleName),
    /// The role that this router node chose last.
    From(NodeName),
}

/// What a router node chooses from.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    /// The candidates, at least one, in the order of the YAML.
    pub roles: Vec<RoleName>,
    /// Below this confidence `otherwise` wins; from 0 to 1.
    pub confidence: f64,
    /// Who takes what nobody is sure of.
    pub otherwise: Option<RoleName>,
}

/// When a node with several incoming edges runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// When every source has arrived.
    All,
    /// At each arrival.
    Any,
    /// When so many sources have arrived; later ones of the same round are ignored.
    Quorum(u32),
}

/// A way from one node to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// Where it leads; `None` is `done`.
    pub to: Option<NodeName>,
    /// When it may be taken.
    pub when: Option<Condition>,
    /// How often it may be taken in one task.
    pub at_most: Option<u32>,
}

/// What one task of a graph may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Attempts at nodes.
    pub steps: u32,
    /// Prompt and output tokens of all steps.
    pub tokens: u64,
    /// From acceptance to the end.
    pub time: Duration,
}

impl Default for Limits {
    /// Generous for a crew that talks, small enough to end a loop within a coffee break.
    fn default() -> Self {
        Self { steps: 64, tokens: 32_000, time: Duration::from_secs(600) }
    }
}

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
        /// The edge's place in `next`.
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
            | Self::BeforeRouter { node, .. }
            | Self::JoinMissing { node, .. }
            | Self::Quorum { node, .. } => Some(node),
        }
    }
}

/// A graph that is known to end: every node reachable, every cycle bounded, every join satisfiable on paper.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    parts: Parts,
    /// Per node, the distinct nodes whose unbounded edges lead here: what a join counts.
    sources: BTreeMap<NodeName, BTreeSet<NodeName>>,
}

impl Graph {
    /// Checks the parts; all faults at once.
    pub fn new(parts: Parts) -> Result<Self, Vec<Fault>> {
        let mut faults = names(&parts);
        if faults.is_empty() {
            faults = ways(&parts);
        }
        let sources = sources(&parts);
        if faults.is_empty() {
            faults = joins(&parts, &sources);
        }
        if faults.is_empty() { Ok(Self { parts, sources }) } else { Err(faults) }
    }

    /// A graph of one node that runs one role and ends.
    pub fn of_role(role: &RoleName) -> Self {
        let node = NodeName::parse(role.as_str()).expect("role names and node names have one form");
        let work = Work::Role { role: RoleRef::Named(role.clone()), message: None };
        let next = vec![Edge { to: None, when: None, at_most: None }];
        let parts = Parts {
            name: GraphName::parse(role.as_str()).expect("role names and graph names have one form"),
            description: String::new(),
            start: node.clone(),
            result: None,
            nodes: BTreeMap::from([(node, Node { work, join: None, next })]),
            limits: Limits::default(),
        };
        Self::new(parts).expect("one node that leads to done has no fault")
    }

    /// Its name.
    pub fn name(&self) -> &GraphName {
        &self.parts.name
    }

    /// What it is for.
    pub fn description(&self) -> &str {
        &self.parts.description
    }

    /// The node that runs first.
    pub fn start(&self) -> &NodeName {
        &self.parts.start
    }

    /// The node whose last output is the task's result.
    pub fn result(&self) -> Option<&NodeName> {
        self.parts.result.as_ref()
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.parts.limits
    }

    /// All nodes by name.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.parts.nodes
    }

    /// A node of this graph.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.parts.nodes.get(name)
    }

    /// The nodes that the join of `name` counts.
    pub fn sources(&self, name: &NodeName) -> Option<&BTreeSet<NodeName>> {
        self.sources.get(name)
    }

    /// Whether an arrival over this edge triggers its target alone.
    pub(crate) fn is_direct(&self, edge: &Edge) -> bool {
        let Some(to) = &edge.to else { return true };
        let several = self.sources.get(to).is_some_and(|sources| sources.len() > 1);
        let counted = matches!(self.parts.nodes[to].join, Some(Join::All | Join::Quorum(_)));
        edge.at_most.is_some() || !several || !counted
    }
}

fn names(parts: &Parts) -> Vec<Fault> {
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
        for (edge, to) in node.next.iter().enumerate().filter_map(|(i, e)| Some((i, e.to.as_ref()?))) {
            if !exists(to) {
                faults.push(Fault::Target { node: name.clone(), edge, to: to.clone() });
            }
        }
        if let Work::Role { role: RoleRef::From(from), .. } = &node.work
            && !matches!(parts.nodes.get(from).map(|n| &n.work), Some(Work::Router(_)))
        {
            faults.push(Fault::NotARouter { node: name.clone(), from: from.clone() });
        }
    }
    faults
}

fn ways(parts: &Parts) -> Vec<Fault> {
    let mut faults = Vec::new();
    let reached = reach(parts, None);
    let ends = ending(parts);
    for (name, node) in &parts.nodes {
        if !reached.contains(name) {
            faults.push(Fault::Unreachable(name.clone()));
        } else if !ends.contains(name) {
            faults.push(Fault::NoEnd(name.clone()));
        }
        if let Work::Role { role: RoleRef::From(from), .. } = &node.work
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
            open.extend(parts.nodes[name].next.iter().filter_map(|e| e.to.as_ref()));
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
            .filter(|(_, node)| node.next.iter().any(|e| e.to.as_ref().is_none_or(|to| ends.contains(to))))
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
        parts.nodes[name].next.iter().filter(|e| e.at_most.is_none()).filter_map(|e| e.to.clone()).collect::<Vec<_>>()
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

fn sources(parts: &Parts) -> BTreeMap<NodeName, BTreeSet<NodeName>> {
    let mut sources: BTreeMap<NodeName, BTreeSet<NodeName>> = BTreeMap::new();
    for (name, node) in &parts.nodes {
        for to in node.next.iter().filter(|e| e.at_most.is_none()).filter_map(|e| e.to.as_ref()) {
            sources.entry(to.clone()).or_default().insert(name.clone());
        }
    }
    sources
}

fn joins(parts: &Parts, sources: &BTreeMap<NodeName, BTreeSet<NodeName>>) -> Vec<Fault> {
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
