//! A daemon whose model is a script, so that its own work is all that is measured: the program `artel-failpoints`.

use anyhow::{Context as _, Result, bail};
use artel_args::DaemonAddress;
use artel_client::{DaemonClient, DaemonLocation};
use artel_proto::v1;
use artel_proto::v1::event::Kind;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Child;

use crate::daemon_process;

/// The role whose tasks end at once.
const ROLE: &str = "worker";
/// The graph whose tasks wait for a person.
const QUESTION_GRAPH: &str = "question";

pub(crate) struct ScriptedDaemon {
    dir: TempDir,
    child: Child,
    address: DaemonAddress,
    owner: DaemonClient,
}

impl ScriptedDaemon {
    pub(crate) async fn start() -> Result<Self> {
        let dir = TempDir::new().context("failed to create a directory for the daemon")?;
        let catalog = dir.path().join("catalog");
        std::fs::create_dir(&catalog).context("failed to create a directory for the catalog")?;
        let script = json!({"replies": [{"say": "So be it."}]});
        let question = json!({"ask": {"ask": {"message": "Which?", "deadline": "1h"}, "next": "done"}});
        let documents = [
            json!({"model": "talk", "file": "talk.script", "sequences": 32}),
            // No router is warmed up.
            json!({"model": "minilm", "file": "talk.script", "use": "embedding"}),
            json!({
                "role": ROLE, "description": "Answers.", "model": "talk", "prompt": "You answer.",
                "limits": {"concurrency": 64, "queue": 4096},
            }),
            json!({"graph": QUESTION_GRAPH, "description": "Asks.", "start": "ask", "nodes": question}),
        ];
        // JSON is YAML.
        let text = documents.iter().map(|document| format!("---\n{document}\n")).collect::<String>();
        for (path, text) in [
            (catalog.join("talk.script"), script.to_string()),
            (catalog.join("bench.yaml"), text),
            (dir.path().join("settings.yaml"), "{}\n".to_owned()),
        ] {
            std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
        let (child, address) = daemon_process::launch("artel-failpoints", dir.path(), dir.path()).await?;
        let owner = daemon_process::connect_owner(address.clone(), dir.path()).await?;
        let daemon = Self { dir, child, address, owner };
        // Its engine is loaded with the first task.
        daemon.owner().run_task().await?;
        Ok(daemon)
    }

    pub(crate) fn owner(&self) -> ScriptedCaller {
        ScriptedCaller(self.owner.clone())
    }

    /// A connection of its own for a caller with this token, or for a stranger.
    pub(crate) async fn connect(&self, token: Option<&str>) -> Result<DaemonClient> {
        let location = DaemonLocation::at(self.address.clone(), token.map(str::to_owned));
        DaemonClient::connect(&location).await.context("failed to connect to the daemon of the bench")
    }

    /// Makes a token; its secret.
    pub(crate) async fn create_token(&self, name: &str, limits: v1::AccessLimits) -> Result<String> {
        let scopes = ["read:all", "submit", "answer"].map(str::to_owned).to_vec();
        let request = v1::CreateTokenRequest { name: name.to_owned(), scopes, lifetime: None, limits: Some(limits) };
        let made = self.owner.access().create_token(request).await.context("failed to make a token")?;
        Ok(made.into_inner().secret)
    }

    /// The memory of its process, its engine among it, in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let process = self.child.id().context("the daemon has ended; see its log")?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status"));
        let status = status.context("the system does not say how much memory a process has")?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        let kib: f64 = kib.context("the system does not say how much memory a process has")?;
        Ok(kib / 1024.0)
    }

    /// How often its log has this text.
    pub(crate) fn logged(&self, text: &str) -> Result<usize> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).context("failed to read the daemon's log")?;
        Ok(log.matches(text).count())
    }
}

/// A caller of the daemon. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ScriptedCaller(pub(crate) DaemonClient);

impl ScriptedCaller {
    /// Runs a task of the role to its end.
    pub(crate) async fn run_task(&self) -> Result<()> {
        let target = Some(v1::submit_request::Target::Role(ROLE.to_owned()));
        let submit = v1::SubmitRequest { target, input: "Now?".to_owned(), ..v1::SubmitRequest::default() };
        let request = v1::RunRequest { submit: Some(submit), cancel_on_disconnect: false };
        let mut stream = self.0.tasks().run(request).await.context("failed to run a task")?.into_inner();
        let mut last = None;
        while let Some(event) = stream.message().await.context("failed to read the events of a task")? {
            last = event.kind;
        }
        match last {
            Some(Kind::Completed(_)) => Ok(()),
            other => bail!("a task did not complete: {other:?}"),
        }
    }

    /// Submits a task that waits for a person, and returns its id once it asks.
    pub(crate) async fn submit_question(&self) -> Result<String> {
        let target = Some(v1::submit_request::Target::Graph(QUESTION_GRAPH.to_owned()));
        let request = v1::SubmitRequest { target, input: "Which?".to_owned(), ..v1::SubmitRequest::default() };
        let id = self.0.tasks().submit(request).await.context("failed to submit a task")?.into_inner().id;
        let watch = v1::WatchRequest { task_id: id.clone(), ..v1::WatchRequest::default() };
        let mut events = self.0.tasks().watch(watch).await.context("failed to watch a task")?.into_inner();
        while let Some(event) = events.message().await.context("failed to read the events of a task")? {
            if matches!(event.kind, Some(Kind::Waiting(_))) {
                return Ok(id);
            }
        }
        bail!("a task with a question ended")
    }

    /// Reads a task: a call that costs little.
    pub(crate) async fn get(&self, task_id: String) -> Result<()> {
        let request = v1::GetTaskRequest { task_id, ..v1::GetTaskRequest::default() };
        self.0.tasks().get(request).await.context("failed to read a task").map(drop)
    }
}
