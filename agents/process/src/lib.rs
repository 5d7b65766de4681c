//! An engine in a process of its own: an abort of llama.cpp, or the kernel's killing for lack of memory, takes one engine
//! down and never the daemon.
//!
//! [`start`] runs a program whose standard input is one end of a pair of sockets, has it load a model, and gives back an
//! [`artel_engine::EngineHandle`] like any other. In that program, [`serve`] answers on the other end with an engine of its own.
//! Between the two runs gRPC, package `artel.engine.v1`; nobody else can reach the sockets, since they have no name. The
//! process ends when its socket closes, so none outlives the daemon, and what it writes to standard error goes into the
//! daemon's log. How it died is told in words: [`Handle::ended`](artel_engine::EngineHandle::ended).
//!
//! Engines that compute on the same cores take turns through a [`Counter`].
//!
//! This crate knows nothing of llama.cpp, roles or tasks; what is loaded, and how, is the program's own affair.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod death;
mod log;
mod remote;
mod server;
mod start;
mod turns;
mod wire;

pub use log::TARGET as LOG;
pub use server::{Loading, Serving, serve};
pub use start::{Program, Started, start};
pub use turns::Counter;

/// What a model takes on one device, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// The device's name.
    pub device: String,
    /// Its part of the weights.
    pub weights: u64,
    /// Its part of the cache.
    pub cache: u64,
    /// What computing takes.
    pub compute: u64,
}

/// Bytes of one message at most: some thousand embedded texts, or a prompt as large as any that the daemon accepts.
const MESSAGE: usize = 64 << 20;
