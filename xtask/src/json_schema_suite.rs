//! The public test suite of JSON Schema, as the source package of Python's `jsonschema` carries it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{models, shell};

/// The package, and the hash of its source.
const PACKAGE: &str = "jsonschema==4.26.0";
const ARCHIVE: &str = "jsonschema-4.26.0.tar.gz";
const ARCHIVE_SHA: &str = "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326";
/// The suite in the archive.
const INNER: &str = "jsonschema-4.26.0/json/tests/draft2020-12";

/// The directory of its tests.
pub(crate) fn dir(cache: &Path) -> PathBuf {
    cache.join("json-schema-suite-4.26.0")
}

/// Unpacks the suite into the cache, if it is not there.
pub(crate) fn fetch(cache: &Path) -> Result<()> {
    let dir = dir(cache);
    if dir.exists() {
        return Ok(());
    }
    eprintln!("xtask: fetching the test suite of JSON Schema (0.4 MB)");
    let part = cache.join("json-schema-suite.part");
    // One that was cut off before.
    drop(fs::remove_dir_all(&part));
    fs::create_dir_all(&part).with_context(|| format!("failed to create {}", part.display()))?;
    // Only of this package: what reads the metadata of its source comes as wheels.
    let pip =
        ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", "jsonschema"];
    shell::run(Command::new(shell::python(cache)).args(pip).arg("--dest").arg(&part).arg(PACKAGE))?;
    models::verify(&part.join(ARCHIVE), ARCHIVE_SHA)?;
    shell::run(Command::new("tar").arg("-xzf").arg(part.join(ARCHIVE)).arg("-C").arg(&part).arg(INNER))?;
    fs::rename(part.join(INNER), &dir).with_context(|| format!("failed to move the suite to {}", dir.display()))?;
    fs::remove_dir_all(&part).with_context(|| format!("failed to remove {}", part.display()))
}
