//! Who works at a node: a role, a router, a person, another graph.

use std::collections::BTreeSet;

use artel_task::graph::{RoleRef, Router, Work};
use artel_task::{GraphName, NodeName, RoleName};

use super::{MAX_NODES, Reader};
use crate::decode::{Fields, items, list, name, number, wrong};
use crate::node::{Entry, Node, Value};
use crate::problem::{did_you_mean, shown};
use crate::template;

/// The kinds of nodes.
const KINDS: [&str; 4] = ["role", "router", "ask", "graph"];

impl Reader<'_, '_, '_> {
    /// Who works at a node. `mapped` is whether it has items.
    pub(super) fn work(&mut self, node: &NodeName, entry: &Entry, f: &mut Fields<'_>, mapped: bool) -> Option<Work> {
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
                self.ask(node, given_kind, mapped).map(Work::Ask)
            }
            _ => {
                if let Some(message) = message {
                    self.report.add(message.span, "a router has no message: it reads what the node before it wrote");
                }
                self.router(given_kind).map(Work::Router)
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

    fn graph(&mut self, node: &NodeName, given: &Node, message: Option<&Node>, mapped: bool) -> Option<Work> {
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
        Some(Work::Graph { graph, message })
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

    fn role(&mut self, node: &NodeName, given: &Node, message: Option<&Node>, mapped: bool) -> Option<Work> {
        let message = message.and_then(|n| self.message(node, n, mapped));
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
}
