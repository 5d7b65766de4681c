//! `cargo xtask demo`: a daemon, a real task through the graph of an example, and a question to this project's book; the answers as
//! they are written.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::local_daemon::LocalDaemon;
use crate::{models, shell};

/// A message as a small shop gets it. The graph is an example of the book's tutorial.
const MESSAGE: &str = "My lamp from order #55128 came with a cracked shade and I want my $39 back or another one.";

/// A question that the book answers.
const QUESTION: &str = "What is a prefix cache?";
/// How often it is looked whether the book is indexed.
const INDEX_INTERVAL: Duration = Duration::from_millis(200);
/// Indexing takes seconds.
const INDEX_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn run(cache: &Path, message: Option<&str>) -> Result<()> {
    let artel = build()?;
    let data = cache.join("demo");
    let (catalog, models) = (example(), models::dir(cache));
    let args = [OsStr::new("--catalog"), catalog.as_os_str(), OsStr::new("--models"), models.as_os_str()];
    let mut daemon = LocalDaemon::start(&artel, &data, &args, &[])?;
    eprintln!("xtask: a daemon listens on {}", daemon.address);
    let message = message.unwrap_or(MESSAGE);
    eprintln!("xtask: artel run --graph helpdesk {message:?}\n");
    let asked = daemon.command("run").args(["--graph", "helpdesk", "--", message]).status();
    let asked = asked.with_context(|| format!("failed to start {}", artel.display()))?;
    let answered = if asked.success() { ask_the_book(&daemon) } else { Ok(()) };
    daemon.stop()?;
    if !asked.success() {
        bail!("the task ended with {asked}; the daemon's log is {}", daemon.log.display());
    }
    answered?;
    eprintln!(
        "\nxtask: a model of 135M parameters sorts and copies; one of 7B or more also writes the reply, judges and plans.\n\
         xtask: name one in a model document with `file: hf:ORG/REPO/FILE.gguf`; the shipped graph `mentor` is made for such.\n\
         xtask: start your own with: {} serve --catalog {} --models {}",
        artel.display(),
        catalog.display(),
        models.display()
    );
    Ok(())
}

/// Asks the graph `library`, whose knowledge is the book.
fn ask_the_book(daemon: &LocalDaemon) -> Result<()> {
    let deadline = Instant::now() + INDEX_TIMEOUT;
    loop {
        let status = daemon.command("knowledge").args(["status", "library"]).output()?;
        if String::from_utf8_lossy(&status.stdout).contains("up to date") {
            break;
        }
        if Instant::now() > deadline {
            bail!(
                "the book is not indexed after {} s; the daemon's log is {}",
                INDEX_TIMEOUT.as_secs(),
                daemon.log.display()
            );
        }
        std::thread::sleep(INDEX_INTERVAL);
    }
    eprintln!("\nxtask: artel run --graph library {QUESTION:?}\n");
    let asked = daemon.command("run").args(["--graph", "library", "--", QUESTION]).status()?;
    if !asked.success() {
        bail!("the task ended with {asked}; the daemon's log is {}", daemon.log.display());
    }
    Ok(())
}

/// The catalog of the demo.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("examples/helpdesk")
}

/// The binary, built.
pub(crate) fn build() -> Result<PathBuf> {
    eprintln!("xtask: building artel (the first time takes some fifteen minutes on two cores: llama.cpp is compiled)");
    let mut command = shell::cargo();
    // The whole workspace, as the tests do: another choice of packages has other features, and would be built anew.
    command.args(["build", "--locked", "--workspace"]);
    shell::built(&mut command, "artel")
}
