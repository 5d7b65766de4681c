//! An engine in its own process: an abort of llama.cpp, or a kill by the kernel for lack of memory, ends one engine and never
//! the daemon.
//!
//! [`start`] runs a program whose standard input is one end of a socket pair, makes it load a model, and returns an
//! [`artel_engine::EngineHandle`] like any other. In that program, [`serve`] serves its own engine on the other end. The protocol is
//! gRPC, package `artel.engine.v1`. Both ends are the same binary, so its proto is private to this crate; no other process can
//! reach the sockets, because they have no name. The process ends when its socket closes, so none outlives the daemon. Its
//! standard error goes into the daemon's log, and [`EngineHandle::ended`](artel_engine::EngineHandle::ended) gives the reason
//! of its exit.
//!
//! Engines that compute on the same cores exclude each other through a [`CpuLeaseBroker`].
//!
//! Each process is watched: if its computing thread makes no progress and the process does nothing, or makes none for far
//! longer than its work was expected to take, the engine hangs and the process is killed ([`HangPolicy`]). So every call to an
//! engine ends: with its result, or with the reason of the engine's end.
//!
//! [`measurement`] runs a program that measures the loss of a model over given answers, in the same manner but for the protocol.
//!
//! This crate knows nothing of llama.cpp, roles or tasks; only the program interprets the model and its parameters.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cpu_lease;
mod exit_reason;
mod hang_detector;
mod hang_watch;
pub mod measurement;
mod process_sample;
mod remote_engine;
mod server;
mod start;
mod stderr_log;
mod supervision;
mod wire;

pub use artel_model::DeviceMemory;
pub use cpu_lease::CpuLeaseBroker;
pub use hang_detector::{DEFAULT_HANG_TIMEOUT, HangPolicy};
pub use server::{EngineLoader, ServeOutcome, serve};
pub use start::{EngineProgram, StartedEngine, start};
pub use stderr_log::LOG_TARGET;

/// The largest message: a few thousand embeddings, or the largest prompt that the daemon accepts.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
