//! Debian's Prometheus and its promtool, for the tests of the metrics.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{setup, shell};

/// The Debian package.
const PACKAGE: &str = "prometheus";
/// Its programs below the directory that it is unpacked to.
const PROGRAMS: [&str; 2] = ["usr/bin/prometheus", "usr/bin/promtool"];

/// The directory that it is unpacked to.
pub(crate) fn root(cache: &Path) -> PathBuf {
    cache.join(PACKAGE)
}

/// Unpacks the package into the cache, if it is not there. It is not installed: that would start a service.
pub(crate) fn fetch(cache: &Path) -> Result<()> {
    let root = root(cache);
    if PROGRAMS.iter().all(|program| shell::has(&root.join(program).to_string_lossy())) {
        return Ok(());
    }
    if !shell::has("apt-get") {
        let programs = PROGRAMS.map(|program| root.join(program).display().to_string()).join(" and ");
        bail!("there is no apt-get here: put Prometheus's programs, or links to them, at {programs}");
    }
    eprintln!("xtask: unpacking {PACKAGE}");
    let downloads = cache.join("prometheus-package");
    // A package that was cut off before.
    drop(fs::remove_dir_all(&downloads));
    fs::create_dir_all(&downloads).with_context(|| format!("failed to create {}", downloads.display()))?;
    if download(&downloads).is_err() {
        // The lists may be missing, or older than what the archive has.
        setup::update_lists()?;
        download(&downloads)?;
    }
    let package = fs::read_dir(&downloads)?.next().context("apt-get downloaded nothing")??.path();
    shell::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&root))?;
    fs::remove_dir_all(&downloads).with_context(|| format!("failed to remove {}", downloads.display()))
}

/// Downloads the package to this directory. It needs no rights.
fn download(directory: &Path) -> Result<()> {
    shell::run(Command::new("apt-get").args(["download", "-qq", PACKAGE]).current_dir(directory))
}
