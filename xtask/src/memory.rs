//! `cargo xtask memory`: the resident memory of a model with adapters, beside that of llama.cpp's own server.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{demo, models, shell, venv};

/// llama.cpp's server as a Python package.
const SERVER: &str = "xllamacpp==2026.10.11549";

pub(crate) fn run(cache: &Path) -> Result<()> {
    let environment = cache.join("peer");
    venv::prepare(&environment, &[SERVER])?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tests");
    shell::run(
        Command::new(environment.join("bin/python"))
            .arg(tests.join("scripts/memory.py"))
            .arg(demo::build()?)
            .arg(models::chat(cache))
            .arg(tests.join("fixtures/adapters")),
    )
}
