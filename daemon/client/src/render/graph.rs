//! Drawings of graphs, made from the documents that define them.

mod dot;
mod mermaid;
mod text;

use std::collections::VecDeque;

use artel_terminal::one_line;
use serde_json::{Map, Value};

pub(crate) use dot::dot;
pub(crate) use mermaid::mermaid;
pub(crate) use text::text;

/// The name that ends a branch.
const DONE: &str = "done";

/// The parts of a graph that are drawn. The daemon has validated the document; missing parts are omitted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GraphDrawing {
    name: String,
    description: String,
    start: String,
    result: String,
    /// `steps 12, tokens 16000, time 5m`.
    limits: String,
    /// In the order in which a task reaches them.
    nodes: Vec<DrawnNode>,
}

#[derive(Debug, Clone, PartialEq)]
struct DrawnNode {
    name: String,
    kind: NodeShape,
    /// The role, router or graph of the node, on one line.
    work: String,
    /// The join and the `for_each` of the node: `join all, for each task.input`. Empty if there is neither.
    join: String,
    next: Vec<DrawnEdge>,
}

/// The kind of a node, which determines its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeShape {
    Role,
    Router,
    Graph,
    Person,
    Other,
}

#[derive(Debug, Clone, PartialEq)]
struct DrawnEdge {
    to: String,
    when: String,
    at_most: String,
    /// Whether it is taken when the step has failed permanently.
    on_failure: bool,
}

impl DrawnEdge {
    /// The condition of the edge on one line. Empty: always taken.
    fn label(&self) -> String {
        let when = if self.when.is_empty() { String::new() } else { format!("when {}", self.when) };
        let at_most = if self.at_most.is_empty() { String::new() } else { format!("at most {}x", self.at_most) };
        let failure = if self.on_failure { "on failure".to_owned() } else { String::new() };
        [failure, when, at_most].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

impl GraphDrawing {
    /// Reads the document of a graph.
    pub(crate) fn read(content: &Value) -> Self {
        let field = |key: &str| plain(content.get(key));
        let definitions = content.get("nodes").and_then(Value::as_object).cloned().unwrap_or_default();
        let start = field("start");
        let nodes = in_order(&start, definitions.iter().map(|(name, node)| DrawnNode::read(name, node)).collect());
        let limits = content.get("limits").and_then(Value::as_object).map(options).unwrap_or_default();
        let (name, description, result) = (field("graph"), field("description"), field("result"));
        Self { name, description, start, result, limits, nodes }
    }

    /// The index of a node.
    /// The ids of the two ends of each edge, for formats that take no names, and its label.
    fn edges(&self) -> impl Iterator<Item = (String, String, String)> {
        let id = |index| format!("n{index}");
        let index = |name: &str| self.nodes.iter().position(|node| node.name == name);
        let edges = self.nodes.iter().enumerate().flat_map(|(at, node)| node.next.iter().map(move |edge| (at, edge)));
        edges.map(move |(at, edge)| (id(at), index(&edge.to).map_or_else(|| DONE.to_owned(), id), edge.label()))
    }
}

impl DrawnNode {
    fn read(name: &str, node: &Value) -> Self {
        let (kind, work) = work(node);
        let join = match node.get("join") {
            None => String::new(),
            Some(Value::Object(join)) => format!("join {}", options(join)),
            join => format!("join {}", plain(join)),
        };
        let each = node.get("for_each").map(|list| format!("for each {}", plain(Some(list)))).unwrap_or_default();
        let join = [join, each].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        let mut next: Vec<DrawnEdge> = match node.get("next") {
            Some(Value::Array(edges)) => edges.iter().map(edge).collect(),
            Some(single) => vec![edge(single)],
            None => Vec::new(),
        };
        if next.is_empty() {
            // A node without edges ends its branch.
            next.push(edge(&Value::from(DONE)));
        }
        next.extend(node.get("on_failure").map(|to| DrawnEdge { on_failure: true, ..edge(to) }));
        Self { name: name.to_owned(), kind, work, join, next }
    }
}

/// The kind of a node, and its description.
fn work(node: &Value) -> (NodeShape, String) {
    for key in ["role", "router", "graph", "ask"] {
        let Some(value) = node.get(key) else { continue };
        return match (key, value.get("from")) {
            ("role", Some(from)) => (NodeShape::Role, format!("role from {}", plain(Some(from)))),
            ("role", None) => (NodeShape::Role, format!("role {}", plain(Some(value)))),
            ("router", _) => {
                (NodeShape::Router, format!("router {}", value.as_object().map(options).unwrap_or_default()))
            }
            ("graph", _) => (NodeShape::Graph, format!("graph {}", plain(Some(value)))),
            _ => (NodeShape::Person, "a person answers".to_owned()),
        };
    }
    let keys = node.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let keys = keys.filter(|key| !matches!(*key, "next" | "join" | "for_each" | "on_failure"));
    (NodeShape::Other, keys.collect::<Vec<_>>().join(", "))
}

fn edge(edge: &Value) -> DrawnEdge {
    match edge {
        Value::Object(_) => DrawnEdge {
            to: plain(edge.get("to")),
            when: plain(edge.get("when")),
            at_most: plain(edge.get("at_most")),
            on_failure: false,
        },
        to => DrawnEdge { to: plain(Some(to)), when: String::new(), at_most: String::new(), on_failure: false },
    }
}

/// The pairs of a map on one line: `roles` first, then by key.
fn options(map: &Map<String, Value>) -> String {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_by_key(|(key, _)| (*key != "roles", *key));
    pairs.into_iter().map(|(key, value)| format!("{key} {}", plain(Some(value)))).collect::<Vec<_>>().join(", ")
}

/// A value on one line, without quotes.
fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => one_line(text),
        Some(Value::Array(list)) => {
            format!("[{}]", list.iter().map(|item| plain(Some(item))).collect::<Vec<_>>().join(", "))
        }
        Some(other) => other.to_string(),
    }
}

/// The nodes in breadth-first order from the start, unreachable ones last. Protobuf loses the order of the document.
fn in_order(start: &str, mut nodes: Vec<DrawnNode>) -> Vec<DrawnNode> {
    let mut ordered: Vec<DrawnNode> = Vec::with_capacity(nodes.len());
    let mut queue = VecDeque::from([start.to_owned()]);
    while let Some(name) = queue.pop_front() {
        if let Some(index) = nodes.iter().position(|node| node.name == name) {
            let node = nodes.remove(index);
            queue.extend(node.next.iter().map(|edge| edge.to.clone()));
            ordered.push(node);
        }
    }
    ordered.extend(nodes);
    ordered
}

#[cfg(test)]
mod tests {
    use artel_terminal::StyledText;
    use serde_json::json;

    use super::*;

    fn mentor() -> GraphDrawing {
        GraphDrawing::read(&json!({
            "graph": "mentor",
            "description": "The router picks one expert; a critic may send the answer back.",
            "limits": {"steps": 12, "time": "5m", "tokens": 16000},
            "nodes": {
                "answer": {"message": "{{ task.input }}", "next": "check", "role": {"from": "pick"}},
                "check": {"next": [
                    {"at_most": 1, "to": "answer", "when": "output.verdict == \"revise\""},
                    {"to": "done"},
                ], "role": "critic"},
                "pick": {"next": "answer", "router": {"confidence": 0.35, "otherwise": "planner", "roles": "all"}},
            },
            "result": "answer",
            "start": "pick",
        }))
    }

    fn council() -> GraphDrawing {
        GraphDrawing::read(&json!({
            "graph": "council",
            "description": "Three experts look at one goal; a planner joins them.",
            "nodes": {
                "hardware": {"next": "plan", "role": "gpu"},
                "lead": {"next": ["train", "package", "hardware"], "router": {"roles": ["lora", "gguf", "gpu"]}},
                "package": {"next": "plan", "role": "gguf"},
                "plan": {"join": {"quorum": 2}, "next": "agree", "role": "planner"},
                "agree": {"ask": {"message": "Well?"}, "next": "deep"},
                "deep": {"graph": "mentor"},
                "train": {"next": "plan", "role": "lora"},
            },
            "start": "lead",
        }))
    }

    /// Names and conditions that contain syntax of the formats.
    fn hostile() -> GraphDrawing {
        GraphDrawing::read(&json!({
            "graph": "end",
            "description": "a \"b\" \\ `c` #1; <br/>\x1b[2J",
            "nodes": {"end": {"role": "subgraph", "next": [
                {"to": "end", "when": "output.x == \"a\\n\" && 1 < 2", "at_most": 3}, "done",
            ]}},
            "start": "end",
        }))
    }

    fn shown(drawing: &GraphDrawing) -> String {
        let mut out = StyledText::new(false);
        text(drawing, &mut out);
        out.push("----").newline().push(mermaid(drawing)).push("----").newline().push(dot(drawing));
        out.take()
    }

    #[test]
    fn a_router_and_a_backward_edge() {
        insta::assert_snapshot!(shown(&mentor()));
    }

    #[test]
    fn branches_that_fork_and_join() {
        insta::assert_snapshot!(shown(&council()));
    }

    #[test]
    fn labels_are_escaped() {
        insta::assert_snapshot!(shown(&hostile()));
    }

    #[test]
    fn items_and_failure_edges_are_drawn() {
        let drawing = GraphDrawing::read(&json!({
            "graph": "path",
            "start": "each",
            "nodes": {
                "each": {"role": "critic", "for_each": "nodes.plan.json", "join": "all", "next": "done", "on_failure": "mend"},
                "mend": {"role": "planner", "next": "done"},
            },
        }));
        let shown = shown(&drawing);
        for line in [
            "each  role critic, join all, for each nodes.plan.json",
            "      → mend  on failure",
            "    n0 -.->|\"on failure\"| n1",
            "    n0 -> n1 [label=\"on failure\", style=dashed];",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
        }
    }

    #[test]
    fn an_invalid_document_does_not_panic() {
        assert_eq!(shown(&GraphDrawing::read(&json!(7))).lines().next(), Some("graph"));
    }
}
