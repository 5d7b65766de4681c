//! Questions to people.

use std::time::Duration;

use artel_task::NodeName;
use artel_task::graph::AskNode;
use artel_yaml::{YamlNode, YamlValue};

use super::decoder::GraphDecoder;
use crate::decode::{MapReader, duration, wrong};
use crate::keys;
use crate::portable;
use crate::schema::{Schema, SchemaUse};

/// The longest deadline: a task that waits longer than a year is a mistake.
const MAX_DEADLINE: Duration = Duration::from_secs(365 * 86_400);

impl GraphDecoder<'_, '_, '_> {
    pub(super) fn ask(&mut self, node: &NodeName, given: &YamlNode, mapped: bool) -> Option<AskNode> {
        if let YamlValue::Str(..) = given.value {
            let message = self.message(node, given, mapped)?;
            return Some(AskNode { message, schema: None, deadline: None, otherwise: None });
        }
        let mut f = MapReader::open(given, "`ask`", &keys::ASK, self.report)?.at(given.span);
        let message = f.need("message", self.report).map(|n| self.message(node, n, mapped));
        let schema = f.get("output").map(|n| Schema::decode(n, SchemaUse::Answer, self.report));
        let range = Duration::from_secs(1)..=MAX_DEADLINE;
        let deadline = f.get("deadline").map(|n| duration(n, "`deadline`", range, self.report));
        let otherwise = f.get("otherwise");
        f.finish(&[("next", "the node"), ("join", "the node"), ("for_each", "the node")], self.report);
        let is_invalid = schema.as_ref().is_some_and(Option::is_none) || deadline == Some(None);
        let (schema, deadline) = (schema.flatten(), deadline.flatten());
        if let Some(n) = otherwise {
            self.otherwise(n, schema.as_ref(), deadline.is_some() || is_invalid);
        }
        self.compiled.entry(node.clone()).or_default().answer = schema.clone();
        let (schema, otherwise) = (schema.map(|schema| schema.json().clone()), otherwise.map(YamlNode::json));
        Some(AskNode { message: message??, schema, deadline, otherwise })
    }

    /// The answer after the deadline must be a valid answer.
    fn otherwise(&mut self, n: &YamlNode, schema: Option<&Schema>, has_deadline: bool) {
        if !has_deadline {
            self.report.error_with_hint(
                n.span,
                "`otherwise` has no effect without a `deadline`",
                "add `deadline: 1h`, or remove it",
            );
        }
        portable::check(n, self.report);
        match schema {
            Some(schema) => {
                if let Err(error) = schema.check(&n.json()) {
                    self.report.error(n.span, format!("`otherwise` does not satisfy `output`: {error}"));
                }
            }
            None if matches!(n.value, YamlValue::Str(..)) => {}
            None => wrong(n, "without an `output`, `otherwise` is text", self.report),
        }
    }
}
