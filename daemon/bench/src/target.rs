//! A system under test: a daemon of this program's own, or another server.

use anyhow::Result;

use crate::answer::TimedAnswer;
use crate::own_daemon::{OwnDaemon, OwnDaemonClient};
use crate::peer_server::PeerServer;
use crate::role::BenchRole;

pub(crate) enum BenchTarget {
    Own(Box<OwnDaemon>),
    Peer(PeerServer),
}

impl BenchTarget {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Own(own) => own.name(),
            Self::Peer(_) => "peer",
        }
    }

    /// Installs these roles, and a graph that runs one after the other, where the server has roles.
    pub(crate) async fn install_roles(&mut self, roles: &[BenchRole]) -> Result<()> {
        match self {
            Self::Own(own) => own.install_roles(roles).await,
            Self::Peer(_) => Ok(()),
        }
    }

    /// Installs these roles and waits until their prompts are prefilled.
    pub(crate) async fn warm_up(&mut self, roles: &[BenchRole]) -> Result<()> {
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
    pub(crate) async fn restart(&mut self) -> Result<bool> {
        match self {
            Self::Own(own) => own.restart().await.map(|()| true),
            Self::Peer(_) => Ok(false),
        }
    }

    /// A client: cheap to clone, for concurrent requests.
    pub(crate) fn client(&self) -> TargetClient {
        match self {
            Self::Own(own) => TargetClient::Own(own.client()),
            Self::Peer(peer) => TargetClient::Peer(peer.clone()),
        }
    }
}

#[derive(Clone)]
pub(crate) enum TargetClient {
    Own(OwnDaemonClient),
    Peer(PeerServer),
}

impl TargetClient {
    /// Sends a request and reads its stream to the end; `on_chunk` gets the number of chunks so far.
    pub(crate) async fn ask(
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
    pub(crate) async fn ask_chain(&self, roles: &[BenchRole], question: &str) -> Result<TimedAnswer> {
        match self {
            Self::Own(own) => own.ask_chain(question).await,
            Self::Peer(peer) => peer.ask_chain(roles, question).await,
        }
    }
}
