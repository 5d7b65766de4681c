//! A small environment of the trainer, for tests: PyTorch without its CUDA libraries.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;

/// Makes it, unless it is there with the same packages: 1.7 GB, most of a minute.
pub(crate) fn prepare(cache: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agents/training/trainer/test_environment.py");
    let dir = cache.join("trainer-env");
    shell::run(Command::new("python3").arg("-B").arg(script).arg(&dir).stdout(std::process::Stdio::null()))?;
    let python = python(cache);
    let (no_cuda, real) = (dir.join("no-cuda"), dir.join("bin/python"));
    let text = format!("#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n", no_cuda.display(), real.display());
    if fs::read_to_string(&python).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let written =
        fs::write(&python, text).and_then(|()| fs::set_permissions(&python, fs::Permissions::from_mode(0o755)));
    written.with_context(|| format!("failed to write {}", python.display()))
}

/// Its interpreter, which finds the stand-ins for the CUDA libraries.
pub(crate) fn python(cache: &Path) -> PathBuf {
    cache.join("trainer-env/bin/python-of-tests")
}
