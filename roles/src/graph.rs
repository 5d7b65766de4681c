//! Graphs: from YAML to the parts of an [`artel_task::Graph`], and its faults back to places in the file.

mod ask;
mod edge;
mod fault;
mod how;
mod router;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use artel_task::graph::{Graph, GraphLimits, Node as Place, GraphParts, Reducer, RoleRef, NodeKind};
use artel_task::{GraphName, NodeName, RoleName, ValueName};

use crate::catalog::Kind;
use crate::decode::{Fields, choice, duration, integer, list, name, text, wrong};
use crate::node::{Entry, Node, Style, Value};
use crate::problem::{Report, did_you_mean, shown};
use crate::role::{MAX_EXAMPLES, texts};
use crate::routing::Topic;
use crate::schema::Schema;
use crate::template::Template;
use fault::{Names, Places, Spot};
use how::How;

/// The most nodes of one graph: what a person can still draw has some tens.
const MAX_NODES: usize = 1000;
/// The name that ends a branch.
pub(crate) const DONE: &str = "done";
/// The most values of one graph.
const MAX_VALUES: usize = 256;
/// The longest fallback, in characters: a page.
const MAX_FALLBACK: usize = 4000;

/// What a graph may refer to.
pub(crate) struct Known<'a> {
    /// Every role that is defined, well or badly.
    pub(crate) roles: &'a BTreeSet<RoleName>,
    /// Every router's settings that are defined, well or badly.
    pub(crate) routers: &'a BTreeSet<String>,
    /// The roles that have examples.
    pub(crate) with_examples: &'a [RoleName],
    /// Whether every role could be read.
    pub(crate) complete: bool,
    /// Whether there is a model that routers can compare texts with.
    pub(crate) embedding: bool,
    /// Every graph that is defined, well or badly.
    pub(crate) declared: &'a BTreeSet<String>,
    /// The graphs that could be read.
    pub(crate) graphs: &'a BTreeMap<GraphName, Arc<Graph>>,
    /// Which graphs each graph runs, as written.
    pub(crate) runs: &'a BTreeMap<String, BTreeSet<String>>,
}

/// A graph and what its nodes say and ask.
pub(crate) struct Draft {
    pub(crate) graph: Graph,
    pub(crate) words: BTreeMap<NodeName, Words>,
    /// What a router that chooses among graphs knows of it.
    pub(crate) topic: Topic,
}

/// What a node says in its place, and what it wants to hear.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words {
    pub(crate) message: Option<Template>,
    pub(crate) schema: Option<Schema>,
}

/// A graph that is being read.
struct Reader<'a, 's, 'r> {
    known: &'a Known<'a>,
    report: &'r mut Report<'s>,
    graph: &'a GraphName,
    names: BTreeSet<NodeName>,
    values: BTreeMap<ValueName, Reducer>,
    words: BTreeMap<NodeName, Words>,
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
    let examples = f.get("examples").map(|n| texts(n, "`examples`", MAX_EXAMPLES, 2000, report)).unwrap_or_default();
    let keywords = f.get("keywords").map(|n| texts(n, "`keywords`", 256, 100, report)).unwrap_or_default();
    let start = f.need("start", report).and_then(|n| Some((name(n, "a node", NodeName::parse, report)?, n.span)));
    let result = f.get("result").map(|n| Some((name(n, "a node", NodeName::parse, report)?, n.span)));
    let limits = f.get("limits").map(|n| limits(n, report)).unwrap_or_default();
    let nodes = f.need("nodes", report).and_then(|n| entries(n, report));
    let values = f.get("reduce").map(|n| values(n, report)).unwrap_or_default();
    let fallback = f.get("fallback").and_then(|n| text(n, "`fallback`", 1..=MAX_FALLBACK, report));
    let holes = start.is_none() || matches!(result, Some(None)) || nodes.is_none();
    let homes = ["steps", "tokens", "time"].map(|key| (key, "limits"));
    f.finish(&homes, report);

    let nodes = nodes.unwrap_or_default();
    let names = nodes.iter().filter_map(|e| NodeName::parse(&e.key).ok()).collect();
    let (places, words) = (Places::default(), BTreeMap::new());
    let mut reader = Reader { known, report, graph, names, values, words, places, holes };
    let nodes: BTreeMap<NodeName, Place> = nodes.iter().filter_map(|e| reader.node(e)).collect();
    reader.check_messages();
    let Reader { holes: false, report, names, values, words, mut places, .. } = reader else { return None };
    let (start, start_span) = start?;
    places.start = start_span;
    let result = result.flatten().map(|(node, span)| {
        places.result = span;
        node
    });
    let parts = GraphParts {
        name: graph.clone(),
        description: description.clone().unwrap_or_default(),
        start,
        result,
        nodes,
        limits,
        values,
        fallback,
    };
    let known = Names { nodes: &names, values: parts.values.keys().cloned().collect() };
    match Graph::new(parts) {
        Ok(graph) => description.map(|description| {
            let topic = Topic { description, examples, keywords };
            Draft { graph, words, topic }
        }),
        Err(faults) => {
            faults.iter().for_each(|fault| places.report(fault, &known, report));
            None
        }
    }
}

/// The definitions that a node names itself; one that takes its role from a router names none.
pub(crate) fn uses(work: &NodeKind) -> Vec<(Kind, String)> {
    let role = |role: &RoleName| (Kind::Role, role.to_string());
    match work {
        NodeKind::Role { role: RoleRef::Named(name), .. } => vec![role(name)],
        NodeKind::Role { role: RoleRef::From(_) | RoleRef::Ranked(..), .. } | NodeKind::Ask(_) => Vec::new(),
        NodeKind::Router(router) => {
            let settings = router.settings.as_ref().map_or(crate::routing::DEFAULT, |name| name.as_str());
            let roles = router.roles.iter().chain(&router.otherwise).map(role);
            roles.chain([(Kind::Router, settings.to_owned())]).collect()
        }
        NodeKind::Graph { graph, .. } => vec![(Kind::Graph, graph.name().to_string())],
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

/// The values that nodes write together.
fn values(node: &Node, report: &mut Report<'_>) -> BTreeMap<ValueName, Reducer> {
    const HOW: [(&str, Reducer); 3] = [("last", Reducer::Last), ("append", Reducer::Append), ("merge", Reducer::Merge)];
    let Value::Map(entries) = &node.value else {
        wrong(node, "`reduce` is a map from values to `last`, `append` or `merge`", report);
        return BTreeMap::new();
    };
    if entries.len() > MAX_VALUES {
        report.add(node.span, format!("the graph has {} values, the limit is {MAX_VALUES}", entries.len()));
    }
    let mut values = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.refused).take(MAX_VALUES) {
        let named = Node { span: entry.key_span, value: Value::Str(entry.key.clone(), Style::Flow) };
        let value = name(&named, "a value", ValueName::parse, report);
        let how = choice(&entry.value, &format!("how `{}` is made", shown(&entry.key)), &HOW, report);
        // One that is broken is there all the same.
        values.extend(value.map(|value| (value, how.unwrap_or(Reducer::Last))));
    }
    values
}

fn limits(node: &Node, report: &mut Report<'_>) -> GraphLimits {
    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    let base = GraphLimits::default();
    let Some(mut f) = Fields::open(node, "`limits`", report) else { return base };
    let steps = f.get("steps").and_then(|n| integer(n, "`steps`", 1..=100_000, report));
    let tokens = f.get("tokens").and_then(|n| integer(n, "`tokens`", 1..=1_000_000_000, report));
    let time = f.get("time").and_then(|n| duration(n, "`time`", Duration::from_secs(1)..=WEEK, report));
    f.finish(&[], report);
    GraphLimits {
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
        let named = Node { span: entry.key_span, value: Value::Str(key.clone(), Style::Flow) };
        let node = name(&named, "a node", NodeName::parse, self.report)?;
        let mut f = Fields::open(&entry.value, &format!("the node `{key}`"), self.report)?.at(entry.key_span);
        self.places.nodes.insert(node.clone(), Spot::new(entry.key_span));
        if let Some(tool) = f.entry("tool") {
            self.report.add(tool.key_span, "node kind `tool` is not available in this version");
            return None;
        }
        let each = f.get("for_each").map(|n| self.each(n));
        let work = self.work(&node, entry, &mut f, each.is_some());
        let how = self.how(&node, &mut f);
        let join = f.get("join").map(|n| self.join(&node, n));
        let next = f.get("next").map(|n| self.edges(&node, n));
        let on_failure = f.get("on_failure").map(|n| self.failure_edge(&node, n));
        let write = f.get("write").map(|n| name(n, "a value", ValueName::parse, self.report));
        if let Some(n) = f.entry("write") {
            self.places.write(&node, n.value.span);
        }
        f.finish(
            &[
                ("to", "next"),
                ("when", "next"),
                ("at_most", "next"),
                ("otherwise", "router` or `ask"),
                ("deadline", "ask"),
                ("output", "ask` or into the role"),
                ("confidence", "router"),
                ("from", "role"),
                ("parallel", "for_each"),
            ],
            self.report,
        );
        let broken =
            [each == Some(None), join == Some(None), next == Some(None), on_failure == Some(None), write == Some(None)];
        self.holes |= broken.contains(&true);
        let (next, on_failure) = (next.flatten().unwrap_or_default(), on_failure.flatten());
        let (each, join, write) = (each.flatten(), join.flatten(), write.flatten());
        let How { effort, effect, cache } = how;
        Some((node, Place { kind: work?, for_each: each, join, next, on_failure, policy: effort, replay_safety: effect, cache, write }))
    }

    /// Templates forgive what is missing below `nodes`, so a misspelt node would silently be empty.
    fn check_messages(&mut self) {
        let nodes: Vec<&str> = self.names.iter().map(NodeName::as_str).collect();
        let values: Vec<&str> = self.values.keys().map(ValueName::as_str).collect();
        for (node, words) in &self.words {
            let Some(yaml) = self.places.nodes.get(node).and_then(|spot| spot.message.as_ref()) else { continue };
            let Some(template) = &words.message else { continue };
            for (map, what, names) in [("nodes", "node", &nodes), ("values", "value", &values)] {
                for (unknown, mut error) in template.unknown_below(map, what, |name| names.contains(&name)) {
                    let known = || format!("the {map} of this graph are {}", list(names));
                    let none = || "name it in the graph's `reduce`".to_owned();
                    let near = did_you_mean(&unknown, names.iter().copied());
                    error.hint = near.or_else(|| Some(if names.is_empty() { none() } else { known() }));
                    error.report(yaml, self.report);
                }
            }
        }
    }
}
