//! A system under test: the daemon of this program, or another server.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::own_daemon::{OwnDaemon, OwnDaemonClient};
use super::peer_server::PeerServer;

/// A role of a workload.
#[derive(Debug, Clone)]
pub(super) struct BenchRole {
    pub(super) name: String,
    pub(super) prompt: String,
    pub(super) max_tokens: u32,
    pub(super) option: RoleOption,
}

impl BenchRole {
    /// A role that answers interactive requests in free text.
    pub(super) fn new(name: impl Into<String>, prompt: impl Into<String>, max_tokens: u32) -> Self {
        Self { name: name.into(), prompt: prompt.into(), max_tokens, option: RoleOption::None }
    }

    pub(super) fn with(self, option: RoleOption) -> Self {
        Self { option, ..self }
    }
}

/// A property of a role beyond its prompt.
#[derive(Debug, Clone)]
pub(super) enum RoleOption {
    None,
    /// Its requests have batch priority.
    Batch,
    /// An adapter: its index among the adapters of the bench, and its file.
    Adapter(usize, PathBuf),
    /// It answers one of these labels, as JSON.
    EnumJson(Vec<String>),
    /// It answers one of these labels with its first token, if the server supports that.
    EnumToken(Vec<String>),
}

/// An answer and the times at which its chunks arrived.
#[derive(Debug, Clone)]
pub(super) struct TimedAnswer {
    pub(super) sent_at: Instant,
    pub(super) finished_at: Instant,
    pub(super) chunk_times: Vec<Instant>,
    /// Tokens of the prompt, and those of them that no cache held, if the server reports them.
    pub(super) prompt_tokens: u64,
    pub(super) prefill_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) text: String,
    /// For each hop of a chain: from the last chunk of one role to the first chunk of the next.
    pub(super) hop_latencies: Vec<Duration>,
}

impl TimedAnswer {
    /// An answer of which no chunk has arrived.
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self {
            sent_at: now,
            finished_at: now,
            chunk_times: Vec::new(),
            prompt_tokens: 0,
            prefill_tokens: 0,
            output_tokens: 0,
            text: String::new(),
            hop_latencies: Vec::new(),
        }
    }

    /// Time to the first chunk; to the end if the model generated nothing.
    pub(super) fn time_to_first_token(&self) -> Duration {
        *self.chunk_times.first().unwrap_or(&self.finished_at) - self.sent_at
    }
}

pub(super) enum BenchTarget {
    Own(Box<OwnDaemon>),
    Peer(PeerServer),
}

impl BenchTarget {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Own(own) => own.name(),
            Self::Peer(_) => "peer",
        }
    }

    /// Installs these roles, and a graph that runs one after the other, where the server has roles.
    pub(super) async fn install_roles(&mut self, roles: &[BenchRole]) -> Result<()> {
        match self {
            Self::Own(own) => own.install_roles(roles).await,
            Self::Peer(_) => Ok(()),
        }
    }

    /// Installs these roles and waits until their prompts are prefilled.
    pub(super) async fn warm_up(&mut self, roles: &[BenchRole]) -> Result<()> {
        match self {
            Self::Own(own) => {
                let ready = BenchRole::new("ready", "You are ready.", 1);
                own.install_roles(&[roles, std::slice::from_ref(&ready)].concat()).await?;
                // The engine is loaded for the first request, and then prefills the prompts of the other roles.
                own.client().ask(&ready, "Ready?", |_| {}).await?;
                own.wait_until_idle().await
            }
            Self::Peer(peer) => {
                for role in roles {
                    peer.ask(&BenchRole { max_tokens: 1, ..role.clone() }, "Ready?", |_| {}).await?;
                }
                Ok(())
            }
        }
    }

    /// Restarts the server; false if it is not managed by the bench.
    pub(super) async fn restart(&mut self) -> Result<bool> {
        match self {
            Self::Own(own) => own.restart().await.map(|()| true),
            Self::Peer(_) => Ok(false),
        }
    }

    /// A client: cheap to clone, for concurrent requests.
    pub(super) fn client(&self) -> TargetClient {
        match self {
            Self::Own(own) => TargetClient::Own(own.client()),
            Self::Peer(peer) => TargetClient::Peer(peer.clone()),
        }
    }
}

#[derive(Clone)]
pub(super) enum TargetClient {
    Own(OwnDaemonClient),
    Peer(PeerServer),
}

impl TargetClient {
    /// Sends a request and reads its stream to the end; `on_chunk` gets the number of chunks so far.
    pub(super) async fn ask(
        &self,
        role: &BenchRole,
        question: &str,
        on_chunk: impl FnMut(usize) + Send + 'static,
    ) -> Result<TimedAnswer> {
        match self {
            Self::Own(own) => own.ask(role, question, on_chunk).await,
            Self::Peer(peer) => peer.ask(role, question, on_chunk).await,
        }
    }

    /// Sends the question to the first role, and the output of each role to the next one.
    pub(super) async fn ask_chain(&self, roles: &[BenchRole], question: &str) -> Result<TimedAnswer> {
        match self {
            Self::Own(own) => own.ask_chain(question).await,
            Self::Peer(peer) => peer.ask_chain(roles, question).await,
        }
    }
}
