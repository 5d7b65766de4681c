//! Files that `cargo xtask setup` fetches and programs that `cargo xtask test` builds.
//!
//! If one is missing, one line says how to get it and the process ends: hundreds of panics would hide the cause.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const MODEL_FILES: [&str; 2] = ["SmolLM2-135M-Instruct.Q4_1.gguf", "all-MiniLM-L6-v2.F16.gguf"];

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// The directory of the demo models: `ARTEL_TEST_MODELS`, or where `cargo xtask setup` puts them.
pub fn models() -> PathBuf {
    let dir = variable("ARTEL_TEST_MODELS").unwrap_or_else(|| cache().join("models"));
    if !MODEL_FILES.iter().all(|file| dir.join(file).is_file()) {
        end(&format!("the demo models are missing in {}: `cargo xtask setup` fetches them", dir.display()));
    }
    dir
}

/// Python with the packages of the tests: `ARTEL_TEST_PYTHON`, or the one that `cargo xtask setup` prepares.
pub fn python() -> PathBuf {
    let path = variable("ARTEL_TEST_PYTHON").unwrap_or_else(|| cache().join("python/bin/python"));
    if !path.is_file() {
        end(&format!("{} is missing: `cargo xtask setup` prepares it", path.display()));
    }
    path
}

/// Python with the packages of the trainer: `ARTEL_TEST_TRAINER_PYTHON`, or the one that `cargo xtask test` prepares.
pub fn trainer_python() -> PathBuf {
    let path = variable("ARTEL_TEST_TRAINER_PYTHON").unwrap_or_else(|| cache().join("trainer-env/bin/python-of-tests"));
    if !path.is_file() {
        end(&format!("{} is missing: `cargo xtask test` prepares it", path.display()));
    }
    path
}

/// A program of Debian's Prometheus: below `ARTEL_TEST_PROMETHEUS`, or where `cargo xtask setup` unpacks it.
pub(crate) fn prometheus_program(name: &str) -> PathBuf {
    let root = variable("ARTEL_TEST_PROMETHEUS").unwrap_or_else(|| cache().join("prometheus"));
    let path = root.join("usr/bin").join(name);
    if !path.is_file() {
        end(&format!("{} is missing: `cargo xtask setup` unpacks it", path.display()));
    }
    path
}

/// What the web clients of the tests need, which are `node`, `chromium` and the packages in `node_modules`: below
/// `ARTEL_TEST_WEB`, or where `cargo xtask setup` prepares it.
pub(crate) fn web(name: &str) -> PathBuf {
    let path = variable("ARTEL_TEST_WEB").unwrap_or_else(|| cache().join("web")).join(name);
    if !path.exists() {
        end(&format!("{} is missing: `cargo xtask setup` prepares it", path.display()));
    }
    path
}

/// A directory with packages of clients that speak OpenAI's API: below `ARTEL_TEST_CLIENTS`, or where the verb of `cargo xtask`
/// prepares it.
pub(crate) fn client_packages(name: &str, verb: &str) -> PathBuf {
    let path = variable("ARTEL_TEST_CLIENTS").unwrap_or_else(cache).join(name);
    // The last file that is written there.
    if !path.join("installed.json").is_file() {
        end(&format!("{} is missing: `cargo xtask {verb}` prepares it", path.display()));
    }
    path
}

/// The daemon and command line.
pub fn artel() -> PathBuf {
    built("artel")
}

/// The same program with faults at chosen commits and scripted models.
pub(crate) fn artel_failpoints() -> PathBuf {
    built("artel-failpoints")
}

/// A program beside the directory of test binaries.
fn built(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join(name);
    if !path.is_file() {
        end(&format!("{} is not built: `cargo xtask test` builds it", path.display()));
    }
    path
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from)
}

/// The cache of xtask.
pub(crate) fn cache() -> PathBuf {
    let home = || variable("HOME").map(|home| home.join(".cache"));
    let user_cache = || variable("XDG_CACHE_HOME").or_else(home).expect("HOME is set");
    variable("ARTEL_CACHE").unwrap_or_else(|| user_cache().join("artel"))
}

fn end(message: &str) -> ! {
    // libtest shows what is printed with `eprintln!` only with a failed test, and none fails here.
    let _ = writeln!(std::io::stderr(), "{message}");
    std::process::exit(1)
}
