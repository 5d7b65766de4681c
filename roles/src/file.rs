//! Files of models and adapters: as written, and where to look for them.

use std::path::{Path, PathBuf};

use crate::decode::text;
use crate::hub::{Address, SCHEME};
use crate::node::Node;
use crate::problem::Report;

/// The GGUF file of a model or an adapter, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// It lies on this machine.
    Path(PathBuf),
    /// It is fetched from a hub when it is first needed.
    Hub(Address),
}

impl File {
    /// Where it is fetched from.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Path(_) => None,
            Self::Hub(address) => Some(address),
        }
    }
}

/// Where a file may be, first the likelier place: beside the YAML file that names it, then the daemon's models
/// directory. What comes from a hub has one place, below the latter.
pub(crate) fn candidates(file: &File, dir: Option<&Path>, models_dir: &Path) -> Vec<PathBuf> {
    let file = match file {
        File::Hub(address) => return vec![models_dir.join(address.path())],
        File::Path(path) if path.is_absolute() => return vec![path.clone()],
        File::Path(path) => path,
    };
    let mut places: Vec<PathBuf> = dir.into_iter().chain([models_dir]).map(|dir| dir.join(file)).collect();
    places.dedup();
    places
}

/// A GGUF file: a path, or an address on a hub.
pub(crate) fn decode(node: &Node, what: &str, report: &mut Report<'_>) -> Option<File> {
    let path = text(node, what, 1..=4096, report)?;
    let refused = if path.contains(|c: char| c.is_control()) {
        (format!("{what} is a path, which has no line breaks or control characters"), None)
    } else if path.starts_with(SCHEME) {
        match Address::parse(&path) {
            Ok(address) => return Some(File::Hub(address)),
            Err(message) => (message, None),
        }
    } else if path.starts_with("~/") {
        ("`~` is not expanded here".to_owned(), Some("write the whole path, or one relative to this file"))
    } else if path.ends_with('/') {
        (format!("{what} is a file, and this is a directory"), None)
    } else {
        return Some(File::Path(path.into()));
    };
    let (message, hint) = refused;
    report.push(node.span, message, hint.map(str::to_owned));
    None
}
