//! Running other programs, and where things are kept.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where downloads and tools live: outside the checkout, so that a fresh clone finds them again.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("ARTEL_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    Ok(base.context("neither ARTEL_CACHE, XDG_CACHE_HOME nor HOME is set")?.join("artel"))
}

/// Whether a program can be started.
pub(crate) fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success())
}

/// The path of a program that is started by its name.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let dirs = env::var_os("PATH")?;
    env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Runs a command to its end with our own terminal; an error names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}");
    let status = command.status().with_context(|| format!("failed to start {line}"))?;
    if !status.success() {
        bail!("{line} ended with {status}");
    }
    Ok(())
}

/// The cargo that runs us. Whatever makes cargo build llama.cpp once more, such as another choice of packages or
/// features, finds its objects in ccache.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.env("CMAKE_C_COMPILER_LAUNCHER", "ccache").env("CMAKE_CXX_COMPILER_LAUNCHER", "ccache");
    command
}

/// Runs `cargo build` and gives the path of a binary that it built. Cargo says where that is, whatever the target directory is.
pub(crate) fn built(build: &mut Command, name: &str) -> Result<PathBuf> {
    let output = build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output();
    let output = output.context("failed to start cargo")?;
    if !output.status.success() {
        bail!("cargo build ended with {}", output.status);
    }
    let executables = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    let found = executables.into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name));
    found.with_context(|| format!("cargo built no binary `{name}`"))
}

/// The Python of our own virtual environment.
pub(crate) fn python(cache: &Path) -> PathBuf {
    cache.join("python/bin/python")
}
