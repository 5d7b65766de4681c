//! Clients in other languages: scripts of `tests/scripts`, with modules of the protos made by the generators of their languages.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cli::Cli;
use crate::prerequisites::{python, repository, web};

/// The protos of what clients call.
const PROTOS: [&str; 4] =
    ["artel/v1/tasks.proto", "artel/v1/events.proto", "artel/v1/router.proto", "artel/v1/sampling.proto"];
/// The proto of the details of errors, which clients bring along.
const DETAILS_PROTO: &str = "google/rpc/error_details.proto";
/// The scripts for Node.js.
const NODE_SCRIPTS: [&str; 3] = ["browser.mjs", "calls.mjs", "grpc_web.mjs"];
/// Prints the directory with the protos that are installed beside Python's modules.
const INSTALLED_PROTOS: &str = "import pathlib, google.rpc.error_details_pb2 as details; \
                                print(pathlib.Path(details.__file__).parents[2])";

/// A script of `tests/scripts`.
pub fn script(name: &str) -> PathBuf {
    repository().join("tests/scripts").join(name)
}

/// Writes modules for Python into a directory.
pub async fn python_modules(dir: &Path) {
    let outputs = ["--python_out", "--grpc_python_out"].map(|flag| format!("{flag}={}", dir.display()));
    let generate = outputs.into_iter().fold(protoc(), Cli::arg);
    succeed(PROTOS.into_iter().fold(generate, Cli::arg)).await;
}

/// The generator that comes with grpcio.
fn protoc() -> Cli {
    let protos = format!("-I{}", repository().join("proto/proto").display());
    Cli::program(&python(), ["-m", "grpc_tools.protoc"]).arg(protos)
}

/// Runs a program to its end, and gives what it printed.
async fn succeed(cli: Cli) -> String {
    let (code, out, err) = cli.run().await;
    assert_eq!(code, 0, "{out}{err}");
    out
}

/// A directory with the scripts for Node.js, the packages that they import, and modules of the protos.
pub struct NodeScripts {
    dir: TempDir,
}

impl NodeScripts {
    /// Prepares one.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in NODE_SCRIPTS {
            fs::copy(script(name), dir.path().join(name)).unwrap();
        }
        symlink(web("node_modules"), dir.path().join("node_modules")).unwrap();
        // Without this file, Node.js takes the generated modules for CommonJS.
        fs::copy(script("package.json"), dir.path().join("package.json")).unwrap();
        let installed = succeed(Cli::program(&python(), ["-c", INSTALLED_PROTOS])).await;
        let plugin = dir.path().join("node_modules/.bin/protoc-gen-es");
        let generate = protoc()
            .arg(format!("-I{}", installed.trim_end()))
            .arg(format!("--plugin=protoc-gen-es={}", plugin.display()))
            .arg(format!("--es_out={}", dir.path().display()))
            .arg("--es_opt=target=js,import_extension=js")
            .arg(DETAILS_PROTO);
        succeed(PROTOS.into_iter().fold(with_node(generate), Cli::arg)).await;
        Self { dir }
    }

    /// A call of a script.
    pub fn cli(&self, name: &str) -> Cli {
        with_node(Cli::program(&web("node"), [])).arg(self.dir.path().join(name))
    }
}

/// The browser.
pub fn chromium() -> PathBuf {
    web("chromium")
}

/// With the same Node.js for the programs that it starts.
fn with_node(cli: Cli) -> Cli {
    let node = web("node");
    let inherited = env::var_os("PATH").unwrap_or_default();
    let dirs = node.parent().map(Path::to_owned).into_iter().chain(env::split_paths(&inherited));
    cli.env("PATH", env::join_paths(dirs).unwrap())
}
