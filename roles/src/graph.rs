//! Graphs: from YAML to the parts of an [`artel_task::Graph`], and from its faults back to lines of the file.

mod ask;
mod decoder;
mod edge;
mod fault;
mod node_kind;
mod policy;
mod router;
mod spans;

use std::collections::BTreeMap;
use std::time::Duration;

use artel_router::CandidateProfile;
use artel_task::graph::{Graph, GraphLimits, GraphParts, Node, NodeKind, Reducer, RoleRef};
use artel_task::{GraphName, NodeName, RoleName, ValueName};
use artel_yaml::{Diagnostics, TextStyle, YamlEntry, YamlNode, YamlValue, did_you_mean, shown};

use crate::decode::{MapReader, choice, duration, integer, list, name, text, texts, wrong};
use crate::definition::DefinitionKind;
use crate::keys;
use crate::role::MAX_EXAMPLES;
use decoder::{DONE, GraphDecoder};
use fault::GraphNames;
use policy::ExecutionPolicy;
use spans::{GraphSpans, NodeSpans};

pub(crate) use decoder::{CompiledNode, DeclaredDefinitions};

/// The most nodes of one graph: a graph that a person can still draw has some tens.
const MAX_NODES: usize = 1000;
/// The most values of one graph: each is written by at least one node.
const MAX_VALUES: usize = 256;
/// The longest fallback: a page.
const MAX_FALLBACK_CHARS: usize = 4000;

/// A graph, with the templates and schemas of its nodes.
pub(crate) struct GraphDraft {
    pub(crate) graph: Graph,
    pub(crate) compiled: BTreeMap<NodeName, CompiledNode>,
    /// What a router that chooses among graphs compares.
    pub(crate) profile: CandidateProfile,
}

pub(crate) fn decode(
    graph: &GraphName,
    fields: MapReader<'_>,
    declared: &DeclaredDefinitions<'_>,
    report: &mut Diagnostics<'_>,
) -> Option<GraphDraft> {
    let mut f = fields;
    let description = f.need("description", report).and_then(|n| text(n, "`description`", 1..=2000, report));
    let examples = f.get("examples").map(|n| texts(n, "`examples`", MAX_EXAMPLES, 2000, report)).unwrap_or_default();
    let keywords = f.get("keywords").map(|n| texts(n, "`keywords`", 256, 100, report)).unwrap_or_default();
    let start = f.need("start", report).and_then(|n| Some((name(n, "a node", NodeName::parse, report)?, n.span)));
    let result = f.get("result").map(|n| Some((name(n, "a node", NodeName::parse, report)?, n.span)));
    let limits = f.get("limits").map(|n| limits(n, report)).unwrap_or_default();
    let nodes = f.need("nodes", report).and_then(|n| entries(n, report));
    let values = f.get("reduce").map(|n| values(n, report)).unwrap_or_default();
    let fallback = f.get("fallback").and_then(|n| text(n, "`fallback`", 1..=MAX_FALLBACK_CHARS, report));
    let is_incomplete = start.is_none() || matches!(result, Some(None)) || nodes.is_none();
    let homes = ["steps", "tokens", "time"].map(|key| (key, "limits"));
    f.finish(&homes, report);

    let nodes = nodes.unwrap_or_default();
    let names = nodes.iter().filter_map(|e| NodeName::parse(&e.key).ok()).collect();
    let (spans, compiled) = (GraphSpans::default(), BTreeMap::new());
    let mut decoder = GraphDecoder { declared, report, graph, names, values, compiled, spans, is_incomplete };
    let nodes: BTreeMap<NodeName, Node> = nodes.iter().filter_map(|e| decoder.node(e)).collect();
    decoder.check_messages();
    let GraphDecoder { is_incomplete: false, report, names, values, compiled, mut spans, .. } = decoder else {
        return None;
    };
    let (start, start_span) = start?;
    spans.start = start_span;
    let result = result.flatten().map(|(node, span)| {
        spans.result = span;
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
    let names = GraphNames { nodes: &names, values: parts.values.keys().cloned().collect() };
    match Graph::new(parts) {
        Ok(graph) => description.map(|description| {
            let profile = CandidateProfile { description, examples, keywords };
            GraphDraft { graph, compiled, profile }
        }),
        Err(faults) => {
            faults.iter().for_each(|fault| spans.report(fault, &names, report));
            None
        }
    }
}

/// The definitions that a node names; a node that takes its role from a router names none.
pub(crate) fn uses(work: &NodeKind) -> Vec<(DefinitionKind, String)> {
    let role = |role: &RoleName| (DefinitionKind::Role, role.to_string());
    match work {
        NodeKind::Role { role: RoleRef::Named(name), .. } => vec![role(name)],
        NodeKind::Role { role: RoleRef::From(_) | RoleRef::Ranked(..), .. } | NodeKind::Ask(_) | NodeKind::Check(_) => {
            Vec::new()
        }
        NodeKind::Router(router) => {
            let settings = router.settings.as_ref().map_or(crate::routing::DEFAULT_ROUTER, |name| name.as_str());
            let roles = router.roles.iter().chain(&router.otherwise).map(role);
            roles.chain([(DefinitionKind::Router, settings.to_owned())]).collect()
        }
        NodeKind::Graph { graph, .. } => vec![(DefinitionKind::Graph, graph.name().to_string())],
        NodeKind::Search(search) => vec![(DefinitionKind::Knowledge, search.knowledge.to_string())],
    }
}

fn entries<'n>(node: &'n YamlNode, report: &mut Diagnostics<'_>) -> Option<&'n [YamlEntry]> {
    match &node.value {
        YamlValue::Map(entries) if entries.is_empty() => report.error(node.span, "a graph has at least one node"),
        YamlValue::Map(entries) if entries.len() <= MAX_NODES => return Some(entries),
        YamlValue::Map(entries) => {
            report.error(node.span, format!("the graph has {} nodes, the limit is {MAX_NODES}", entries.len()));
        }
        _ => wrong(node, "`nodes` is a map from names to nodes", report),
    }
    None
}

/// The values that several nodes write.
fn values(node: &YamlNode, report: &mut Diagnostics<'_>) -> BTreeMap<ValueName, Reducer> {
    const REDUCERS: [(&str, Reducer); 3] =
        [("last", Reducer::Last), ("append", Reducer::Append), ("merge", Reducer::Merge)];
    let YamlValue::Map(entries) = &node.value else {
        wrong(node, "`reduce` is a map from values to `last`, `append` or `merge`", report);
        return BTreeMap::new();
    };
    if entries.len() > MAX_VALUES {
        report.error(node.span, format!("the graph has {} values, the limit is {MAX_VALUES}", entries.len()));
    }
    let mut values = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.refused).take(MAX_VALUES) {
        let named = YamlNode { span: entry.key_span, value: YamlValue::Str(entry.key.clone(), TextStyle::Flow) };
        let value = name(&named, "a value", ValueName::parse, report);
        let reducer = choice(&entry.value, &format!("the reducer of `{}`", shown(&entry.key)), &REDUCERS, report);
        // A value with a bad reducer can still be referred to.
        values.extend(value.map(|value| (value, reducer.unwrap_or(Reducer::Last))));
    }
    values
}

fn limits(node: &YamlNode, report: &mut Diagnostics<'_>) -> GraphLimits {
    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    let base = GraphLimits::default();
    let Some(mut f) = MapReader::open(node, "`limits`", &keys::GRAPH_LIMITS, report) else { return base };
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

impl GraphDecoder<'_, '_, '_> {
    /// A node; `None` if too much of it is invalid for a place in the graph.
    fn node(&mut self, entry: &YamlEntry) -> Option<(NodeName, Node)> {
        let node = self.try_node(entry);
        self.is_incomplete |= node.is_none();
        node
    }

    fn try_node(&mut self, entry: &YamlEntry) -> Option<(NodeName, Node)> {
        let key = &entry.key;
        if entry.refused {
            return None;
        }
        if key == DONE {
            self.report.error(entry.key_span, "a node cannot be named `done`: that name ends a branch");
            return None;
        }
        let named = YamlNode { span: entry.key_span, value: YamlValue::Str(key.clone(), TextStyle::Flow) };
        let node = name(&named, "a node", NodeName::parse, self.report)?;
        let mut f =
            MapReader::open(&entry.value, &format!("the node `{key}`"), &keys::NODE, self.report)?.at(entry.key_span);
        self.spans.nodes.insert(node.clone(), NodeSpans::new(entry.key_span));
        if let Some(tool) = f.entry("tool") {
            self.report.error(tool.key_span, "node kind `tool` is not available in this version");
            return None;
        }
        let each = f.get("for_each").map(|n| self.each(n));
        let work = self.node_kind(&node, entry, &mut f, each.is_some());
        let policy = self.execution_policy(&node, &mut f);
        let join = f.get("join").map(|n| self.join(&node, n));
        let next = f.get("next").map(|n| self.edges(&node, n));
        let on_failure = f.get("on_failure").map(|n| self.failure_edge(&node, n));
        let write = f.get("write").map(|n| name(n, "a value", ValueName::parse, self.report));
        let passages = f.get("passages").map(|n| {
            self.spans.from(&node, n.span);
            name(n, "a node", NodeName::parse, self.report)
        });
        if let Some(n) = f.entry("write") {
            self.spans.write(&node, n.value.span);
        }
        f.finish(
            &[
                ("to", "next"),
                ("when", "next"),
                ("at_most", "next"),
                ("otherwise", "router` or `ask"),
                ("deadline", "ask"),
                ("output", "ask` or `role"),
                ("confidence", "router"),
                ("from", "role"),
                ("parallel", "for_each"),
            ],
            self.report,
        );
        let failed = [
            each == Some(None),
            join == Some(None),
            next == Some(None),
            on_failure == Some(None),
            write == Some(None),
            passages == Some(None),
        ];
        self.is_incomplete |= failed.contains(&true);
        let (next, on_failure) = (next.flatten().unwrap_or_default(), on_failure.flatten());
        let (each, join, write) = (each.flatten(), join.flatten(), write.flatten());
        let ExecutionPolicy { effort, effect, cache } = policy;
        Some((
            node,
            Node {
                kind: work?,
                for_each: each,
                join,
                next,
                on_failure,
                policy: effort,
                replay_safety: effect,
                cache,
                write,
                passages: passages.flatten(),
            },
        ))
    }

    /// A template renders a missing node as nothing, so a misspelt name would silently be empty.
    fn check_messages(&mut self) {
        let nodes: Vec<&str> = self.names.iter().map(NodeName::as_str).collect();
        let values: Vec<&str> = self.values.keys().map(ValueName::as_str).collect();
        for (node, compiled) in &self.compiled {
            let Some(yaml) = self.spans.nodes.get(node).and_then(|spans| spans.message.as_ref()) else { continue };
            let Some(template) = &compiled.message else { continue };
            for (map, what, names) in [("nodes", "node", &nodes), ("values", "value", &values)] {
                for (unknown, mut error) in template.unknown_below(map, what, |name| names.contains(&name)) {
                    let all = || format!("the {map} of this graph are {}", list(names));
                    let none = || "name it in the graph's `reduce`".to_owned();
                    let near = did_you_mean(&unknown, names.iter().copied());
                    error.hint = near.or_else(|| Some(if names.is_empty() { none() } else { all() }));
                    error.report(yaml, self.report);
                }
            }
        }
    }
}
