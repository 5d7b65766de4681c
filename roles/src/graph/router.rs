//! Router nodes: who is chosen from, how many, and by which signals.

use artel_task::event::Signal;
use artel_task::graph::RouterNode;
use artel_task::{RoleName, RouterName};

use super::{MAX_NODES, Reader};
use crate::decode::{Fields, choice, integer, items, name, number, wrong};
use crate::node::{Node, Value};
use crate::problem::{did_you_mean, shown};

/// The most roles that a router chooses at once: each is a branch that somebody drew.
pub(super) const MAX_BEST: u32 = 16;

impl Reader<'_, '_, '_> {
    pub(super) fn router(&mut self, node: &Node) -> Option<RouterNode> {
        let mut f = Fields::open(node, "`router`", self.report)?;
        let roles = f.need("roles", self.report).and_then(|n| self.candidates(n));
        let confidence = f.get("confidence").and_then(|n| number(n, "`confidence`", 0.0..=1.0, self.report));
        let otherwise = f.get("otherwise").map(|n| self.role_name(n));
        let best = f.get("best");
        let settings = f.get("settings").and_then(|n| self.settings(n));
        let signals = f.get("signals").map(|n| self.signals(n)).unwrap_or_default();
        f.finish(&[("next", "the node")], self.report);
        if !self.known.embedding {
            self.report.add_with(
                node.span,
                "a router compares texts, and no model in this catalog has `use: embedding`",
                "define a model with `use: embedding`; a definition of the same name replaces a shipped one",
            );
        }
        let roles = roles?;
        let best = best.map(|n| {
            let most = u32::try_from(roles.len()).unwrap_or(u32::MAX).min(MAX_BEST);
            integer(n, "`best`", 1..=most, self.report)
        });
        Some(RouterNode {
            roles,
            confidence: confidence.unwrap_or(0.0),
            otherwise: otherwise.flatten(),
            best: best.map_or(Some(0), |best| best)?,
            settings,
            signals,
        })
    }

    fn settings(&mut self, node: &Node) -> Option<RouterName> {
        let settings = name(node, "a router's settings", RouterName::parse, self.report)?;
        if !self.known.routers.contains(settings.as_str()) {
            let hint = did_you_mean(settings.as_str(), self.known.routers.iter().map(String::as_str));
            self.report.push(node.span, format!("there is no router `{settings}`"), hint);
        }
        Some(settings)
    }

    fn signals(&mut self, node: &Node) -> Vec<Signal> {
        let words = Signal::ALL.map(|signal| (signal.as_str(), signal));
        let nodes = items(node, "`signals`", Signal::ALL.len(), self.report).unwrap_or_default();
        nodes.iter().filter_map(|n| choice(n, "a signal", &words, self.report)).collect()
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
