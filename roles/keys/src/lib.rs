//! The keys of every kind of map in the YAML files.
//!
//! The decoder takes the keys that it knows from this table: its reader of a map reads no key that is not in the set of the
//! map, and checks that every key of the set was read. Documentation is checked against [`keys`].
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "a static is named as the set that it holds")]

mod knowledge;
mod settings;
mod table;
mod training;

pub use knowledge::*;
pub use settings::*;
pub use table::*;
pub use training::*;

/// The keys of one kind of map.
#[derive(Debug)]
pub struct KeySet {
    /// The map: a kind of document, or the way to a map inside of one, as in `role.sampling`.
    pub name: &'static str,
    /// The page of the reference that describes it: such as `roles` or `settings`.
    pub page: &'static str,
    /// Its keys, in the order in which they are documented.
    pub keys: &'static [DocumentKey],
}

/// A key of a map.
#[derive(Debug)]
pub struct DocumentKey {
    /// As it is written in YAML.
    pub name: &'static str,
    /// What it holds, in one line.
    pub description: &'static str,
    /// What holds without it.
    pub default: KeyDefault,
    /// The name that it had before: it is read in this version only, with a warning.
    pub former_name: Option<&'static str>,
    /// The unit of a value that is a number; durations carry their own.
    pub unit: Option<&'static str>,
}

/// What holds without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyDefault {
    /// Nothing: the key is required.
    Required,
    /// This YAML value: writing it changes nothing.
    Value(&'static str),
    /// No value that could be written instead, or one that the daemon chooses.
    Described(&'static str),
}

impl KeyDefault {
    /// As text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Value(text) | Self::Described(text) => text,
        }
    }
}

impl KeySet {
    /// The names of its keys.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }

    /// The key of this present or former name.
    pub fn find(&self, name: &str) -> Option<&'static DocumentKey> {
        let former = || self.keys.iter().find(|key| key.former_name == Some(name));
        self.keys.iter().find(|key| key.name == name).or_else(former)
    }

    /// The set of the keys in the map of one of its keys, if the table has one by this name.
    pub fn below(&self, key: &str) -> Option<&'static KeySet> {
        ALL.iter()
            .copied()
            .find(|set| set.name.strip_prefix(self.name).and_then(|rest| rest.strip_prefix('.')) == Some(key))
    }

    /// The name of the key that is nearest to a misspelt one; a slip in a former name leads to the present one.
    pub fn nearest(&self, given: &str) -> Option<&'static str> {
        let names = self.names().chain(self.keys.iter().filter_map(|key| key.former_name));
        self.find(artel_yaml::nearest(given, names)?).map(|key| key.name)
    }
}

/// Every kind of map in the YAML files, with its keys.
pub fn keys() -> &'static [&'static KeySet] {
    ALL
}

const fn key(name: &'static str, default: KeyDefault, description: &'static str) -> DocumentKey {
    DocumentKey { name, description, default, former_name: None, unit: None }
}

impl DocumentKey {
    const fn formerly(self, name: &'static str) -> Self {
        Self { former_name: Some(name), ..self }
    }

    const fn in_unit(self, unit: &'static str) -> Self {
        Self { unit: Some(unit), ..self }
    }
}
