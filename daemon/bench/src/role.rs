//! The roles of a workload, which each server gets in its own form.

use std::path::PathBuf;

/// A role of a workload.
#[derive(Debug, Clone)]
pub(crate) struct BenchRole {
    pub(crate) name: String,
    pub(crate) prompt: String,
    pub(crate) max_tokens: u32,
    pub(crate) option: RoleOption,
}

impl BenchRole {
    /// A role that answers interactive requests in free text.
    pub(crate) fn new(name: impl Into<String>, prompt: impl Into<String>, max_tokens: u32) -> Self {
        Self { name: name.into(), prompt: prompt.into(), max_tokens, option: RoleOption::None }
    }

    pub(crate) fn with(self, option: RoleOption) -> Self {
        Self { option, ..self }
    }
}

/// A property of a role beyond its prompt.
#[derive(Debug, Clone)]
pub(crate) enum RoleOption {
    None,
    /// Its requests have batch priority.
    Batch,
    /// An adapter: its index among the adapters of the bench, and its file.
    Adapter(usize, PathBuf),
    /// It answers one of these labels, as JSON.
    EnumJson(Vec<String>),
    /// It answers one of these labels with its first token, if the server supports that.
    EnumToken(Vec<String>),
}
