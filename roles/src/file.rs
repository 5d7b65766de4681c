//! Paths of model and adapter files: as written, and where to look for them.

use std::path::{Path, PathBuf};

use crate::decode::text;
use crate::node::Node;
use crate::problem::Report;

/// Where a file may be, first the likelier place: beside the YAML file that names it, then the daemon's models
/// directory.
pub(crate) fn candidates(file: &Path, dir: Option<&Path>, models_dir: &Path) -> Vec<PathBuf> {
    if file.is_absolute() {
        return vec![file.to_owned()];
    }
    let mut places: Vec<PathBuf> = dir.into_iter().chain([models_dir]).map(|dir| dir.join(file)).collect();
    places.dedup();
    places
}

/// The path of a GGUF file.
pub(crate) fn decode(node: &Node, what: &str, report: &mut Report<'_>) -> Option<PathBuf> {
    let path = text(node, what, 1..=4096, report)?;
    let refused = if path.contains(|c: char| c.is_control()) {
        Some((format!("{what} is a path, which has no line breaks or control characters"), None))
    } else if path.starts_with("hf:") {
        Some((
            "`hf:` addresses are not available in this version".to_owned(),
            Some("download the file and give its path"),
        ))
    } else if path.starts_with("~/") {
        Some(("`~` is not expanded here".to_owned(), Some("write the whole path, or one relative to this file")))
    } else if path.ends_with('/') {
        Some((format!("{what} is a file, and this is a directory"), None))
    } else {
        None
    };
    match refused {
        None => Some(path.into()),
        Some((message, hint)) => {
            report.push(node.span, message, hint.map(str::to_owned));
            None
        }
    }
}
