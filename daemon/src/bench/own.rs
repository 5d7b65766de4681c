//! A daemon of our own: started on a free port, with a journal of its own, and stopped when it is dropped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use artel_proto::v1;
use artel_proto::v1::event::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::contestant::{Answer, Extra, Role};
use crate::client::connect::{Address, Daemon};

/// The context of the model: the longest prompt of a workload and its answer.
pub(super) const CONTEXT: u32 = 4096;
/// Longer than the pause between two prompts that are computed ahead.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The graph in which the roles of a workload run one after the other.
const CHAIN: &str = "chain";

pub(super) struct Own {
    dir: TempDir,
    model: PathBuf,
    threads: Option<u32>,
    inside: bool,
    child: Child,
    daemon: Daemon,
}

#[derive(Clone)]
pub(super) struct Asker(Daemon);

impl Own {
    /// `inside`: its engines run in it, not in processes of their own.
    pub(super) async fn start(model: &Path, threads: Option<u32>, inside: bool) -> Result<Self> {
        let dir = TempDir::new().context("failed to make a directory for the daemon")?;
        std::fs::create_dir(dir.path().join("catalog")).context("failed to make a directory for the catalog")?;
        let mut settings = threads.map(|threads| format!("threads: {threads}\n")).unwrap_or_default();
        if inside {
            settings.push_str("engines: inside\n");
        }
        std::fs::write(dir.path().join("settings.yaml"), settings).context("failed to write the settings")?;
        let (child, daemon) = launch(dir.path(), model).await?;
        let own = Self { dir, model: model.to_owned(), threads, inside, child, daemon };
        own.learn().await;
        Ok(own)
    }

    pub(super) fn name(&self) -> &'static str {
        if self.inside { "inside" } else { "artel" }
    }

    pub(super) fn asker(&self) -> Asker {
        Asker(self.daemon.clone())
    }

    /// The catalog of these roles; on disk too, so that it is there after a restart.
    pub(super) async fn prepare(&mut self, roles: &[Role]) -> Result<()> {
        let documents = roles.iter().map(document).chain([chain(roles)]);
        self.serve(documents.collect()).await
    }

    /// The catalog of these documents and the model `bench`.
    pub(super) async fn serve(&mut self, more: Vec<Value>) -> Result<()> {
        let mut documents = vec![json!({
            "model": "bench", "file": self.model, "context": CONTEXT, "sequences": 8,
        })];
        documents.extend(more);
        // JSON is YAML.
        let text = documents.iter().map(|d| format!("---\n{d}\n")).collect::<String>();
        std::fs::write(self.dir.path().join("catalog/bench.yaml"), &text).context("failed to write the catalog")?;
        let files = vec![v1::SourceFile { path: "bench.yaml".to_owned(), content: text.into_bytes() }];
        let request = v1::ApplyRequest { files, expected_version: String::new() };
        let applied = self.daemon.catalog().apply(request).await.context("failed to apply the catalog")?.into_inner();
        if let Some(problem) = applied.problems.first() {
            bail!("the bench's own catalog is refused: {}", problem.message);
        }
        Ok(())
    }

    /// Waits until the router knows the roles that ship, which it learns when nobody asks anything else.
    async fn learn(&self) {
        let request = v1::PreviewRequest { question: "Ready?".to_owned(), ..v1::PreviewRequest::default() };
        if let Err(status) = self.daemon.router().preview(request).await {
            // Where there is no model that compares texts, there is nothing to learn.
            eprintln!("the router learns nothing: {}", status.message());
        }
    }

    /// What the router node of the graph `bench` decides under these settings.
    pub(super) async fn route(&self, settings: &str, question: &str) -> Result<v1::Decision> {
        let request = v1::PreviewRequest {
            question: question.to_owned(),
            graph: "bench".to_owned(),
            node: "pick".to_owned(),
            settings: settings.to_owned(),
            ..v1::PreviewRequest::default()
        };
        let answer = self.daemon.router().preview(request).await.context("failed to route")?.into_inner();
        answer.decision.context("the daemon did not decide")
    }

    /// Waits until no engine computes: prompts of new roles are computed ahead, and whoever is measured meanwhile waits for
    /// these.
    pub(super) async fn rest(&self) -> Result<()> {
        let mut computed = None;
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let request = v1::ListEnginesRequest::default();
            let engines =
                self.daemon.fleet().list_engines(request).await.context("failed to list engines")?.into_inner();
            let busy = engines.engines.iter().any(|engine| engine.active_sequences + engine.queued_sequences > 0);
            let totals = engines.engines.iter().filter_map(|engine| engine.totals.as_ref());
            let now: u64 = totals.map(|totals| totals.computed_tokens).sum();
            if !busy && computed == Some(now) {
                return Ok(());
            }
            computed = Some(now);
        }
    }

    pub(super) async fn restart(&mut self) -> Result<()> {
        let id = self.child.id().context("the daemon has ended")?;
        kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM).context("failed to stop the daemon")?;
        let ended = self.child.wait().await.context("failed to wait for the daemon")?;
        if !ended.success() {
            bail!("the daemon ended with {ended}");
        }
        (self.child, self.daemon) = launch(self.dir.path(), &self.model).await?;
        Ok(())
    }
}

fn document(role: &Role) -> Value {
    let mut document = json!({
        "role": role.name, "description": "Is measured.", "model": "bench", "prompt": role.prompt,
        "sampling": {"temperature": 0, "max_tokens": role.max_tokens},
        "limits": {"concurrency": 64, "queue": 1000, "timeout": "1h", "idle": "1h"},
    });
    match &role.extra {
        Extra::None => {}
        Extra::Batch => document["class"] = json!("batch"),
        Extra::Adapter(_, file) => document["adapter"] = json!(file),
        Extra::OneOf(labels) | Extra::Token(labels) => document["output"] = json!({"enum": labels}),
    }
    document
}

/// A graph in which the roles run one after the other.
fn chain(roles: &[Role]) -> Value {
    let next = |at: usize| roles.get(at + 1).map_or("done", |role| role.name.as_str());
    let nodes = roles.iter().enumerate().map(|(at, role)| {
        let node = json!({"role": role.name, "next": next(at)});
        (role.name.clone(), node)
    });
    let nodes: serde_json::Map<String, Value> = nodes.collect();
    let start = roles.first().map(|role| role.name.as_str());
    json!({
        "graph": CHAIN, "description": "Is measured.", "start": start, "nodes": nodes,
        "limits": {"steps": roles.len().max(1), "tokens": 1_000_000, "time": "1h"},
    })
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("model", &self.model).field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Other models, such as the one that compares texts, are looked for beside the model.
async fn launch(dir: &Path, model: &Path) -> Result<(Child, Daemon)> {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log"));
    let mut child = Command::new(std::env::current_exe().context("failed to find this program")?)
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--config"])
        .arg(dir.join("settings.yaml"))
        .arg("--data")
        .arg(dir.join("data"))
        .arg("--catalog")
        .arg(dir.join("catalog"))
        .arg("--models")
        .arg(model.parent().unwrap_or(dir))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.context("failed to open the daemon's log")?)
        .kill_on_drop(true)
        .spawn()
        .context("failed to start the daemon")?;
    let stdout = child.stdout.take().context("the daemon's output is piped")?;
    let line = BufReader::new(stdout).lines().next_line().await.context("failed to read from the daemon")?;
    let ready: Option<Value> = line.and_then(|line| serde_json::from_str(&line).ok());
    let listening = ready.as_ref().and_then(|ready| ready["listening"].as_str());
    let Some(listening) = listening else {
        bail!("the daemon did not start: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default());
    };
    let address: Address = listening.parse().map_err(anyhow::Error::msg)?;
    let daemon = Daemon::connect(&address).await.map_err(|_| anyhow::anyhow!("the daemon does not answer"))?;
    Ok((child, daemon))
}

impl Asker {
    pub(super) async fn ask(&self, role: &Role, question: &str, heard: impl FnMut(usize)) -> Result<Answer> {
        self.run(v1::submit_request::Target::Role(role.name.clone()), question, heard).await
    }

    pub(super) async fn chain(&self, question: &str) -> Result<Answer> {
        self.run(v1::submit_request::Target::Graph(CHAIN.to_owned()), question, |_| {}).await
    }

    async fn run(
        &self,
        target: v1::submit_request::Target,
        question: &str,
        mut heard: impl FnMut(usize),
    ) -> Result<Answer> {
        let target = Some(target);
        let submit = v1::SubmitRequest { target, input: question.to_owned(), ..v1::SubmitRequest::default() };
        // When the last step said its last.
        let (mut answer, mut said) = (Answer::begun(), None);
        let request = v1::RunRequest { submit: Some(submit), cancel_on_disconnect: true };
        let mut stream = self.0.tasks().run(request).await.context("failed to ask")?.into_inner();
        while let Some(event) = stream.message().await.context("failed to listen")? {
            match event.kind {
                Some(Kind::Token(token)) => {
                    let now = Instant::now();
                    answer.hops.extend(said.take().map(|said| now - said));
                    answer.pieces.push(now);
                    answer.text.push_str(&token.text);
                    heard(answer.pieces.len());
                }
                Some(Kind::StepFinished(finished)) => {
                    let usage = finished.usage.unwrap_or_default();
                    answer.prompt += usage.prompt_tokens;
                    answer.computed += usage.computed_tokens;
                    answer.output += usage.output_tokens;
                    said = answer.pieces.last().copied();
                }
                Some(Kind::Failed(failed)) => bail!("a task failed: {}", failed.failure.unwrap_or_default().message),
                _ => {}
            }
        }
        answer.ended = Instant::now();
        Ok(answer)
    }
}
