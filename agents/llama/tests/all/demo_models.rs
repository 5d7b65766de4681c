//! The demo models, which `cargo xtask setup` fetches.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The path of a demo model. Without its file, one line says how to get it and the process ends.
pub(crate) fn path(file: &str) -> PathBuf {
    let dir = dir();
    let path = dir.join(file);
    if !path.is_file() {
        // libtest shows what is printed with `eprintln!` only with a failed test, and none fails here.
        let _ = writeln!(
            std::io::stderr(),
            "the demo models are missing in {}: `cargo xtask setup` fetches them",
            dir.display()
        );
        std::process::exit(1);
    }
    path
}

/// `ARTEL_TEST_MODELS`, or where `cargo xtask setup` puts them.
fn dir() -> PathBuf {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from);
    let cache = || variable("ARTEL_CACHE").unwrap_or_else(|| user_cache().join("artel"));
    variable("ARTEL_TEST_MODELS").unwrap_or_else(|| cache().join("models"))
}

fn user_cache() -> PathBuf {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).expect("HOME is set")
}
