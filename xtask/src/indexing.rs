//! `cargo xtask indexing`: how fast files become knowledge, beside LangChain.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{clients, demo, models, shell};

pub(crate) fn run(cache: &Path) -> Result<()> {
    let python = clients::fetch_frameworks(cache)?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tests");
    shell::run(Command::new(python).arg(tests.join("scripts/indexing.py")).arg(demo::build()?).arg(models::dir(cache)))
}
