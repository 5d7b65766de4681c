//! Documents: which kind and name each one defines, and which of the same name holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use artel_task::RoleName;
use serde::Serialize;

use super::Sources;
use crate::decode::name;
use crate::node::{Node, Span, Value};
use crate::problem::{Report, did_you_mean, shown};
use crate::yaml;

/// What a document defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Who does one trade.
    Role,
    /// A GGUF file.
    Model,
    /// Roles joined by edges.
    Graph,
    /// How routers weigh what they know.
    Router,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Role, Self::Model, Self::Graph, Self::Router];

    /// The key that a document of this kind begins with.
    pub fn key(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Model => "model",
            Self::Graph => "graph",
            Self::Router => "router",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.key())
    }
}

/// A definition as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// What it defines.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What it is, for people and routers.
    pub description: Option<String>,
    /// The file, as its source names it.
    pub file: String,
    /// The line where it begins, from 1.
    pub line: u32,
    /// The YAML.
    pub text: String,
    /// The YAML as data: keys and values as written, aliases resolved, defaults left out.
    pub content: serde_json::Value,
    /// The definitions that it refers to, by kind and name, each once: the model of a role, the roles of a graph.
    pub uses: Vec<(Kind, String)>,
    /// Whether it is part of the program.
    pub shipped: bool,
}

/// A document whose kind and name are known.
pub(super) struct Document {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) name_span: Span,
    /// The place of its source in the list of reports.
    pub(super) source: usize,
    pub(super) node: Node,
}

/// The documents that hold.
pub(super) struct Documents {
    list: BTreeMap<(Kind, String), Document>,
    /// Names that sources with syntax errors seem to define: references to them are no further mistakes.
    guessed: BTreeSet<(Kind, String)>,
}

impl Documents {
    /// Reads all layers; opens a report for every source.
    pub(super) fn read<'s>(sources: &'s Sources, reports: &mut Vec<Report<'s>>) -> Self {
        let mut documents = Self { list: BTreeMap::new(), guessed: BTreeSet::new() };
        for layer in &sources.layers {
            let mut list: BTreeMap<(Kind, String), Document> = BTreeMap::new();
            for source in layer {
                let mut report = Report::new(source);
                let parsed = yaml::parse(&mut report);
                if !parsed.whole {
                    documents.guess(&source.text);
                }
                for node in parsed.documents {
                    let Some(document) = document(node, reports.len(), &mut report) else { continue };
                    let key = (document.kind, document.name.clone());
                    if let Some(first) = list.get(&key) {
                        let file = reports.get(first.source).map_or(source, |r: &Report<'_>| r.source);
                        let place = format!("{}:{}", file.path, first.name_span.line);
                        let Document { kind, name, name_span, .. } = &document;
                        report.add(*name_span, format!("{kind} `{}` is defined before, at {place}", shown(name)));
                    } else {
                        list.insert(key, document);
                    }
                }
                reports.push(report);
            }
            documents.list.append(&mut list);
        }
        documents
    }

    fn guess(&mut self, text: &str) {
        for (key, rest) in text.lines().filter_map(|line| line.split_once(':')) {
            if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.key() == key) {
                self.guessed.insert((kind, rest.trim().to_owned()));
            }
        }
    }

    /// The documents of a kind, by name.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Document> {
        self.list.values().filter(move |d| d.kind == kind)
    }

    /// The names of a kind, of documents that can be read and of those that cannot.
    pub(super) fn names(&self, kind: Kind) -> BTreeSet<String> {
        self.list.keys().chain(&self.guessed).filter(|(k, _)| *k == kind).map(|(_, name)| name.clone()).collect()
    }

    /// Every document that holds; `uses` tells what it refers to.
    pub(super) fn definitions(
        &self,
        reports: &[Report<'_>],
        uses: impl Fn(Kind, &str) -> BTreeSet<(Kind, String)>,
    ) -> Vec<Definition> {
        let definition = |d: &Document| {
            let source = reports[d.source].source;
            let span = d.node.span;
            let whole = if span.end_column > 1 { span.end_line } else { span.end_line.saturating_sub(1) };
            let count = (whole + 1).saturating_sub(span.line) as usize;
            let lines: Vec<&str> = source.text.lines().skip(span.line.saturating_sub(1) as usize).take(count).collect();
            let text = lines.join("\n").trim_end().to_owned() + "\n";
            let content = d.node.json();
            Definition {
                kind: d.kind,
                name: d.name.clone(),
                description: content.get("description").and_then(serde_json::Value::as_str).map(str::to_owned),
                file: source.path.clone(),
                line: span.line,
                text,
                content,
                uses: uses(d.kind, &d.name).into_iter().collect(),
                shipped: source.dir.is_none(),
            }
        };
        self.list.values().map(definition).collect()
    }
}

/// Kind and name of a document.
fn document(node: Node, source: usize, report: &mut Report<'_>) -> Option<Document> {
    const FORM: &str = "begin with what it defines: `role: NAME`, `model: NAME`, `graph: NAME` or `router: NAME`";
    let keys = || Kind::ALL.map(Kind::key);
    let entries = match &node.value {
        Value::Map(entries) if !entries.is_empty() => entries,
        Value::Map(_) | Value::Null => {
            report.add_with(node.span, "this document is empty", format!("remove its `---`, or {FORM}"));
            return None;
        }
        _ => {
            report.add_with(node.span, format!("a document is a map, and this is {}", node.kind()), FORM);
            return None;
        }
    };
    let first = entries.first()?;
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.key() == first.key) else {
        let later = entries.iter().find(|e| keys().contains(&e.key.as_str()) && e.key != "model");
        let hint = later.map(|e| format!("move `{}`, in line {}, to the top", e.key, e.key_span.line));
        let hint = hint.or_else(|| did_you_mean(&first.key, keys())).unwrap_or_else(|| FORM.to_owned());
        let message = match later {
            Some(_) => format!("a document begins with what it defines, not with `{}`", shown(&first.key)),
            None => format!("a document cannot define a `{}`", shown(&first.key)),
        };
        report.add_with(first.key_span, message, hint);
        return None;
    };
    let name_span = first.value.span;
    // The three kinds of names have one form.
    let name = name(&first.value, &format!("a {kind}"), RoleName::parse, report)?.to_string();
    Some(Document { kind, name, name_span, source, node })
}
