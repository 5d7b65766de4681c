//! Lists the files of the Python package that travel inside the binary: its modules, and the list of the
//! packages that they need. Its tests stay outside.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The package, from the directory of this crate.
const PACKAGE: &str = "../training/trainer";
/// The directory of its modules, which is looked through.
const MODULES: &str = "artel_trainer";

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(name.to_owned()));
    let package = variable("CARGO_MANIFEST_DIR")?.join(PACKAGE);
    let mut paths = vec!["requirements.lock".to_owned()];
    modules(&package, MODULES, &mut paths)?;
    paths.sort();
    let mut list = "&[\n".to_owned();
    for path in &paths {
        let file = package.join(path);
        let _ = writeln!(list, "    ({path:?}, include_str!({:?})),", file.display().to_string());
        println!("cargo:rerun-if-changed={}", file.display());
    }
    list.push_str("]\n");
    // A directory counts as changed when a file in it comes or goes.
    println!("cargo:rerun-if-changed={}", package.join(MODULES).display());
    fs::write(variable("OUT_DIR")?.join("source_files.rs"), list)
}

fn modules(package: &Path, dir: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(package.join(dir))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{dir}/{name}");
        if entry.file_type()?.is_dir() {
            if name != "__pycache__" && name != "tests" {
                modules(package, &path, paths)?;
            }
        } else if name.ends_with(".py") {
            paths.push(path);
        }
    }
    Ok(())
}
