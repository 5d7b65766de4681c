//! What a task is: its ids, its events, the graph it runs and the state machine that runs it.
//!
//! A [`Graph`] that exists is bounded: every cycle has a limit and every node can be reached and left. [`State`] is the
//! fold of a task's [`Event`]s; [`decide`] looks at a graph and a state and says what comes next. Whoever runs a task
//! journals an event, applies it with [`State::apply`], and only then tells others: live running and replay after a crash
//! are the same fold.
//!
//! What lies inside of a step is part of the same fold: a node with a `for_each` is a step that holds one step for each item,
//! a sub-graph is a step that holds a [`Scope`] of its own, as the task itself has one. A step that holds others is over when
//! they are, and everything that runs inside of it ends with it. Each step counts against the limits of all graphs around it.
//! What `decide` looks at is what runs and what has just arrived, never all that there was: a list of ten thousand items costs
//! ten thousand times what one item costs.
//!
//! This crate does no IO, knows no clock, no engine and no YAML.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod condition;
mod decide;
pub mod event;
pub mod graph;
pub mod id;
pub mod state;

pub use condition::Condition;
pub use decide::{Next, NoWay, Way, certain, decide, leave, rescue, values};
pub use event::{Event, Kind};
pub use graph::Graph;
pub use id::{
    CatalogVersion, GraphName, ModelName, NodeName, Place, RequestId, RoleName, RouterName, Seq, StepId, TaskId,
    ValueName, Visit,
};
pub use state::{Phase, Scope, State, output_value};
