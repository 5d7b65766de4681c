//! The edges from a node: `next` in all its forms.

use artel_task::NodeName;
use artel_task::condition::{self, Condition};
use artel_task::graph::Edge;
use artel_yaml::{Diagnostics, YamlNode, YamlValue, did_you_mean, shown};

use super::decoder::{DONE, GraphDecoder};
use crate::decode::{MapReader, integer, items, name, text, wrong};
use crate::keys;
use crate::template;

/// The most edges from one node: more than a graph that a person can draw.
const MAX_EDGES: usize = 256;
/// The highest `at_most`: a task has a limit of steps anyway.
const MAX_TRAVERSALS: u32 = 10_000;

impl GraphDecoder<'_, '_, '_> {
    /// All edges of a node, or `None` if one is too invalid to check the graph.
    pub(super) fn edges(&mut self, node: &NodeName, given: &YamlNode) -> Option<Vec<Edge>> {
        let nodes = match &given.value {
            YamlValue::List(_) => items(given, "`next`", MAX_EDGES, self.report)?,
            _ => std::slice::from_ref(given),
        };
        let edges: Vec<Option<Edge>> = nodes.iter().map(|n| self.edge(node, n)).collect();
        let edges: Vec<Edge> = edges.into_iter().collect::<Option<_>>()?;
        // As written: an invalid condition is a condition all the same.
        let unconditional: Vec<(&Edge, &YamlNode)> =
            edges.iter().zip(nodes).filter(|(_, n)| n.get("when").is_none()).collect();
        for (at, (edge, given)) in unconditional.iter().enumerate() {
            if unconditional[..at].iter().any(|(e, _)| e.to == edge.to) {
                let to = edge.to.as_ref().map_or(DONE, NodeName::as_str);
                self.report.error(given.span, format!("node `{node}` leads to `{to}` twice without a condition"));
            }
        }
        Some(edges)
    }

    fn edge(&mut self, node: &NodeName, given: &YamlNode) -> Option<Edge> {
        match &given.value {
            YamlValue::Str(..) => {
                let to = self.target(node, given)?;
                Some(Edge { to, when: None, at_most: None })
            }
            YamlValue::Map(_) => {
                let mut f = MapReader::open(given, "an edge", &keys::EDGE, self.report)?;
                let to = f.need("to", self.report);
                let when = f.get("when").and_then(|n| self.condition(n));
                let at_most = f.get("at_most").map(|n| integer(n, "`at_most`", 1..=MAX_TRAVERSALS, self.report));
                f.finish(&[], self.report);
                let to = self.target(node, to?)?;
                match at_most {
                    Some(None) => None,
                    at_most => Some(Edge { to, when, at_most: at_most.flatten() }),
                }
            }
            _ => {
                wrong(given, "an edge is the name of a node, `done`, or `{to, when, at_most}`", self.report);
                None
            }
        }
    }

    /// The target of an edge; the outer `None` is an invalid name, the inner one `done`.
    fn target(&mut self, node: &NodeName, given: &YamlNode) -> Option<Option<NodeName>> {
        self.spans.edge(node, given.span);
        if matches!(&given.value, YamlValue::Str(text, _) if text == DONE) {
            return Some(None);
        }
        name(given, "a node", NodeName::parse, self.report).map(Some)
    }

    /// The edge from a node that has failed for good.
    pub(super) fn failure_edge(&mut self, node: &NodeName, given: &YamlNode) -> Option<Edge> {
        let edge = self.edge(node, given)?;
        if let Some(when) = given.get("when") {
            self.report.error(when.span, "the edge `on_failure` takes no condition");
        }
        Some(edge)
    }

    /// A condition; the graph can be checked even if it does not parse.
    fn condition(&mut self, given: &YamlNode) -> Option<Condition> {
        let condition = expression(given, "a condition", Condition::parse, &Condition::VARIABLES, self.report)?;
        self.check_reads(given, condition.source(), condition.referenced_nodes());
        Some(condition)
    }

    /// Checks that the nodes that an expression reads exist.
    pub(super) fn check_reads(&mut self, given: &YamlNode, source: &str, reads: Vec<&str>) {
        for name in reads.into_iter().filter(|name| !self.names.contains(*name)) {
            let (line, column, width) = template::word(source, &format!("nodes.{name}"));
            let span = given.inside(&self.report.source.text, line, column, width);
            let hint = did_you_mean(name, self.names.iter().map(NodeName::as_str));
            self.report.push_error(
                span,
                format!("`nodes.{}` is read here, and this graph has no such node", shown(name)),
                hint,
            );
        }
    }
}

/// A CEL expression; a fault is reported at its place in the file.
pub(super) fn expression<T>(
    given: &YamlNode,
    what: &str,
    parse: impl Fn(&str) -> Result<T, condition::Error>,
    names: &[&'static str],
    report: &mut Diagnostics<'_>,
) -> Option<T> {
    let source = text(given, what, 1..=condition::MAX_CONDITION_BYTES, report)?;
    if report.is_over_time(given.span) {
        return None;
    }
    let error = match parse(&source) {
        Ok(parsed) => return Some(parsed),
        Err(condition::Error::Parse(message)) => message,
        Err(other) => other.to_string(),
    };
    let bad = format!("bad {}", what.trim_start_matches("a "));
    let known: [(&str, &[&str]); 2] = [("unknown name `", names), ("unknown function `", &condition::FUNCTIONS)];
    for (prefix, known) in known {
        let Some(name) = error.strip_prefix(prefix).and_then(|rest| rest.split('`').next()) else { continue };
        let (line, column, width) = template::name_in(&source, name);
        let span = given.inside(&report.source.text, line, column, width);
        report.push_error(span, format!("{bad}: {error}"), did_you_mean(name, known.iter().copied()));
        return None;
    }
    let (line, column, message) = first_error(&error).unwrap_or((1, 1, &error));
    let span = match (line, column) {
        (1, 1) => given.span,
        _ => given.inside(&report.source.text, line, column, 1),
    };
    let (message, hint) = plain(message);
    report.push_error(span, format!("{bad}: {message}"), hint.map(str::to_owned));
    None
}

/// A message of the generated CEL parser in plain words, and a hint.
fn plain(message: &str) -> (String, Option<&'static str>) {
    const FORMS: [&str; 4] = [
        "mismatched input '",
        "extraneous input '",
        "no viable alternative at input '",
        "token recognition error at: '",
    ];
    let Some(rest) = FORMS.iter().find_map(|form| message.strip_prefix(form)) else {
        return (message.to_owned(), None);
    };
    // The token may hold quotes itself, so it ends at the last one before the list of what was expected.
    let token = rest.split("' expecting ").next().unwrap_or(rest);
    let token = token.strip_suffix('\'').unwrap_or(token).trim();
    if token.ends_with("<EOF>") {
        return ("it ends too early".to_owned(), None);
    }
    let hint = match token {
        "and" => Some("write `&&`"),
        "or" => Some("write `||`"),
        "=" => Some("write `==`"),
        _ if token.starts_with(['"', '\'']) => Some("is the text that begins here closed?"),
        _ => None,
    };
    (format!("`{}` does not fit here", shown(token)), hint)
}

/// The first error in the CEL parser's text, which is `ERROR: <input>:LINE:COLUMN: MESSAGE | picture ...`.
fn first_error(text: &str) -> Option<(u32, u32, &str)> {
    let text = text.strip_prefix("ERROR: <input>:")?;
    let (line, text) = text.split_once(':')?;
    let (column, text) = text.split_once(": ")?;
    let message = text.split(" | ").next().unwrap_or(text);
    let message = message.split(" ERROR: <input>:").next().unwrap_or(message);
    Some((line.parse().ok()?, column.parse().ok()?, message.trim_start_matches("Syntax error: ")))
}
