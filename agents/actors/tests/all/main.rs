//! A runtime from outside, with scripted engines and a real journal: tasks run, are cancelled and resumed.
#![allow(clippy::unwrap_used, missing_docs)]

mod clock;
mod commit_barrier;
mod erase;
mod fixtures;
mod graphs;
mod held_engine;
mod metrics;
mod model_scheduler;
mod quota;
mod reload;
mod routing;
mod runtime;
mod set_aside;
