//! `cargo xtask licences`: may we use what we depend on?

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Pinned: another version may read `deny.toml` differently.
const VERSION: &str = "0.20.2";

/// Runs cargo-deny, which is installed beside the models the first time: a few minutes.
pub(crate) fn run(cache: &Path) -> Result<()> {
    let root = cache.join("tools");
    let deny = root.join("bin/cargo-deny");
    let version = Command::new(&deny).arg("--version").output();
    if !version.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(VERSION)) {
        eprintln!("xtask: installing cargo-deny {VERSION}");
        let mut install = shell::cargo();
        install.args(["install", "--locked", "--force", "--version", VERSION, "--root"]).arg(&root).arg("cargo-deny");
        // Its own target directory, so that its build does not wait for ours; optimising it would take long and gain little.
        install.env("CARGO_TARGET_DIR", cache.join("tools/target")).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        install.env("CARGO_PROFILE_RELEASE_LTO", "off").env_remove("RUSTFLAGS");
        shell::run(&mut install).context("failed to install cargo-deny")?;
    }
    shell::run(Command::new(deny).args(["check", "licenses", "bans", "sources"]))
}
