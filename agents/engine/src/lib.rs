//! Many sequences on one model: continuous batching, fairness between flows, streaming, cancellation.
//!
//! A [`Handle`] is what others hold. [`Handle::generate`] hands a [`Request`] to the one thread that owns the model and
//! gives back a [`Stream`] of [`Chunk`]s; dropping the stream ends the sequence. What goes into the next batch is decided
//! by a pure function, [`schedule::next`], over plain data; the thread performs it on a [`Backend`]: llama.cpp in life, a
//! script in tests. An engine in a process of its own implements [`Engine`], so that others need not know where it runs.
//!
//! This crate never hears of roles, tasks, gRPC or llama.cpp: a role is a flow here, a name to be fair to.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backend;
mod choice;
mod command;
mod cost;
mod counters;
mod draft;
mod engine;
mod expected;
mod handle;
mod lanes;
mod local;
mod options;
mod prefix;
pub mod request;
pub mod schedule;
pub mod scripted;
mod seats;
mod sequence;
pub mod shelf;
mod stream;
mod turn;
mod waiting;
mod worker;

pub use backend::{Backend, Embedded, Lane, Prompt, Text, Token};
pub use counters::Stats;
pub use draft::Drafts;
pub use engine::Engine;
pub use handle::Handle;
pub use options::Options;
pub use request::{
    Choice, Chunk, Class, Error, Finish, Message, Overflow, Reason, Request, Sampling, Speaker, Timings, Usage,
};
pub use stream::{Expectation, Stream};
pub use turn::{Turn, Turns};
