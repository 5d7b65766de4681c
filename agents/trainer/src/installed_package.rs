//! What an environment consists of.

use serde::{Deserialize, Serialize};

/// A package of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledPackage {
    /// Its name, as its own files spell it.
    pub name: String,
    /// Its version.
    pub version: String,
}
