//! The messages to the router.

use artel_task::event::{Decision, Failure};
use ractor::RpcReplyPort;
use tokio::sync::watch;

use crate::request::{RouterEngines, RoutingRequest};

/// The messages to the router.
pub enum Message {
    /// Answers with a decision, made with these engines.
    Decide(Box<RoutingRequest>, RouterEngines, RpcReplyPort<Result<Decision, Failure>>),
    /// Indexes the candidates of these requests while no task is busy, in place of the previous list.
    WarmUp(Vec<(RoutingRequest, RouterEngines)>, watch::Receiver<usize>),
    /// Panics, as a bug would.
    #[cfg(feature = "test-panics")]
    Panic,
}
