//! Who works at a node: a role, a router, a person, another graph.

use std::collections::BTreeSet;

use artel_task::graph::{RoleRef, NodeKind};
use artel_task::{GraphName, NodeName, RoleName};

use super::{Reader, router};
use crate::decode::{Fields, integer, list, name};
use crate::node::{Entry, Node, Value};
use crate::problem::did_you_mean;
use crate::template;

/// The kinds of nodes.
const KINDS: [&str; 4] = ["role", "router", "ask", "graph"];

impl Reader<'_, '_, '_> {
    /// Who works at a node. `mapped` is whether it has items.
    pub(super) fn work(&mut self, node: &NodeName, entry: &Entry, f: &mut Fields<'_>, mapped: bool) -> Option<NodeKind> {
        let kinds = KINDS.map(|kind| f.get(kind).map(|n| (kind, n)));
        let message = f.get("message");
        let mut given = kinds.into_iter().flatten();
        let Some((kind, given_kind)) = given.next() else {
            let message = format!("node `{node}` says none of {}", list(&KINDS));
            // A misspelt key is reported as such.
            let slip = |e: &Entry| did_you_mean(&e.key, KINDS).is_some();
            if !matches!(&entry.value.value, Value::Map(entries) if entries.iter().any(slip)) {
                self.report.add_with(entry.key_span, message, "say who works here, as in `role: NAME`");
            }
            return None;
        };
        if let Some((other, n)) = given.next() {
            let message = format!("node `{node}` has both `{kind}` and `{other}`; it is one or the other");
            self.report.add(n.span, message);
            return None;
        }
        match kind {
            "role" => self.role(node, given_kind, message, mapped),
            "graph" => self.graph(node, given_kind, message, mapped),
            "ask" => {
                if let Some(message) = message {
                    self.report.add(message.span, "the `message` of a question belongs into `ask`");
                }
                self.ask(node, given_kind, mapped).map(NodeKind::Ask)
            }
            _ => {
                if let Some(message) = message {
                    self.report.add(message.span, "a router has no message: it reads what the node before it wrote");
                }
                self.router(given_kind).map(NodeKind::Router)
            }
        }
    }

    /// A message of a node, which is kept with its place.
    pub(super) fn message(&mut self, node: &NodeName, n: &Node, mapped: bool) -> Option<String> {
        let template = template::decode(n, "`message`", self.report)?;
        self.places.message(node, n);
        if !mapped && let Some(error) = template.reads("item") {
            error.report(n, self.report);
        }
        let source = template.source().to_owned();
        self.words.entry(node.clone()).or_default().message = Some(template);
        Some(source)
    }

    fn graph(&mut self, node: &NodeName, given: &Node, message: Option<&Node>, mapped: bool) -> Option<NodeKind> {
        let message = message.and_then(|n| self.message(node, n, mapped));
        self.places.from(node, given.span);
        let graph = name(given, "a graph", GraphName::parse, self.report)?;
        if !self.known.declared.contains(graph.as_str()) {
            let hint = did_you_mean(graph.as_str(), self.known.declared.iter().map(String::as_str));
            self.report.push(given.span, format!("there is no graph `{graph}`"), hint);
            return None;
        }
        if let Some(way) = self.way_back(graph.as_str()) {
            let message = format!("graph `{}` would run inside of itself: {}", self.graph, way.join(" -> "));
            self.report.add(given.span, message);
            return None;
        }
        // One that could not be read has its own report.
        let graph = self.known.graphs.get(&graph)?.clone();
        Some(NodeKind::Graph { graph, message })
    }

    /// The graphs on the way from this one over another back to it.
    fn way_back(&self, over: &str) -> Option<Vec<String>> {
        let mut ways = vec![vec![self.graph.to_string(), over.to_owned()]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            let last = way.last()?.clone();
            if last == self.graph.as_str() {
                return Some(way);
            }
            if seen.insert(last.clone()) {
                let next = self.known.runs.get(&last).into_iter().flatten();
                ways.extend(next.map(|next| way.iter().cloned().chain([next.clone()]).collect()));
            }
        }
        None
    }

    fn role(&mut self, node: &NodeName, given: &Node, message: Option<&Node>, mapped: bool) -> Option<NodeKind> {
        let message = message.and_then(|n| self.message(node, n, mapped));
        let role = if let Value::Map(_) = given.value {
            let mut f = Fields::open(given, "`role`", self.report)?.at(given.span);
            let from = f.need("from", self.report);
            let rank = f.get("rank").map(|n| integer(n, "`rank`", 1..=router::MAX_BEST, self.report));
            f.finish(&[], self.report);
            let from = from?;
            self.places.from(node, from.span);
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

    pub(super) fn role_name(&mut self, node: &Node) -> Option<RoleName> {
        let role = name(node, "a role", RoleName::parse, self.report)?;
        if !self.known.roles.contains(&role) {
            let hint = did_you_mean(role.as_str(), self.known.roles.iter().map(RoleName::as_str));
            self.report.push(node.span, format!("there is no role `{role}`"), hint);
        }
        Some(role)
    }
}
