//! The chat templates of real models, for the tests: llama.cpp keeps a collection, and a Python package carries its source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{models, shell};

const PACKAGE: &str = "llama-cpp-python";
const VERSION: &str = "0.3.36";
const ARCHIVE_SHA: &str = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e";

/// The directory of the templates.
pub(crate) fn dir(cache: &Path) -> PathBuf {
    cache.join(format!("chat-templates-{VERSION}"))
}

/// Takes them from the package into the cache, if they are not there. Nothing of the package is built or installed.
pub(crate) fn fetch(cache: &Path) -> Result<()> {
    let dir = dir(cache);
    if dir.exists() {
        return Ok(());
    }
    eprintln!("xtask: fetching the chat templates of {PACKAGE} {VERSION} (77 MB)");
    let downloads = cache.join("chat-templates-package");
    // A download that was cut off before.
    drop(fs::remove_dir_all(&downloads));
    fs::create_dir_all(&downloads).with_context(|| format!("failed to create {}", downloads.display()))?;
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--no-binary", PACKAGE];
    let mut download = Command::new(shell::python(cache));
    download.args(pip).arg("--dest").arg(&downloads).arg(format!("{PACKAGE}=={VERSION}"));
    shell::run(&mut download)?;
    let archive = fs::read_dir(&downloads)?.next().context("pip downloaded nothing")??.path();
    models::verify(&archive, ARCHIVE_SHA)?;
    let part = downloads.join("templates");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("chat_templates.py");
    shell::run(Command::new(shell::python(cache)).arg(script).arg(&archive).arg(&part))?;
    fs::rename(&part, &dir).with_context(|| format!("failed to create {}", dir.display()))?;
    fs::remove_dir_all(&downloads).with_context(|| format!("failed to remove {}", downloads.display()))
}
