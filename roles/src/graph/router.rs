//! Router nodes: the candidates, how many are chosen, and by which signals.

use artel_task::event::Signal;
use artel_task::graph::RouterNode;
use artel_task::{RoleName, RouterName};
use artel_yaml::{YamlNode, YamlValue, shown};

use super::MAX_NODES;
use super::decoder::GraphDecoder;
use crate::decode::{MapReader, choice, integer, items, name, number, wrong};
use crate::definition::DefinitionKind;
use crate::keys;

/// The most roles that a router chooses at once: each is a branch of the graph.
pub(super) const MAX_BEST_ROLES: u32 = 16;

impl GraphDecoder<'_, '_, '_> {
    pub(super) fn router(&mut self, node: &YamlNode) -> Option<RouterNode> {
        let mut f = MapReader::open(node, "`router`", &keys::ROUTER_NODE, self.report)?;
        let roles = f.need("roles", self.report).and_then(|n| self.candidates(n));
        let confidence = f.get("confidence").and_then(|n| number(n, "`confidence`", 0.0..=1.0, self.report));
        let otherwise = f.get("otherwise").map(|n| self.role_name(n));
        let best = f.get("best");
        let settings = f.get("settings").and_then(|n| self.settings(n));
        let signals = f.get("signals").map(|n| self.signals(n)).unwrap_or_default();
        f.finish(&[("next", "the node")], self.report);
        if !self.declared.has_embedding_model {
            self.report.error_with_hint(
                node.span,
                "a router needs an embedding model, and no model in this catalog has `use: embedding`",
                "define a model with `use: embedding`; a definition of the same name replaces a shipped one",
            );
        }
        let roles = roles?;
        let best = best.map(|n| {
            let max = u32::try_from(roles.len()).unwrap_or(u32::MAX).min(MAX_BEST_ROLES);
            integer(n, "`best`", 1..=max, self.report)
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

    fn settings(&mut self, node: &YamlNode) -> Option<RouterName> {
        let settings = name(node, "a router's settings", RouterName::parse, self.report)?;
        self.declared.names.report_missing(DefinitionKind::Router, settings.as_str(), node.span, self.report);
        Some(settings)
    }

    fn signals(&mut self, node: &YamlNode) -> Vec<Signal> {
        let words = Signal::ALL.map(|signal| (signal.as_str(), signal));
        let nodes = items(node, "`signals`", Signal::ALL.len(), self.report).unwrap_or_default();
        nodes.iter().filter_map(|n| choice(n, "a signal", &words, self.report)).collect()
    }

    fn candidates(&mut self, node: &YamlNode) -> Option<Vec<RoleName>> {
        const FORM: &str = "`roles` is `all` or a list of roles";
        if let YamlValue::Str(word, _) = &node.value {
            if word != "all" {
                let hint = format!("write `all`, or `[{}]` for this role alone", shown(word));
                self.report.error_with_hint(node.span, format!("{FORM}, not `{}`", shown(word)), hint);
                return None;
            }
            if self.declared.with_examples.is_empty() {
                if self.declared.has_all_roles {
                    self.report.error(node.span, "`all` means every role that has examples, and none has");
                }
                return None;
            }
            return Some(self.declared.with_examples.to_vec());
        }
        if !matches!(node.value, YamlValue::List(_)) {
            wrong(node, FORM, self.report);
            return None;
        }
        let nodes = items(node, "`roles`", MAX_NODES, self.report)?;
        if nodes.is_empty() {
            self.report.error(node.span, "a router chooses from at least one role");
        }
        let mut roles = Vec::new();
        for n in nodes {
            match self.role_name(n) {
                Some(role) if roles.contains(&role) => self.report.error(n.span, format!("`{role}` is listed twice")),
                role => roles.extend(role),
            }
        }
        if roles.is_empty() { None } else { Some(roles) }
    }
}
