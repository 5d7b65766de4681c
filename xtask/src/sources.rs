//! The Rust files of the workspace, as the checks read them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A source file: its path below the workspace, and its text.
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every Rust file that git does not ignore, committed or not.
pub(crate) fn read() -> Result<Vec<SourceFile>> {
    let root = root()?;
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"];
    let output = Command::new("git").args(list).current_dir(root).output()?;
    if !output.status.success() {
        bail!("git ls-files ended with {}", output.status);
    }
    let paths = String::from_utf8(output.stdout)?;
    let read = |path: &str| -> Result<SourceFile> {
        let text = std::fs::read_to_string(root.join(path)).with_context(|| format!("failed to read {path}"))?;
        Ok(SourceFile { path: path.to_owned(), text })
    };
    paths.lines().filter(|path| root.join(path).exists()).map(read).collect()
}

/// The directory of the workspace.
pub(crate) fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")
}
