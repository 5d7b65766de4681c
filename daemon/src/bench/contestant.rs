//! Who is measured: our own daemon, or another server.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::own::Own;
use super::peer::Peer;

/// A role of a workload.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) prompt: String,
    pub(super) max_tokens: u32,
    pub(super) extra: Extra,
}

impl Role {
    /// A role that answers in text, somebody waiting.
    pub(super) fn new(name: impl Into<String>, prompt: impl Into<String>, max_tokens: u32) -> Self {
        Self { name: name.into(), prompt: prompt.into(), max_tokens, extra: Extra::None }
    }

    pub(super) fn with(self, extra: Extra) -> Self {
        Self { extra, ..self }
    }
}

/// What a role has beyond a prompt.
#[derive(Debug, Clone)]
pub(super) enum Extra {
    None,
    /// Nobody waits for its answers.
    Batch,
    /// An adapter: its place among those of the bench, and its file.
    Adapter(usize, PathBuf),
    /// It answers one of these, as JSON.
    OneOf(Vec<String>),
    /// It answers one of these with its first token; where this can be asked for.
    Token(Vec<String>),
}

/// When the pieces of an answer came.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) asked: Instant,
    pub(super) ended: Instant,
    pub(super) pieces: Vec<Instant>,
    /// Tokens of the prompt, and those of it that were computed; where the server tells.
    pub(super) prompt: u64,
    pub(super) computed: u64,
    pub(super) output: u64,
    pub(super) text: String,
    /// When the next one of a chain began and when its first piece came, for each hop.
    pub(super) hops: Vec<Duration>,
}

impl Answer {
    /// An answer of which nothing has come yet.
    pub(super) fn begun() -> Self {
        let now = Instant::now();
        Self {
            asked: now,
            ended: now,
            pieces: Vec::new(),
            prompt: 0,
            computed: 0,
            output: 0,
            text: String::new(),
            hops: Vec::new(),
        }
    }

    /// How long the first piece took; the end, if the model had nothing to say.
    pub(super) fn first(&self) -> Duration {
        *self.pieces.first().unwrap_or(&self.ended) - self.asked
    }
}

pub(super) enum Contestant {
    Own(Box<Own>),
    Peer(Peer),
}

impl Contestant {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Own(own) => own.name(),
            Self::Peer(_) => "peer",
        }
    }

    /// Makes these roles known, and a graph that runs one after the other, where that means something.
    pub(super) async fn prepare(&mut self, roles: &[Role]) -> Result<()> {
        match self {
            Self::Own(own) => own.prepare(roles).await,
            Self::Peer(_) => Ok(()),
        }
    }

    /// Makes these roles known, and waits until their prompts are computed.
    pub(super) async fn warm(&mut self, roles: &[Role]) -> Result<()> {
        match self {
            Self::Own(own) => {
                let ready = Role::new("ready", "You are ready.", 1);
                own.prepare(&[roles, std::slice::from_ref(&ready)].concat()).await?;
                // The engine is loaded for the first question, and computes what the others begin with.
                own.asker().ask(&ready, "Ready?", |_| {}).await?;
                own.rest().await
            }
            Self::Peer(peer) => {
                for role in roles {
                    peer.ask(&Role { max_tokens: 1, ..role.clone() }, "Ready?", |_| {}).await?;
                }
                Ok(())
            }
        }
    }

    /// Stops and starts it; false if that is not ours to do.
    pub(super) async fn restart(&mut self) -> Result<bool> {
        match self {
            Self::Own(own) => own.restart().await.map(|()| true),
            Self::Peer(_) => Ok(false),
        }
    }

    /// Who asks: cheap to clone, for many questions at once.
    pub(super) fn asker(&self) -> Asker {
        match self {
            Self::Own(own) => Asker::Own(own.asker()),
            Self::Peer(peer) => Asker::Peer(peer.clone()),
        }
    }
}

#[derive(Clone)]
pub(super) enum Asker {
    Own(super::own::Asker),
    Peer(Peer),
}

impl Asker {
    /// Asks and listens to the end; `heard` is told of each piece.
    pub(super) async fn ask(
        &self,
        role: &Role,
        question: &str,
        heard: impl FnMut(usize) + Send + 'static,
    ) -> Result<Answer> {
        match self {
            Self::Own(own) => own.ask(role, question, heard).await,
            Self::Peer(peer) => peer.ask(role, question, heard).await,
        }
    }

    /// Asks the first role, and each one after it what the one before it said.
    pub(super) async fn chain(&self, roles: &[Role], question: &str) -> Result<Answer> {
        match self {
            Self::Own(own) => own.chain(question).await,
            Self::Peer(peer) => peer.chain(roles, question).await,
        }
    }
}
