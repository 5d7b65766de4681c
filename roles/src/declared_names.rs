//! The names that the documents of a catalog define, and what is said of one that is not of the needed kind.

use std::collections::BTreeMap;

use artel_yaml::{Diagnostics, Span, did_you_mean, shown};

use crate::decode::list;
use crate::definition::DefinitionKind;

/// The names of a kind that a hint lists where none of them is near to what was written: more are no help.
const MAX_LISTED_ITEMS: usize = 8;

/// The names of all definitions, of those that can be read and of those that cannot.
pub(crate) struct DeclaredNames {
    /// Of each kind, the names, with file and line where they are known.
    kinds: BTreeMap<DefinitionKind, BTreeMap<String, Option<String>>>,
}

impl DeclaredNames {
    pub(crate) fn new(definitions: impl IntoIterator<Item = (DefinitionKind, String, Option<String>)>) -> Self {
        let mut kinds: BTreeMap<DefinitionKind, BTreeMap<String, Option<String>>> = BTreeMap::new();
        for (kind, name, place) in definitions {
            kinds.entry(kind).or_default().insert(name, place);
        }
        Self { kinds }
    }

    /// Whether a definition of this kind has this name.
    pub(crate) fn has(&self, kind: DefinitionKind, name: &str) -> bool {
        self.kinds.get(&kind).is_some_and(|names| names.contains_key(name))
    }

    /// The names of a kind.
    pub(crate) fn of(&self, kind: DefinitionKind) -> impl Iterator<Item = &str> {
        self.kinds.get(&kind).into_iter().flat_map(|names| names.keys().map(String::as_str))
    }

    /// Reports a name where one of this kind is needed, unless there is one.
    pub(crate) fn report_missing(&self, kind: DefinitionKind, name: &str, span: Span, report: &mut Diagnostics<'_>) {
        if self.has(kind, name) {
            return;
        }
        let message = format!("there is no {kind} `{}`", shown(name));
        match self.instead(kind, name) {
            Some(instead) => report.error_with_hint(span, format!("{message}, but {instead}"), self.hint(kind, name)),
            None => report.push_error(span, message, did_you_mean(name, self.of(kind))),
        }
    }

    /// What else has this name, in words: `a role (own.yaml:3) of this name`; none if nothing has.
    pub(crate) fn instead(&self, kind: DefinitionKind, name: &str) -> Option<String> {
        let others = self.kinds.iter().filter(|(other, _)| **other != kind);
        let found = others.filter_map(|(other, names)| {
            let place = names.get(name)?.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
            Some(format!("{}{place}", other.with_article()))
        });
        let found: Vec<String> = found.collect();
        (!found.is_empty()).then(|| format!("{} of this name", found.join(" and ")))
    }

    /// Which name of this kind may have been meant by that of another one.
    pub(crate) fn hint(&self, kind: DefinitionKind, name: &str) -> String {
        if let Some(near) = did_you_mean(name, self.of(kind)) {
            return near;
        }
        let names: Vec<&str> = self.of(kind).collect();
        match names.len() {
            0 => format!("the catalog has no {kind}"),
            count if count > MAX_LISTED_ITEMS => {
                format!("the {kind}s are {} and {} more", quoted(&names), count - MAX_LISTED_ITEMS)
            }
            _ => format!("the {kind}s are {}", list(&names)),
        }
    }
}

/// The first of these names.
fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().take(MAX_LISTED_ITEMS).map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
