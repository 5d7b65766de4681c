//! Documents: the kind and name that each one defines, and which one of a name holds.

use std::collections::{BTreeMap, BTreeSet};

use artel_task::RoleName;
use artel_yaml::{CheckDeadline, Diagnostics, Span, YamlNode, YamlValue, did_you_mean, shown};

use crate::declared_names::DeclaredNames;
use crate::decode::name;
use crate::definition::{Definition, DefinitionKind};
use crate::network::NetworkRules;
use crate::sources::Sources;

/// A document whose kind and name are known.
pub(super) struct Document {
    pub(super) kind: DefinitionKind,
    pub(super) name: String,
    pub(super) name_span: Span,
    /// The index of its source in the list of diagnostics.
    pub(super) source: usize,
    pub(super) node: YamlNode,
}

/// The documents that hold.
pub(super) struct Documents {
    list: BTreeMap<(DefinitionKind, String), Document>,
    /// Names that sources with syntax errors seem to define: references to them are not reported.
    guessed: BTreeSet<(DefinitionKind, String)>,
}

impl Documents {
    /// Reads all layers, with diagnostics for every source. `rules` hold for the files of a client, and the deadline for all.
    pub(super) fn read<'s>(
        sources: &'s Sources,
        rules: Option<&'s NetworkRules>,
        deadline: Option<&'s CheckDeadline>,
        diagnostics: &mut Vec<Diagnostics<'s>>,
    ) -> Self {
        let mut documents = Self { list: BTreeMap::new(), guessed: BTreeSet::new() };
        for layer in &sources.layers {
            let mut list: BTreeMap<(DefinitionKind, String), Document> = BTreeMap::new();
            for source in layer {
                let is_shipped = source.dir.is_none();
                let mut report =
                    Diagnostics::new(source).with_rules(rules.filter(|_| !is_shipped).map(|rules| rules as _));
                report = report.with_deadline(deadline);
                let parsed = artel_yaml::parse(&mut report);
                if !parsed.is_complete {
                    documents.guess(&source.text);
                }
                for node in parsed.documents {
                    let Some(document) = document(node, diagnostics.len(), &mut report) else { continue };
                    let key = (document.kind, document.name.clone());
                    if let Some(first) = list.get(&key) {
                        let file = diagnostics.get(first.source).map_or(source, |r: &Diagnostics<'_>| r.source);
                        let place = format!("{}:{}", file.path, first.name_span.line);
                        let Document { kind, name, name_span, .. } = &document;
                        report.error(*name_span, format!("{kind} `{}` is defined before, at {place}", shown(name)));
                    } else {
                        list.insert(key, document);
                    }
                }
                diagnostics.push(report);
            }
            documents.list.append(&mut list);
        }
        documents
    }

    fn guess(&mut self, text: &str) {
        for (key, rest) in text.lines().filter_map(|line| line.split_once(':')) {
            if let Some(kind) = DefinitionKind::ALL.into_iter().find(|kind| kind.key() == key) {
                self.guessed.insert((kind, rest.trim().to_owned()));
            }
        }
    }

    /// The documents of a kind, by name.
    pub(super) fn of(&self, kind: DefinitionKind) -> impl Iterator<Item = &Document> {
        self.list.values().filter(move |d| d.kind == kind)
    }

    /// The names of all kinds, of documents that can be read and of those that cannot.
    pub(super) fn names(&self, diagnostics: &[Diagnostics<'_>]) -> DeclaredNames {
        let guessed = self.guessed.iter().map(|(kind, name)| (*kind, name.clone(), None));
        let read = self.list.values().map(|document| {
            let place = format!("{}:{}", diagnostics[document.source].source.path, document.name_span.line);
            (document.kind, document.name.clone(), Some(place))
        });
        DeclaredNames::new(guessed.chain(read))
    }

    /// Every document that holds; `uses` gives the definitions that it refers to.
    pub(super) fn definitions(
        &self,
        diagnostics: &[Diagnostics<'_>],
        uses: impl Fn(DefinitionKind, &str) -> BTreeSet<(DefinitionKind, String)>,
    ) -> Vec<Definition> {
        let definition = |d: &Document| {
            let source = diagnostics[d.source].source;
            let span = d.node.span;
            let last_line = if span.end_column > 1 { span.end_line } else { span.end_line.saturating_sub(1) };
            let count = (last_line + 1).saturating_sub(span.line) as usize;
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

/// The kind and name of a document.
fn document(node: YamlNode, source: usize, report: &mut Diagnostics<'_>) -> Option<Document> {
    const FORM: &str = "begin with what it defines: `role: NAME`, `model: NAME`, `adapter: NAME`, `knowledge: NAME`, `graph: NAME`, `router: NAME` or `training: NAME`";
    let keys = || DefinitionKind::ALL.map(DefinitionKind::key);
    let entries = match &node.value {
        YamlValue::Map(entries) if !entries.is_empty() => entries,
        YamlValue::Map(_) | YamlValue::Null => {
            report.error_with_hint(node.span, "this document is empty", format!("remove its `---`, or {FORM}"));
            return None;
        }
        _ => {
            report.error_with_hint(node.span, format!("a document is a map, and this is {}", node.kind()), FORM);
            return None;
        }
    };
    let first = entries.first()?;
    // A role has keys of these names too.
    let is_key_of_role = |key: &str| matches!(key, "model" | "adapter" | "knowledge");
    let is_role = is_key_of_role(&first.key) && entries.iter().any(|e| e.key == "role");
    // As a training has one of a role.
    let is_training = first.key == "role" && entries.iter().any(|e| e.key == "training");
    let kind = DefinitionKind::ALL.into_iter().find(|kind| kind.key() == first.key && !is_role && !is_training);
    let Some(kind) = kind else {
        let later = entries.iter().skip(1).find(|e| keys().contains(&e.key.as_str()) && !is_key_of_role(&e.key));
        let hint = later.map(|e| format!("move `{}`, in line {}, to the top", e.key, e.key_span.line));
        let hint = hint.or_else(|| did_you_mean(&first.key, keys())).unwrap_or_else(|| FORM.to_owned());
        let message = match later {
            Some(_) => format!("a document begins with what it defines, not with `{}`", shown(&first.key)),
            None => format!("a document cannot define a `{}`", shown(&first.key)),
        };
        report.error_with_hint(first.key_span, message, hint);
        return None;
    };
    let name_span = first.value.span;
    // The names of all kinds have one form.
    let name = name(&first.value, &format!("a {kind}"), RoleName::parse, report)?.to_string();
    Some(Document { kind, name, name_span, source, node })
}
