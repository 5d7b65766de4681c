//! A daemon that the bench starts on a free port with an empty journal, and that is killed on drop.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use artel_args::DaemonAddress;
use artel_client::DaemonClient;
use artel_proto::v1;
use artel_proto::v1::event::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;

use crate::answer::TimedAnswer;
use crate::daemon_process;
use crate::role::{BenchRole, RoleOption};

/// The model's context: fits the longest prompt of a workload and its answer.
pub(crate) const CONTEXT_TOKENS: u32 = 4096;
/// Longer than the pause between two background prefills.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The graph in which the roles of a workload run one after the other.
const CHAIN_GRAPH: &str = "chain";
/// The name of the token for requests over HTTP.
const HTTP_TOKEN: &str = "http";

/// What a daemon of the bench has beside its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DaemonVariant {
    /// Nothing: engines run in processes of their own, as they do by default.
    Default,
    /// Engines run in the daemon.
    InProcess,
    /// Every task is traced to this collector.
    Traced(String),
}

pub(crate) struct OwnDaemon {
    dir: TempDir,
    model: PathBuf,
    threads: Option<u32>,
    variant: DaemonVariant,
    child: Child,
    address: DaemonAddress,
    daemon: DaemonClient,
}

#[derive(Clone)]
pub(crate) struct OwnDaemonClient(DaemonClient);

impl OwnDaemon {
    pub(crate) async fn start(model: &Path, threads: Option<u32>, variant: DaemonVariant) -> Result<Self> {
        let dir = TempDir::new().context("failed to create a directory for the daemon")?;
        std::fs::create_dir(dir.path().join("catalog")).context("failed to create a directory for the catalog")?;
        let mut settings = threads.map(|threads| format!("threads: {threads}\n")).unwrap_or_default();
        // The catalogs of the bench name the files of its user, and come over gRPC.
        settings.push_str("network: {files: [/]}\n");
        match &variant {
            DaemonVariant::Default => {}
            DaemonVariant::InProcess => settings.push_str("engines: inside\n"),
            DaemonVariant::Traced(endpoint) => settings.push_str(&format!("traces: {{endpoint: '{endpoint}'}}\n")),
        }
        std::fs::write(dir.path().join("settings.yaml"), settings).context("failed to write the settings")?;
        let (child, address, daemon) = launch(dir.path(), model).await?;
        let own = Self { dir, model: model.to_owned(), threads, variant, child, address, daemon };
        own.wait_for_router().await;
        Ok(own)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.variant {
            DaemonVariant::Default => "artel",
            DaemonVariant::InProcess => "in_process",
            DaemonVariant::Traced(_) => "traced",
        }
    }

    /// Its address over HTTP, and a token for tasks.
    pub(crate) async fn http_access(&self) -> Result<(String, String)> {
        let revoke = v1::RevokeTokenRequest { name: HTTP_TOKEN.to_owned() };
        // That of an earlier repeat, if there was one.
        let _ = self.daemon.access().revoke_token(revoke).await;
        let scopes = ["read", "submit"].map(str::to_owned).to_vec();
        let request = v1::CreateTokenRequest { name: HTTP_TOKEN.to_owned(), scopes, lifetime: None, limits: None };
        let made = self.daemon.access().create_token(request).await.context("failed to make a token")?;
        Ok((self.address.to_string(), made.into_inner().secret))
    }

    pub(crate) fn client(&self) -> OwnDaemonClient {
        OwnDaemonClient(self.daemon.clone())
    }

    /// Applies a catalog of these roles.
    pub(crate) async fn install_roles(&mut self, roles: &[BenchRole]) -> Result<()> {
        let documents = roles.iter().map(role_document).chain([chain_graph(roles)]);
        self.apply_documents(documents.collect()).await
    }

    /// Applies a catalog of these documents and the model `bench`; also writes it to disk, so that it survives a restart.
    pub(crate) async fn apply_documents(&mut self, more: Vec<Value>) -> Result<()> {
        let mut documents = vec![json!({
            "model": "bench", "file": self.model, "context": CONTEXT_TOKENS, "sequences": 8,
        })];
        documents.extend(more);
        // JSON is YAML.
        let text = documents.iter().map(|d| format!("---\n{d}\n")).collect::<String>();
        std::fs::write(self.dir.path().join("catalog/bench.yaml"), &text).context("failed to write the catalog")?;
        let files = vec![v1::SourceFile { path: "bench.yaml".to_owned(), content: text.into_bytes() }];
        let request = v1::ApplyRequest { files, expected_version: String::new() };
        let applied = self.daemon.catalog().apply(request).await.context("failed to apply the catalog")?.into_inner();
        if let Some(problem) = applied.problems.first() {
            bail!("the daemon rejects the catalog of the bench: {}", problem.message);
        }
        Ok(())
    }

    /// Waits until the router has embedded the shipped roles, which it does in the background.
    async fn wait_for_router(&self) {
        let request = v1::PreviewRequest { question: "Ready?".to_owned(), ..v1::PreviewRequest::default() };
        if let Err(status) = self.daemon.router().preview(request).await {
            // Without an embedding model there is nothing to embed.
            eprintln!("the router has no embedding model: {}", status.message());
        }
    }

    /// The decision of the router node of the graph `bench` under these settings.
    pub(crate) async fn route(&self, settings: &str, question: &str) -> Result<v1::Decision> {
        let request = v1::PreviewRequest {
            question: question.to_owned(),
            graph: "bench".to_owned(),
            node: "pick".to_owned(),
            settings: settings.to_owned(),
            ..v1::PreviewRequest::default()
        };
        let answer = self.daemon.router().preview(request).await.context("failed to route")?.into_inner();
        answer.decision.context("the daemon returned no decision")
    }

    /// Waits until no engine computes: background prefill of new roles would delay the measured requests.
    pub(crate) async fn wait_until_idle(&self) -> Result<()> {
        let mut last_prefill_tokens = None;
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let request = v1::ListEnginesRequest::default();
            let engines =
                self.daemon.engines().list_engines(request).await.context("failed to list engines")?.into_inner();
            let busy = engines.engines.iter().any(|engine| engine.active_sequences + engine.queued_sequences > 0);
            let totals = engines.engines.iter().filter_map(|engine| engine.totals.as_ref());
            let prefill_tokens: u64 = totals.map(|totals| totals.prefill_tokens).sum();
            if !busy && last_prefill_tokens == Some(prefill_tokens) {
                return Ok(());
            }
            last_prefill_tokens = Some(prefill_tokens);
        }
    }

    pub(crate) async fn restart(&mut self) -> Result<()> {
        let id = self.child.id().context("the daemon has ended")?;
        kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM).context("failed to stop the daemon")?;
        let ended = self.child.wait().await.context("failed to wait for the daemon")?;
        if !ended.success() {
            bail!("the daemon ended with {ended}");
        }
        (self.child, self.address, self.daemon) = launch(self.dir.path(), &self.model).await?;
        Ok(())
    }
}

fn role_document(role: &BenchRole) -> Value {
    let mut document = json!({
        "role": role.name, "description": "A role of the bench.", "model": "bench", "prompt": role.prompt,
        "sampling": {"temperature": 0, "max_tokens": role.max_tokens},
        "limits": {"concurrency": 64, "queue": 1000, "timeout": "1h", "idle": "1h"},
    });
    match &role.option {
        RoleOption::None => {}
        RoleOption::Batch => document["priority"] = json!("batch"),
        RoleOption::Adapter(_, file) => document["adapter"] = json!(file),
        RoleOption::EnumJson(labels) | RoleOption::EnumToken(labels) => document["output"] = json!({"enum": labels}),
    }
    document
}

/// A graph in which the roles run one after the other.
fn chain_graph(roles: &[BenchRole]) -> Value {
    let next = |at: usize| roles.get(at + 1).map_or("done", |role| role.name.as_str());
    let nodes = roles.iter().enumerate().map(|(at, role)| {
        let node = json!({"role": role.name, "next": next(at)});
        (role.name.clone(), node)
    });
    let nodes: serde_json::Map<String, Value> = nodes.collect();
    let start = roles.first().map(|role| role.name.as_str());
    json!({
        "graph": CHAIN_GRAPH, "description": "The roles of the bench in a chain.", "start": start, "nodes": nodes,
        "limits": {"steps": roles.len().max(1), "tokens": 1_000_000, "time": "1h"},
    })
}

impl std::fmt::Debug for OwnDaemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnDaemon").field("model", &self.model).field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Starts the daemon. It finds other models, such as the embedding model, beside the given one.
async fn launch(dir: &Path, model: &Path) -> Result<(Child, DaemonAddress, DaemonClient)> {
    let (child, address) = daemon_process::launch("artel", dir, model.parent().unwrap_or(dir)).await?;
    let daemon = daemon_process::connect_owner(address.clone(), dir).await?;
    Ok((child, address, daemon))
}

impl OwnDaemonClient {
    pub(crate) async fn ask(
        &self,
        role: &BenchRole,
        question: &str,
        on_chunk: impl FnMut(usize),
    ) -> Result<TimedAnswer> {
        self.run(v1::submit_request::Target::Role(role.name.clone()), question, on_chunk).await
    }

    pub(crate) async fn ask_chain(&self, question: &str) -> Result<TimedAnswer> {
        self.run(v1::submit_request::Target::Graph(CHAIN_GRAPH.to_owned()), question, |_| {}).await
    }

    async fn run(
        &self,
        target: v1::submit_request::Target,
        question: &str,
        mut on_chunk: impl FnMut(usize),
    ) -> Result<TimedAnswer> {
        let target = Some(target);
        let submit = v1::SubmitRequest { target, input: question.to_owned(), ..v1::SubmitRequest::default() };
        // The last chunk of the step that finished last.
        let (mut answer, mut last_chunk) = (TimedAnswer::start(), None);
        let request = v1::RunRequest { submit: Some(submit), cancel_on_disconnect: true };
        let mut stream = self.0.tasks().run(request).await.context("failed to run a task")?.into_inner();
        while let Some(event) = stream.message().await.context("failed to read the events of a task")? {
            match event.kind {
                Some(Kind::Token(token)) => {
                    let now = Instant::now();
                    answer.hop_latencies.extend(last_chunk.take().map(|last| now - last));
                    answer.chunk_times.push(now);
                    answer.text.push_str(&token.text);
                    on_chunk(answer.chunk_times.len());
                }
                Some(Kind::StepFinished(finished)) => {
                    let usage = finished.usage.unwrap_or_default();
                    answer.prompt_tokens += usage.prompt_tokens;
                    answer.prefill_tokens += usage.prefill_tokens;
                    answer.output_tokens += usage.output_tokens;
                    last_chunk = answer.chunk_times.last().copied();
                }
                Some(Kind::Failed(failed)) => bail!("a task failed: {}", failed.failure.unwrap_or_default().message),
                _ => {}
            }
        }
        answer.finished_at = Instant::now();
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use artel_roles::{Catalog, YamlSource};

    use super::*;

    #[test]
    fn the_daemon_takes_every_kind_of_role_without_a_warning() {
        let labels = || vec!["one".to_owned(), "two".to_owned()];
        let options = [
            RoleOption::None,
            RoleOption::Batch,
            RoleOption::Adapter(0, "/a/mirk.gguf".into()),
            RoleOption::EnumJson(labels()),
            RoleOption::EnumToken(labels()),
        ];
        let roles = options.into_iter().enumerate();
        let roles: Vec<_> = roles.map(|(at, option)| BenchRole::new(format!("r{at}"), "P.", 8).with(option)).collect();
        let model = json!({"model": "bench", "file": "/m/bench.gguf", "context": CONTEXT_TOKENS, "sequences": 8});
        let documents = [model, chain_graph(&roles)].into_iter().chain(roles.iter().map(role_document));
        let text = documents.map(|document| format!("---\n{document}\n")).collect();
        let file = YamlSource { path: "bench.yaml".to_owned(), dir: None, text };
        let catalog = Catalog::parse(vec![vec![file]]).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(catalog.warnings().is_empty(), "{:?}", catalog.warnings());
    }
}
