//! Tasks: their ids, their events, the graph that a task runs and the state machine that runs it.
//!
//! A [`Graph`] that exists is bounded: every cycle has a limit, every node can be reached, and `done` can be reached from every
//! node. [`State`] is the fold of a task's [`Event`]s; [`decide`] takes a graph and a state and returns the next actions. The
//! caller journals an event, applies it with [`State::apply`], and only then publishes it: live execution and replay after a
//! crash are the same fold.
//!
//! Nested work is part of the same fold: a node with a `for_each` is a step that contains one step per item, and a sub-graph is
//! a step that contains a [`Scope`] of its own, as the task itself has one. A step that contains others ends when they have
//! ended, and everything that runs inside it ends with it. Each step counts against the limits of all graphs around it.
//! `decide` visits only active steps and new arrivals, never the history, so a list of ten thousand items costs ten thousand
//! times as much as one item.
//!
//! This crate does no IO and knows no engine and no YAML. What it decides depends on the time that it is given; [`Clock`] is
//! the type of its source.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
pub mod condition;
mod decide;
pub mod deep_stack;
pub mod event;
pub mod graph;
pub mod id;
pub mod portable;
pub mod state;
mod trace;
mod value_size;

pub use clock::Clock;
pub use condition::Condition;
pub use decide::{
    NextAction, Transition, TransitionError, decide, failure_edges, scope_values, transition, unconditional_edges,
};
pub use event::{Event, EventKind};
pub use graph::Graph;
pub use id::{
    AdapterName, CallerName, CatalogVersion, GraphName, KnowledgeName, ModelName, NodeName, PathSegment, RequestId,
    RoleName, RouterName, Seq, StepId, TaskId, TrainingName, ValueName, Visit,
};
pub use state::{Phase, Scope, State, output_value};
pub use trace::{CallerTrace, InvalidTraceContext, SpanId, TraceContext, TraceId};
