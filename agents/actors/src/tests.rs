//! A runtime with scripted engines and a real journal: tasks run, are cancelled and resumed, and survive panics.

mod commit_barrier;
pub(crate) mod fixtures;
mod graphs;
mod model_scheduler;
mod panics;
mod routing;
mod runtime;
