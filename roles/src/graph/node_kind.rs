//! The kinds of nodes: a role, a router, a question to a person, a search, a check, another graph.

use std::collections::BTreeSet;

use artel_task::graph::{NodeKind, RoleRef, SearchNode};
use artel_task::{GraphName, KnowledgeName, NodeName, RoleName};
use artel_yaml::{YamlEntry, YamlNode, YamlValue, did_you_mean};

use super::decoder::GraphDecoder;
use super::router;
use crate::decode::{MapReader, integer, list, name};
use crate::definition::DefinitionKind;
use crate::keys;
use crate::knowledge::MAX_TOP_PASSAGES;
use crate::template;

/// The keys that give a node its kind.
const KINDS: [&str; 6] = ["role", "router", "ask", "search", "check", "graph"];

impl GraphDecoder<'_, '_, '_> {
    /// The kind of a node. `mapped` says whether it has a `for_each`.
    pub(super) fn node_kind(
        &mut self,
        node: &NodeName,
        entry: &YamlEntry,
        f: &mut MapReader<'_>,
        mapped: bool,
    ) -> Option<NodeKind> {
        let kinds = KINDS.map(|kind| f.get(kind).map(|n| (kind, n)));
        let message = f.get("message");
        let mut given = kinds.into_iter().flatten();
        let Some((kind, given_kind)) = given.next() else {
            let message = format!("node `{node}` has none of {}", list(&KINDS));
            // A misspelt key is reported as such.
            let is_slip = |e: &YamlEntry| did_you_mean(&e.key, KINDS).is_some();
            if !matches!(&entry.value.value, YamlValue::Map(entries) if entries.iter().any(is_slip)) {
                self.report.error_with_hint(entry.key_span, message, "give it a kind, as in `role: NAME`");
            }
            return None;
        };
        if let Some((other, n)) = given.next() {
            let message = format!("node `{node}` has both `{kind}` and `{other}`; it is one or the other");
            self.report.error(n.span, message);
            return None;
        }
        match kind {
            "role" => self.role(node, given_kind, message, mapped),
            "graph" => self.graph(node, given_kind, message, mapped),
            "ask" => {
                if let Some(message) = message {
                    self.report.error(message.span, "the `message` of a question belongs in `ask`");
                }
                self.ask(node, given_kind, mapped).map(NodeKind::Ask)
            }
            "search" => {
                if let Some(message) = message {
                    self.report.error(message.span, "the question of a search is the `query` in `search`");
                }
                self.search(node, given_kind, mapped).map(NodeKind::Search)
            }
            "check" => {
                for (key, n) in [("message", message), ("for_each", f.get("for_each"))] {
                    if let Some(n) = n {
                        self.report
                            .error(n.span, format!("a check has no `{key}`: it reads one answer and its passages"));
                    }
                }
                name(given_kind, "a node", NodeName::parse, self.report).map(NodeKind::Check)
            }
            _ => {
                if let Some(message) = message {
                    self.report
                        .error(message.span, "a router has no message: it reads the output of the node before it");
                }
                self.router(given_kind).map(NodeKind::Router)
            }
        }
    }

    /// The message of a node, which is kept with its span.
    pub(super) fn message(&mut self, node: &NodeName, n: &YamlNode, mapped: bool) -> Option<String> {
        let template = template::decode(n, "`message`", self.report)?;
        self.spans.message(node, n);
        if !mapped && let Some(error) = template.reads_item() {
            error.report(n, self.report);
        }
        let source = template.source().to_owned();
        self.compiled.entry(node.clone()).or_default().message = Some(template);
        Some(source)
    }

    fn graph(
        &mut self,
        node: &NodeName,
        given: &YamlNode,
        message: Option<&YamlNode>,
        mapped: bool,
    ) -> Option<NodeKind> {
        let message = message.and_then(|n| self.message(node, n, mapped));
        self.spans.from(node, given.span);
        let graph = name(given, "a graph", GraphName::parse, self.report)?;
        if !self.declared.names.has(DefinitionKind::Graph, graph.as_str()) {
            self.declared.names.report_missing(DefinitionKind::Graph, graph.as_str(), given.span, self.report);
            return None;
        }
        if let Some(path) = self.path_back(graph.as_str()) {
            let message = format!("graph `{}` would run inside of itself: {}", self.graph, path.join(" -> "));
            self.report.error(given.span, message);
            return None;
        }
        // A graph that could not be read has its own errors.
        let graph = self.declared.graphs.get(&graph)?.clone();
        Some(NodeKind::Graph { graph, message })
    }

    /// The graphs on the path from this one through another back to it.
    fn path_back(&self, through: &str) -> Option<Vec<String>> {
        let mut paths = vec![vec![self.graph.to_string(), through.to_owned()]];
        let mut seen = BTreeSet::new();
        while let Some(path) = paths.pop() {
            let last = path.last()?.clone();
            if last == self.graph.as_str() {
                return Some(path);
            }
            if seen.insert(last.clone()) {
                let next = self.declared.inner_graphs.get(&last).into_iter().flatten();
                paths.extend(next.map(|next| path.iter().cloned().chain([next.clone()]).collect()));
            }
        }
        None
    }

    fn role(
        &mut self,
        node: &NodeName,
        given: &YamlNode,
        message: Option<&YamlNode>,
        mapped: bool,
    ) -> Option<NodeKind> {
        let message = message.and_then(|n| self.message(node, n, mapped));
        let role = if let YamlValue::Map(_) = given.value {
            let mut f = MapReader::open(given, "`role`", &keys::CHOSEN_ROLE, self.report)?.at(given.span);
            let from = f.need("from", self.report);
            let rank = f.get("rank").map(|n| integer(n, "`rank`", 1..=router::MAX_BEST_ROLES, self.report));
            f.finish(&[], self.report);
            let from = from?;
            self.spans.from(node, from.span);
            let router = name(from, "a node", NodeName::parse, self.report)?;
            match rank.map_or(Some(1), |rank| rank)? {
                1 => RoleRef::From(router),
                rank => RoleRef::Ranked(router, rank),
            }
        } else {
            RoleRef::Named(self.role_name(given)?)
        };
        Some(NodeKind::Role { role, message })
    }

    fn search(&mut self, node: &NodeName, given: &YamlNode, mapped: bool) -> Option<SearchNode> {
        let mut f = MapReader::open(given, "`search`", &keys::SEARCH_NODE, self.report)?.at(given.span);
        let knowledge = f.need("knowledge", self.report);
        let query = f.get("query").map(|n| self.message(node, n, mapped));
        let top = f.get("top").map(|n| integer(n, "`top`", 1..=MAX_TOP_PASSAGES, self.report));
        f.finish(&[("next", "the node")], self.report);
        let knowledge = knowledge?;
        let name = name(knowledge, "a knowledge", KnowledgeName::parse, self.report)?;
        self.declared.names.report_missing(DefinitionKind::Knowledge, name.as_str(), knowledge.span, self.report);
        let query = query.unwrap_or_else(|| Some(String::new()))?;
        Some(SearchNode { knowledge: name, query, top: top.map_or(Some(None), |top| top.map(Some))? })
    }

    pub(super) fn role_name(&mut self, node: &YamlNode) -> Option<RoleName> {
        let role = name(node, "a role", RoleName::parse, self.report)?;
        self.declared.names.report_missing(DefinitionKind::Role, role.as_str(), node.span, self.report);
        Some(role)
    }
}
