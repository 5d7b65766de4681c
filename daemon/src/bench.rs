//! `artel bench`: becomes the program `artel-bench`, which lies beside this one. It measures llama.cpp alone as well, so that
//! it is no part of the daemon.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, io};

/// The file's name.
const PROGRAM: &str = "artel-bench";

/// Returns only if that program cannot be started. The arguments are parsed already, so that their errors and their help are
/// those of `artel`, and are passed on as they are.
pub(crate) fn run() -> ExitCode {
    let error = match env::current_exe() {
        Ok(own) => exec(&own.with_file_name(PROGRAM)),
        Err(error) => format!("failed to find the path of this program: {error}"),
    };
    eprintln!("artel: {error}");
    ExitCode::FAILURE
}

/// Why this process did not become the program.
fn exec(program: &Path) -> String {
    let (error, path) = (Command::new(program).args(env::args_os().skip(1)).exec(), program.display());
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no {path}: a release archive contains it beside `artel`, and `cargo build --workspace` builds it"
        ),
        _ => format!("failed to start {path}: {error}"),
    }
}
