//! What a fresh machine lacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{models, shell, venv};

/// Each program or file that must be there, and the Debian package that brings it.
/// cmake only recommends make, and we install without what is only recommended.
const NEEDED: [(&str, &str); 7] = [
    ("cmake", "cmake"),
    ("make", "make"),
    ("clang", "clang"),
    ("g++", "g++"),
    ("ccache", "ccache"),
    ("python3", "python3"),
    ("curl", "curl"),
];
/// Packages for Python, pinned: what writes the embedding models, what the clients in the tests are made with, and what renders chat templates beside ours. Ubuntu 22.04 has Python 3.10, for which numpy ended early.
const PYTHON: [&str; 9] = [
    "numpy==2.2.6; python_version < '3.11'",
    "numpy==2.4.6; python_version >= '3.11'",
    "gguf==0.19.0",
    "sentencepiece==0.2.3",
    "grpcio==1.85.3",
    "grpcio-status==1.85.1",
    "grpcio-tools==1.85.1",
    "grpcio-reflection==1.85.1",
    "jinja2==3.1.6",
];

pub(crate) fn run(cache: &Path) -> Result<()> {
    fs::create_dir_all(cache).with_context(|| format!("failed to create {}", cache.display()))?;
    system()?;
    python_packages(cache)?;
    models::fetch(cache)
}

fn system() -> Result<()> {
    let mut missing: Vec<&str> =
        NEEDED.iter().filter(|(tool, _)| !shell::has(tool)).map(|(_, package)| *package).collect();
    if !has_libclang() {
        missing.push("libclang-dev");
    }
    if !Command::new("python3").args(["-c", "import venv, ensurepip"]).output().is_ok_and(|o| o.status.success()) {
        missing.push("python3-venv");
    }
    install(&missing)
}

/// Installs Debian packages, or says how to.
pub(crate) fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("xtask: installing {}", missing.join(", "));
    let by_hand = format!("apt-get install -y {}", missing.join(" "));
    if !shell::has("apt-get") {
        bail!("{} missing and there is no apt-get here: install them with your system's tools", missing.join(", "));
    }
    if needs_sudo() && !shell::has("sudo") {
        bail!("{} missing; run as root: {by_hand}", missing.join(", "));
    }
    update_lists()?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], missing].concat())
        .with_context(|| format!("run by hand: {by_hand}"))
}

/// Fetches the lists of Debian packages.
pub(crate) fn update_lists() -> Result<()> {
    apt(&["update", "-qq"])
}

fn needs_sudo() -> bool {
    !nix::unistd::geteuid().is_root()
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = Command::new(if needs_sudo() { "sudo" } else { "apt-get" });
    if needs_sudo() {
        command.arg("apt-get");
    }
    shell::run(command.args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// bindgen loads libclang, which lies below the directory of an LLVM version.
fn has_libclang() -> bool {
    let dirs = ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"].map(PathBuf::from);
    let llvm = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("lib"));
    dirs.into_iter().chain(llvm).any(|dir| {
        let names = fs::read_dir(dir).into_iter().flatten().flatten();
        names.into_iter().any(|f| {
            let name = f.file_name();
            let name = name.to_string_lossy();
            // libclang-cpp is another library, which Mesa brings along.
            let other = name.starts_with("libclang-cpp");
            !other && (name.starts_with("libclang.so") || name.starts_with("libclang-") && name.contains(".so"))
        })
    })
}

pub(crate) fn python_packages(cache: &Path) -> Result<()> {
    venv::prepare(&cache.join("python"), &PYTHON)
}
