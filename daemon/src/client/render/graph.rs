//! Graphs, drawn from the document that defines them.

mod dot;
mod mermaid;
mod text;

use std::collections::VecDeque;

use serde_json::{Map, Value};

pub(crate) use dot::dot;
pub(crate) use mermaid::mermaid;
pub(crate) use text::text;

/// The name that ends a branch.
const DONE: &str = "done";

/// A graph as far as it can be drawn. The daemon has checked the document; what is missing in it is left out here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Drawing {
    name: String,
    description: String,
    start: String,
    result: String,
    /// `steps 12, tokens 16000, time 5m`.
    limits: String,
    /// In the order in which a task comes to them.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq)]
struct Node {
    name: String,
    kind: Kind,
    /// Who works, on one line.
    work: String,
    /// How several ways into it meet, and over what it runs: `join all, for each task.input`. Empty if it does not say.
    join: String,
    next: Vec<Edge>,
}

/// What sort of node it is, for its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Role,
    Router,
    Graph,
    Person,
    Other,
}

#[derive(Debug, Clone, PartialEq)]
struct Edge {
    to: String,
    when: String,
    at_most: String,
    /// Whether it is the way of a step that failed for good.
    on_failure: bool,
}

impl Edge {
    /// When it is taken, on one line. Empty: always.
    fn label(&self) -> String {
        let when = if self.when.is_empty() { String::new() } else { format!("when {}", self.when) };
        let at_most = if self.at_most.is_empty() { String::new() } else { format!("at most {}x", self.at_most) };
        let failure = if self.on_failure { "on failure".to_owned() } else { String::new() };
        [failure, when, at_most].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

impl Drawing {
    /// Reads the document of a graph, as data.
    pub(crate) fn read(content: &Value) -> Self {
        let field = |key: &str| plain(content.get(key));
        let given = content.get("nodes").and_then(Value::as_object).cloned().unwrap_or_default();
        let start = field("start");
        let nodes = in_order(&start, given.iter().map(|(name, node)| Node::read(name, node)).collect());
        let limits = content.get("limits").and_then(Value::as_object).map(options).unwrap_or_default();
        let (name, description, result) = (field("graph"), field("description"), field("result"));
        Self { name, description, start, result, limits, nodes }
    }

    /// The place of a node among the nodes.
    fn place(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }
}

impl Node {
    fn read(name: &str, node: &Value) -> Self {
        let (kind, work) = work(node);
        let join = match node.get("join") {
            None => String::new(),
            Some(Value::Object(join)) => format!("join {}", options(join)),
            join => format!("join {}", plain(join)),
        };
        let each = node.get("for_each").map(|list| format!("for each {}", plain(Some(list)))).unwrap_or_default();
        let join = [join, each].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        let mut next: Vec<Edge> = match node.get("next") {
            Some(Value::Array(edges)) => edges.iter().map(edge).collect(),
            Some(single) => vec![edge(single)],
            None => Vec::new(),
        };
        if next.is_empty() {
            // A node that leads nowhere ends its branch.
            next.push(edge(&Value::from(DONE)));
        }
        next.extend(node.get("on_failure").map(|to| Edge { on_failure: true, ..edge(to) }));
        Self { name: name.to_owned(), kind, work, join, next }
    }
}

/// The kinds of nodes: the key that makes one, and how it is drawn.
fn work(node: &Value) -> (Kind, String) {
    for key in ["role", "router", "graph", "ask"] {
        let Some(value) = node.get(key) else { continue };
        return match (key, value.get("from")) {
            ("role", Some(from)) => (Kind::Role, format!("role from {}", plain(Some(from)))),
            ("role", None) => (Kind::Role, format!("role {}", plain(Some(value)))),
            ("router", _) => (Kind::Router, format!("router {}", value.as_object().map(options).unwrap_or_default())),
            ("graph", _) => (Kind::Graph, format!("graph {}", plain(Some(value)))),
            _ => (Kind::Person, "a person answers".to_owned()),
        };
    }
    let keys = node.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let keys = keys.filter(|key| !matches!(*key, "next" | "join" | "for_each" | "on_failure"));
    (Kind::Other, keys.collect::<Vec<_>>().join(", "))
}

fn edge(edge: &Value) -> Edge {
    match edge {
        Value::Object(_) => Edge {
            to: plain(edge.get("to")),
            when: plain(edge.get("when")),
            at_most: plain(edge.get("at_most")),
            on_failure: false,
        },
        to => Edge { to: plain(Some(to)), when: String::new(), at_most: String::new(), on_failure: false },
    }
}

/// The pairs of a map on one line: the roles first, the rest as written.
fn options(map: &Map<String, Value>) -> String {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_by_key(|(key, _)| (*key != "roles", *key));
    pairs.into_iter().map(|(key, value)| format!("{key} {}", plain(Some(value)))).collect::<Vec<_>>().join(", ")
}

/// A value on one line, without quotes.
fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => super::page::one_line(text),
        Some(Value::Array(list)) => {
            format!("[{}]", list.iter().map(|item| plain(Some(item))).collect::<Vec<_>>().join(", "))
        }
        Some(other) => other.to_string(),
    }
}

/// The nodes as a task comes to them, breadth first; those that it cannot come to last. The document's own order does
/// not survive the way here.
fn in_order(start: &str, mut nodes: Vec<Node>) -> Vec<Node> {
    let mut ordered: Vec<Node> = Vec::with_capacity(nodes.len());
    let mut queue = VecDeque::from([start.to_owned()]);
    while let Some(name) = queue.pop_front() {
        if let Some(at) = nodes.iter().position(|node| node.name == name) {
            let node = nodes.remove(at);
            queue.extend(node.next.iter().map(|edge| edge.to.clone()));
            ordered.push(node);
        }
    }
    ordered.extend(nodes);
    ordered
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::page::Page;
    use super::*;

    fn mentor() -> Drawing {
        Drawing::read(&json!({
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

    fn council() -> Drawing {
        Drawing::read(&json!({
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

    /// Names and conditions that mean something to the formats.
    fn hostile() -> Drawing {
        Drawing::read(&json!({
            "graph": "end",
            "description": "a \"b\" \\ `c` #1; <br/>\x1b[2J",
            "nodes": {"end": {"role": "subgraph", "next": [
                {"to": "end", "when": "output.x == \"a\\n\" && 1 < 2", "at_most": 3}, "done",
            ]}},
            "start": "end",
        }))
    }

    fn shown(drawing: &Drawing) -> String {
        let mut page = Page::new(false);
        text(drawing, &mut page);
        page.put("----").end().put(mermaid(drawing)).put("----").end().put(dot(drawing));
        page.take()
    }

    #[test]
    fn a_router_and_a_way_back() {
        insta::assert_snapshot!(shown(&mentor()));
    }

    #[test]
    fn ways_that_part_and_meet() {
        insta::assert_snapshot!(shown(&council()));
    }

    #[test]
    fn labels_are_escaped() {
        insta::assert_snapshot!(shown(&hostile()));
    }

    #[test]
    fn items_and_ways_on_failure_are_drawn() {
        let drawing = Drawing::read(&json!({
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
    fn a_document_that_is_none_does_no_harm() {
        assert_eq!(shown(&Drawing::read(&json!(7))).lines().next(), Some("graph"));
    }
}
