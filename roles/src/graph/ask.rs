//! Questions to people.

use std::time::Duration;

use artel_task::NodeName;
use artel_task::graph::AskNode;

use super::Reader;
use crate::decode::{Fields, duration, wrong};
use crate::node::{Node, Value};
use crate::schema::Schema;

/// The longest deadline: what is asked for longer than a year is not waited for.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

impl Reader<'_, '_, '_> {
    pub(super) fn ask(&mut self, node: &NodeName, given: &Node, mapped: bool) -> Option<AskNode> {
        if let Value::Str(..) = given.value {
            let message = self.message(node, given, mapped)?;
            return Some(AskNode { message, schema: None, deadline: None, otherwise: None });
        }
        let mut f = Fields::open(given, "`ask`", self.report)?.at(given.span);
        let message = f.need("message", self.report).map(|n| self.message(node, n, mapped));
        let schema = f.get("output").map(|n| Schema::decode(n, self.report));
        let range = Duration::from_secs(1)..=YEAR;
        let deadline = f.get("deadline").map(|n| duration(n, "`deadline`", range, self.report));
        let otherwise = f.get("otherwise");
        f.finish(&[("next", "the node"), ("join", "the node"), ("for_each", "the node")], self.report);
        let broken = schema.as_ref().is_some_and(Option::is_none) || deadline == Some(None);
        let (schema, deadline) = (schema.flatten(), deadline.flatten());
        if let Some(n) = otherwise {
            self.otherwise(n, schema.as_ref(), deadline.is_some() || broken);
        }
        self.words.entry(node.clone()).or_default().schema = schema.clone();
        let (schema, otherwise) = (schema.map(|schema| schema.json().clone()), otherwise.map(Node::json));
        Some(AskNode { message: message??, schema, deadline, otherwise })
    }

    /// What holds when nobody answers must be an answer itself.
    fn otherwise(&mut self, n: &Node, schema: Option<&Schema>, bounded: bool) {
        if !bounded {
            self.report.add_with(
                n.span,
                "`otherwise` never holds without a `deadline`",
                "add `deadline: 1h`, or remove it",
            );
        }
        match schema {
            Some(schema) => {
                if let Err(error) = schema.check(&n.json()) {
                    self.report.add(n.span, format!("`otherwise` does not satisfy `output`: {error}"));
                }
            }
            None if matches!(n.value, Value::Str(..)) => {}
            None => wrong(n, "without an `output`, `otherwise` is text", self.report),
        }
    }
}
