//! `cargo xtask test`, `cargo xtask clients` and `cargo xtask bench`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{chat_templates, clients, json_schema_suite, models, prometheus, shell, tools, trainer, web};

/// The tests of clients, those among them that need the packages of frameworks. Each of their checks is printed.
const CLIENTS: [&str; 6] =
    ["--run-ignored", "all", "--success-output", "immediate", "openai_clients::", "qdrant::langchain_"];

/// Fetches what the tests need beside the demo models.
pub(crate) fn fetch(cache: &Path) -> Result<()> {
    prometheus::fetch(cache)?;
    json_schema_suite::fetch(cache)?;
    chat_templates::fetch(cache)?;
    web::fetch(cache)?;
    trainer::prepare(cache)?;
    clients::fetch(cache)
}

pub(crate) fn run(cache: &Path, args: &[String]) -> Result<()> {
    fetch(cache)?;
    // The black-box tests start `artel` and `artel-failpoints`, and `artel bench` starts `artel-bench`; the test runner would
    // make none of them. Together with the tests, since what tests depend on changes the features of what both share.
    shell::run(shell::cargo().args(["build", "--locked", "--workspace", "--bins", "--tests"]))?;
    let mut command = runner(cache)?;
    command.args(["--locked", "--workspace"]).args(args);
    // Several checkouts may share a target directory. A test compiled in another one would look for its snapshots there.
    if let Some(package) = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) {
        command.env("INSTA_WORKSPACE_ROOT", package.parent().unwrap_or(&package));
    }
    shell::run(with_models(&mut command, cache))
}

/// Runs all clients of OpenAI's API, and LangChain's of Qdrant, against daemons of the same build.
pub(crate) fn clients(cache: &Path) -> Result<()> {
    clients::fetch_frameworks(cache)?;
    run(cache, &CLIENTS.map(str::to_owned))
}

/// The test runner: the machine's own, or the one of `tools`.
fn runner(cache: &Path) -> Result<Command> {
    let mut command = shell::cargo();
    let has_own = shell::cargo().args(["nextest", "--version"]).output().is_ok_and(|out| out.status.success());
    if !has_own {
        let path = tools::get(cache, &tools::NEXTEST)?;
        let inherited = env::var_os("PATH").unwrap_or_default();
        let dirs = path.parent().into_iter().map(Path::to_owned).chain(env::split_paths(&inherited));
        command.env("PATH", env::join_paths(dirs)?);
    }
    command.args(["nextest", "run"]);
    Ok(command)
}

/// Of what people run: the release build, and `artel-failpoints` of the same build.
pub(crate) fn bench(cache: &Path) -> Result<()> {
    shell::run(shell::cargo().args(["build", "--locked", "--release", "--workspace"]))?;
    let mut command = shell::cargo();
    command.args(["bench", "--locked", "--profile", "release", "--package", "artel-tests"]);
    shell::run(with_models(&mut command, cache))
}

fn with_models<'c>(command: &'c mut Command, cache: &Path) -> &'c mut Command {
    command.env("ARTEL_TEST_MODELS", models::dir(cache)).env("ARTEL_TEST_PYTHON", shell::python(cache));
    command.env("ARTEL_TEST_PROMETHEUS", prometheus::root(cache)).env("ARTEL_TEST_WEB", web::root(cache));
    command.env("ARTEL_TEST_JSON_SCHEMA_SUITE", json_schema_suite::dir(cache));
    command.env("ARTEL_TEST_CHAT_TEMPLATES", chat_templates::dir(cache)).env("ARTEL_TEST_CLIENTS", cache);
    command.env("ARTEL_TEST_TRAINER_PYTHON", trainer::python(cache))
}
