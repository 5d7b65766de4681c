//! YAML files as text.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A YAML file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct YamlSource {
    /// Its path, as problems show it.
    pub path: String,
    /// The absolute directory that paths in it are relative to; none for a file that is embedded in the program.
    pub dir: Option<PathBuf>,
    /// Its content.
    pub text: String,
}
