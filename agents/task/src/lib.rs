//! What a task is: its ids, its events, the graph it runs and the state machine that runs it.
//!
//! A [`Graph`] that exists is bounded: every cycle has a limit and every node can be reached and left. [`State`] is the
//! fold of a task's [`Event`]s; [`decide`] looks at a graph and a state and says what comes next. Whoever runs a task
//! journals an event, applies it with [`State::apply`], and only then tells others: live running and replay after a crash
//! are the same fold.
//!
//! This crate does no IO, knows no clock, no engine and no YAML.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod condition;
mod decide;
pub mod event;
pub mod graph;
pub mod id;
mod state;

pub use condition::Condition;
pub use decide::{Next, NoWay, decide, leave};
pub use event::{Event, Kind};
pub use graph::Graph;
pub use id::{CatalogVersion, GraphName, ModelName, NodeName, RequestId, RoleName, Seq, StepId, TaskId, Visit};
pub use state::{Live, Node, Phase, Spent, State};
