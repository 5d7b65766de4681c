//! `cargo xtask demo`: a daemon, a real task through the graph of an example, the answer as it is written.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{models, shell};

/// A message as a small shop gets it. The graph is an example of the book's tutorial.
const MESSAGE: &str = "My lamp from order #55128 came with a cracked shade and I want my $39 back or another one.";

pub(crate) fn run(cache: &Path, message: Option<&str>) -> Result<()> {
    let artel = build()?;
    let data = cache.join("demo");
    let mut daemon = DemoDaemon::start(&artel, cache, &data)?;
    let message = message.unwrap_or(MESSAGE);
    eprintln!("xtask: artel run --graph helpdesk {message:?}\n");
    let args = ["run", "--graph", "helpdesk", "--", message];
    let mut run = Command::new(&artel);
    run.args(args).env("ARTEL_ADDRESS", &daemon.address).env("ARTEL_DATA", &data);
    let asked = run.env_remove("ARTEL_TOKEN").env_remove("ARTEL_TOKEN_FILE").status();
    let asked = asked.with_context(|| format!("failed to start {}", artel.display()))?;
    daemon.stop()?;
    if !asked.success() {
        bail!("the task ended with {asked}; the daemon's log is {}", daemon.log.display());
    }
    eprintln!(
        "\nxtask: a model of 135M parameters sorts and copies; one of 7B or more also writes the reply, judges and plans.\n\
         xtask: name one in a model document with `file: hf:ORG/REPO/FILE.gguf`; the shipped graph `mentor` is made for such.\n\
         xtask: start your own with: {} serve --catalog {} --models {}",
        artel.display(),
        example().display(),
        models::dir(cache).display()
    );
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
    command.args(["build", "--locked", "--workspace", "--message-format=json-render-diagnostics"]);
    let output = command.stderr(Stdio::inherit()).output().context("failed to start cargo")?;
    if !output.status.success() {
        bail!("cargo build ended with {}", output.status);
    }
    // Cargo says where the binary is, whatever the target directory is.
    let executables = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    let found = executables.into_iter().find(|path| path.file_stem().is_some_and(|name| name == "artel"));
    found.context("cargo built no binary `artel`")
}

struct DemoDaemon {
    child: Child,
    address: String,
    log: PathBuf,
}

impl DemoDaemon {
    fn start(artel: &Path, cache: &Path, data: &Path) -> Result<Self> {
        std::fs::create_dir_all(data).with_context(|| format!("failed to create {}", data.display()))?;
        let log = data.join("log");
        let file = std::fs::File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        let mut child = Command::new(artel)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--catalog")
            .arg(example())
            .arg("--models")
            .arg(models::dir(cache))
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("failed to start {}", artel.display()))?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the daemon's output is piped")?;
        BufReader::new(stdout).read_line(&mut line).context("failed to read from the daemon")?;
        let address = serde_json::from_str::<serde_json::Value>(&line)
            .ok()
            .and_then(|ready| ready["listening"].as_str().map(str::to_owned));
        let Some(address) = address else {
            bail!("the daemon did not start: {}", std::fs::read_to_string(&log).unwrap_or_default());
        };
        eprintln!("xtask: a daemon listens on {address}");
        Ok(Self { child, address, log })
    }

    fn stop(&mut self) -> Result<()> {
        let id = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).context("failed to stop the daemon")?;
        let ended = self.child.wait().context("failed to wait for the daemon")?;
        if ended.success() { Ok(()) } else { bail!("the daemon ended with {ended}; its log is {}", self.log.display()) }
    }
}

impl Drop for DemoDaemon {
    fn drop(&mut self) {
        // A daemon that was stopped is gone already.
        let _ = self.child.kill();
    }
}
