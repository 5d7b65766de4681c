//! Virtual environments of Python.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Makes one in a directory, with these requirements of pip, unless it is there with the same ones.
pub(crate) fn prepare(dir: &Path, requirements: &[&str]) -> Result<()> {
    let stamp = dir.join("packages.txt");
    let wanted = requirements.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    eprintln!("xtask: preparing Python packages in {}", dir.display());
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir))?;
    shell::run(
        Command::new(dir.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"])
            .args(requirements),
    )?;
    fs::write(&stamp, wanted).with_context(|| format!("failed to write {}", stamp.display()))
}
