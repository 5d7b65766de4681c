//! Definitions as they were written, and their kinds.

use std::fmt;

use serde::Serialize;

/// What a document defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionKind {
    /// An expert in one subject.
    Role,
    /// A GGUF file.
    Model,
    /// A LoRA adapter.
    Adapter,
    /// Files that roles may answer from.
    Knowledge,
    /// Roles joined by edges.
    Graph,
    /// The settings of routers.
    Router,
    /// What a role learns from.
    Training,
}

impl DefinitionKind {
    /// Every kind.
    pub(crate) const ALL: [Self; 7] =
        [Self::Role, Self::Model, Self::Adapter, Self::Knowledge, Self::Graph, Self::Router, Self::Training];

    /// The key with which a document of this kind begins.
    pub fn key(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Model => "model",
            Self::Adapter => "adapter",
            Self::Knowledge => "knowledge",
            Self::Graph => "graph",
            Self::Router => "router",
            Self::Training => "training",
        }
    }

    /// The kind in a sentence, such as `an adapter`.
    pub fn with_article(self) -> &'static str {
        match self {
            Self::Role => "a role",
            Self::Model => "a model",
            Self::Adapter => "an adapter",
            Self::Knowledge => "a knowledge",
            Self::Graph => "a graph",
            Self::Router => "a router",
            Self::Training => "a training",
        }
    }
}

impl fmt::Display for DefinitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.key())
    }
}

/// A definition as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// What it defines.
    pub kind: DefinitionKind,
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
    /// The definitions that it refers to, by kind and name, each once: the model and the adapters of a role, the roles of a graph.
    pub uses: Vec<(DefinitionKind, String)>,
    /// Whether it is part of the program.
    pub shipped: bool,
}
