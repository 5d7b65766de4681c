//! Programs that speak OpenAI's API: the scripts of `tests/scripts/openai` and the examples of `docs/clients`, with the packages
//! that they import, against a daemon.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::prerequisites::{client_packages, web};
use crate::{Cli, Daemon, DaemonBuilder, artel, daemon, repository};

/// The catalog that the checks of the scripts are made for, and the script of its model `talk`.
const CATALOG: &str = include_str!("../fixtures/openai/clients.yaml");
const MODEL_SCRIPT: &str = include_str!("../fixtures/openai/clients.json");
/// The graph `auto`.
const SETTINGS: &str = "graph: chain\ngrace: 60s\n";
/// The catalog that the examples of the book are made for.
const EXAMPLE_CATALOG: &str = include_str!("../../docs/clients/catalog/chat.yaml");
/// The file of its knowledge.
const EXAMPLE_NOTE: &str = "docs/clients/catalog/notes/delivery.md";
/// The address that the examples call, as the daemon has it by default.
const EXAMPLE_ADDRESS: &str = "http://127.0.0.1:7430";

/// Where the packages come from.
#[derive(Clone, Copy)]
pub enum ClientPackages {
    /// OpenAI's own, which `cargo xtask setup` installs.
    Openai,
    /// LangChain, LangGraph, LiteLLM and the AI SDK, which `cargo xtask clients` installs.
    Frameworks,
}

impl ClientPackages {
    fn dir(self) -> PathBuf {
        match self {
            Self::Openai => client_packages("clients-openai", "setup"),
            Self::Frameworks => client_packages("clients-frameworks", "clients"),
        }
    }

    /// A call of a script, which lies in a directory of the test.
    fn cli(self, script: &Path) -> Cli {
        let node_modules = script.with_file_name("node_modules");
        if !node_modules.exists() {
            // A program for Node.js looks for its packages beside itself.
            symlink(self.dir().join("node_modules"), node_modules).unwrap();
        }
        let program = match script.extension().is_some_and(|extension| extension == "py") {
            true => self.dir().join("python/bin/python"),
            false => web("node"),
        };
        // Some of them would tell their makers of their use, and none is to go through a proxy.
        let cli = Cli::program(&program, []).arg(script).env("NO_PROXY", "127.0.0.1");
        cli.env("LANGSMITH_TRACING", "false").env("PYTHONDONTWRITEBYTECODE", "1")
    }
}

/// What a script printed, and how it ended.
pub struct ScriptOutput {
    /// Its exit code.
    pub code: i32,
    /// Its standard output: a line for each check.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A daemon with the catalog of the checks.
pub fn client_daemon() -> DaemonBuilder {
    let script = serde_json::from_str(MODEL_SCRIPT).unwrap();
    daemon().with_yaml(CATALOG).with_settings(SETTINGS).with_failpoints(&script)
}

/// Runs checks of a script, or all of them if none is named, against a daemon of [`client_daemon`].
pub async fn run_checks(daemon: &Daemon, name: &str, packages: ClientPackages, checks: &[&str]) -> ScriptOutput {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(repository().join("tests/scripts/openai")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py" || extension == "mjs") {
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let cli = checks.iter().fold(packages.cli(&dir.path().join(name)), |cli, check| cli.arg(check));
    let cli = cli.env("BASE_URL", format!("{}/v1", daemon.address));
    let api_key = daemon.create_token("client", "submit,read", &[]).await;
    let limited = daemon.create_token("limited", "submit,read", &["--calls-per-minute=1"]).await;
    let cli = cli.env("API_KEY", api_key).env("LIMITED_API_KEY", limited).env("ARTEL_PROGRAM", artel());
    run(cli.env("ARTEL_ADDRESS", &daemon.address).env("ARTEL_DATA", daemon.dir().join("data"))).await
}

/// Runs an example of `docs/clients` against a daemon with the catalog that the book gives for it.
pub async fn run_example(name: &str, packages: ClientPackages) -> ScriptOutput {
    let builder = daemon().with_yaml(EXAMPLE_CATALOG);
    let notes = builder.dir().join("catalog/notes");
    fs::create_dir(&notes).unwrap();
    fs::copy(repository().join(EXAMPLE_NOTE), notes.join("delivery.md")).unwrap();
    let daemon = builder.start().await;
    daemon.until_indexed("notes").await;
    run_example_on(&daemon, name, packages, &[]).await
}

/// Runs an example against this daemon, and with these texts replaced by others.
pub async fn run_example_on(
    daemon: &Daemon,
    name: &str,
    packages: ClientPackages,
    replaced: &[(&str, &str)],
) -> ScriptOutput {
    let mut text = fs::read_to_string(repository().join("docs/clients").join(name)).unwrap();
    for (from, to) in [(EXAMPLE_ADDRESS, daemon.address.as_str())].iter().chain(replaced) {
        assert!(text.contains(from), "`{from}` stands in {name}");
        text = text.replace(from, to);
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join(name);
    fs::write(&script, text).unwrap();
    let token = daemon.create_token("example", "submit,read", &[]).await;
    run(packages.cli(&script).env("ARTEL_TOKEN", token)).await
}

async fn run(cli: Cli) -> ScriptOutput {
    let (code, out, err) = cli.run().await;
    ScriptOutput { code, out, err }
}
