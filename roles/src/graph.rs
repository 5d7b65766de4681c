//! Graphs: from YAML to the parts of an [`artel_task::Graph`], and its faults back to places in the file.

mod edge;
mod fault;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use artel_task::graph::{Graph, Join, Limits, Node as Place, Parts, RoleRef, Router, Work};
use artel_task::{GraphName, NodeName, RoleName};

use crate::decode::{Fields, duration, integer, items, list, name, number, text, wrong};
use crate::node::{Entry, Node, Span, Value};
use crate::problem::{Report, did_you_mean, shown};
use crate::template::{self, Template};
use fault::{Places, Spot};

/// The most nodes of one graph: what a person can still draw has some tens.
const MAX_NODES: usize = 1000;
/// The name that ends a branch.
pub(crate) const DONE: &str = "done";
/// Kinds of nodes that a later version brings.
const LATER: [&str; 4] = ["ask", "for_each", "graph", "tool"];

/// What a graph may refer to.
pub(crate) struct Known<'a> {
    /// Every role that is defined, well or badly.
    pub(crate) roles: &'a BTreeSet<RoleName>,
    /// The roles that have examples.
    pub(crate) with_examples: &'a [RoleName],
    /// Whether every role could be read.
    pub(crate) complete: bool,
    /// Whether there is a model that routers can compare texts with.
    pub(crate) embedding: bool,
}

/// A graph and the compiled messages of its nodes.
pub(crate) struct Draft {
    pub(crate) graph: Graph,
    pub(crate) messages: BTreeMap<NodeName, Template>,
}

/// A graph that is being read.
struct Reader<'a, 's, 'r> {
    known: &'a Known<'a>,
    report: &'r mut Report<'s>,
    names: BTreeSet<NodeName>,
    messages: BTreeMap<NodeName, Template>,
    places: Places,
    /// Whether something is missing without which the graph as a whole cannot be judged.
    holes: bool,
}

pub(crate) fn decode(
    graph: &GraphName,
    fields: Fields<'_>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Option<Draft> {
    let mut f = fields;
    let description = f.need("description", report).and_then(|n| text(n, "`description`", 1..=2000, report));
    let start = f.need("start", report).and_then(|n| Some((name(n, "a node", NodeName::parse, report)?, n.span)));
    let result = f.get("result").map(|n| Some((name(n, "a node", NodeName::parse, report)?, n.span)));
    let limits = f.get("limits").map(|n| limits(n, report)).unwrap_or_default();
    let nodes = f.need("nodes", report).and_then(|n| entries(n, report));
    let holes = start.is_none() || matches!(result, Some(None)) || nodes.is_none();
    let homes = ["steps", "tokens", "time"].map(|key| (key, "limits"));
    f.finish(&homes, report);

    let nodes = nodes.unwrap_or_default();
    let names = nodes.iter().filter_map(|e| NodeName::parse(&e.key).ok()).collect();
    let (places, messages) = (Places::default(), BTreeMap::new());
    let mut reader = Reader { known, report, names, messages, places, holes };
    let nodes: BTreeMap<NodeName, Place> = nodes.iter().filter_map(|e| reader.node(e)).collect();
    reader.check_messages();
    let Reader { holes: false, report, names, messages, mut places, .. } = reader else { return None };
    let (start, start_span) = start?;
    places.start = start_span;
    let result = result.flatten().map(|(node, span)| {
        places.result = span;
        node
    });
    let parts = Parts {
        name: graph.clone(),
        description: description.clone().unwrap_or_default(),
        start,
        result,
        nodes,
        limits,
    };
    match Graph::new(parts) {
        Ok(graph) => description.map(|_| Draft { graph, messages }),
        Err(faults) => {
            faults.iter().for_each(|fault| places.report(fault, &names, report));
            None
        }
    }
}

/// The roles that a node names itself; one that takes its role from a router names none.
pub(crate) fn roles(work: &Work) -> Vec<&RoleName> {
    match work {
        Work::Role { role: RoleRef::Named(role), .. } => vec![role],
        Work::Role { role: RoleRef::From(_), .. } => Vec::new(),
        Work::Router(router) => router.roles.iter().chain(&router.otherwise).collect(),
    }
}

fn entries<'n>(node: &'n Node, report: &mut Report<'_>) -> Option<&'n [Entry]> {
    match &node.value {
        Value::Map(entries) if entries.is_empty() => report.add(node.span, "a graph has at least one node"),
        Value::Map(entries) if entries.len() <= MAX_NODES => return Some(entries),
        Value::Map(entries) => {
            report.add(node.span, format!("the graph has {} nodes, the limit is {MAX_NODES}", entries.len()));
        }
        _ => wrong(node, "`nodes` is a map from names to nodes", report),
    }
    None
}

fn limits(node: &Node, report: &mut Report<'_>) -> Limits {
    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    let base = Limits::default();
    let Some(mut f) = Fields::open(node, "`limits`", report) else { return base };
    let steps = f.get("steps").and_then(|n| integer(n, "`steps`", 1..=100_000, report));
    let tokens = f.get("tokens").and_then(|n| integer(n, "`tokens`", 1..=1_000_000_000, report));
    let time = f.get("time").and_then(|n| duration(n, "`time`", Duration::from_secs(1)..=WEEK, report));
    f.finish(&[], report);
    Limits {
        steps: steps.unwrap_or(base.steps),
        tokens: tokens.map_or(base.tokens, u64::from),
        time: time.unwrap_or(base.time),
    }
}

impl Reader<'_, '_, '_> {
    /// A node; `None` if it is too broken to stand in a graph.
    fn node(&mut self, entry: &Entry) -> Option<(NodeName, Place)> {
        let found = self.place(entry);
        self.holes |= found.is_none();
        found
    }

    fn place(&mut self, entry: &Entry) -> Option<(NodeName, Place)> {
        let key = &entry.key;
        if entry.refused {
            return None;
        }
        if key == DONE {
            self.report.add(entry.key_span, "a node cannot be named `done`: that name ends a branch");
            return None;
        }
        let named = Node { span: entry.key_span, value: Value::Str(key.clone(), crate::node::Style::Flow) };
        let node = name(&named, "a node", NodeName::parse, self.report)?;
        let mut f = Fields::open(&entry.value, &format!("the node `{key}`"), self.report)?.at(entry.key_span);
        self.places.nodes.insert(node.clone(), Spot::new(entry.key_span));
        let later = LATER.into_iter().filter_map(|kind| f.entry(kind));
        let later: Vec<(&str, Span)> = later.map(|e| (e.key.as_str(), e.key_span)).collect();
        if let Some((kind, span)) = later.first() {
            self.report.add(*span, format!("node kind `{kind}` is not available in this version"));
            return None;
        }
        let work = self.work(&node, entry, &mut f);
        let join = f.get("join").map(|n| self.join(&node, n));
        let next = f.get("next").map(|n| self.edges(&node, n));
        f.finish(
            &[
                ("to", "next"),
                ("when", "next"),
                ("at_most", "next"),
                ("otherwise", "router"),
                ("confidence", "router"),
                ("from", "role"),
            ],
            self.report,
        );
        if join == Some(None) || next == Some(None) {
            self.holes = true;
        }
        Some((node, Place { work: work?, join: join.flatten(), next: next.flatten().unwrap_or_default() }))
    }

    fn work(&mut self, node: &NodeName, entry: &Entry, f: &mut Fields<'_>) -> Option<Work> {
        let (role, router, message) = (f.get("role"), f.get("router"), f.get("message"));
        match (role, router) {
            (Some(_), Some(router)) => {
                self.report
                    .add(router.span, format!("node `{node}` has both a role and a router; it is one or the other"));
                None
            }
            (None, None) => {
                let message = format!("node `{node}` says neither `role` nor `router`");
                // A misspelt key is reported as such.
                let slip = |e: &Entry| did_you_mean(&e.key, ["role", "router"]).is_some();
                if !matches!(&entry.value.value, Value::Map(entries) if entries.iter().any(slip)) {
                    self.report.add_with(entry.key_span, message, "say who works here, as in `role: NAME`");
                }
                None
            }
            (Some(role), None) => self.role(node, role, message),
            (None, Some(router)) => {
                if let Some(message) = message {
                    self.report.add(message.span, "a router has no message: it reads what the node before it wrote");
                }
                self.router(router).map(Work::Router)
            }
        }
    }

    fn role(&mut self, node: &NodeName, given: &Node, message: Option<&Node>) -> Option<Work> {
        let message = match message {
            Some(n) => template::decode(n, "`message`", self.report).map(|t| {
                self.places.message(node, n);
                let source = t.source().to_owned();
                self.messages.insert(node.clone(), t);
                source
            }),
            None => None,
        };
        let role = if let Value::Map(_) = given.value {
            let mut f = Fields::open(given, "`role`", self.report)?.at(given.span);
            let from = f.need("from", self.report);
            f.finish(&[], self.report);
            let from = from?;
            self.places.from(node, from.span);
            RoleRef::From(name(from, "a node", NodeName::parse, self.report)?)
        } else {
            RoleRef::Named(self.role_name(given)?)
        };
        Some(Work::Role { role, message })
    }

    fn role_name(&mut self, node: &Node) -> Option<RoleName> {
        let role = name(node, "a role", RoleName::parse, self.report)?;
        if !self.known.roles.contains(&role) {
            let hint = did_you_mean(role.as_str(), self.known.roles.iter().map(RoleName::as_str));
            self.report.push(node.span, format!("there is no role `{role}`"), hint);
        }
        Some(role)
    }

    fn router(&mut self, node: &Node) -> Option<Router> {
        let mut f = Fields::open(node, "`router`", self.report)?;
        let roles = f.need("roles", self.report).and_then(|n| self.candidates(n));
        let confidence = f.get("confidence").and_then(|n| number(n, "`confidence`", 0.0..=1.0, self.report));
        let otherwise = f.get("otherwise").map(|n| self.role_name(n));
        f.finish(&[("next", "the node")], self.report);
        if !self.known.embedding {
            self.report.add_with(
                node.span,
                "a router compares texts, and no model in this catalog has `use: embedding`",
                "define a model with `use: embedding`; a definition of the same name replaces a shipped one",
            );
        }
        Some(Router { roles: roles?, confidence: confidence.unwrap_or(0.0), otherwise: otherwise.flatten() })
    }

    fn candidates(&mut self, node: &Node) -> Option<Vec<RoleName>> {
        const FORM: &str = "`roles` is `all` or a list of roles";
        if let Value::Str(word, _) = &node.value {
            if word != "all" {
                let hint = format!("write `all`, or `[{}]` for this role alone", shown(word));
                self.report.add_with(node.span, format!("{FORM}, not `{}`", shown(word)), hint);
                return None;
            }
            if self.known.with_examples.is_empty() {
                if self.known.complete {
                    self.report.add(node.span, "`all` means every role that has examples, and none has");
                }
                return None;
            }
            return Some(self.known.with_examples.to_vec());
        }
        if !matches!(node.value, Value::List(_)) {
            wrong(node, FORM, self.report);
            return None;
        }
        let nodes = items(node, "`roles`", MAX_NODES, self.report)?;
        if nodes.is_empty() {
            self.report.add(node.span, "a router chooses from at least one role");
        }
        let mut roles = Vec::new();
        for n in nodes {
            match self.role_name(n) {
                Some(role) if roles.contains(&role) => self.report.add(n.span, format!("`{role}` is listed twice")),
                found => roles.extend(found),
            }
        }
        if roles.is_empty() { None } else { Some(roles) }
    }

    fn join(&mut self, node: &NodeName, given: &Node) -> Option<Join> {
        const FORM: &str = "`join` is `all`, `any` or `{quorum: n}`";
        self.places.join(node, given.span);
        match &given.value {
            Value::Str(word, _) => match word.as_str() {
                "all" => Some(Join::All),
                "any" => Some(Join::Any),
                _ => {
                    self.report.add(given.span, format!("{FORM}, not `{}`", shown(word)));
                    None
                }
            },
            Value::Map(_) => {
                let mut f = Fields::open(given, "`join`", self.report)?;
                let quorum = f.need("quorum", self.report);
                let quorum = quorum.and_then(|n| integer(n, "`quorum`", 1..=1000, self.report));
                f.finish(&[], self.report);
                quorum.map(Join::Quorum)
            }
            Value::Int(n @ 1..) => {
                self.report.add_with(
                    given.span,
                    format!("{FORM}, and this is a number"),
                    format!("did you mean `{{quorum: {n}}}`?"),
                );
                None
            }
            _ => {
                wrong(given, FORM, self.report);
                None
            }
        }
    }

    /// Templates forgive what is missing below `nodes`, so a misspelt node would silently be empty.
    fn check_messages(&mut self) {
        let names: Vec<&str> = self.names.iter().map(NodeName::as_str).collect();
        for (node, template) in &self.messages {
            let Some(yaml) = self.places.nodes.get(node).and_then(|spot| spot.message.as_ref()) else { continue };
            for (unknown, mut error) in template.unknown_nodes(|name| names.contains(&name)) {
                error.hint = did_you_mean(&unknown, names.iter().copied())
                    .or_else(|| Some(format!("the nodes of this graph are {}", list(&names))));
                error.report(yaml, self.report);
            }
        }
    }
}
