//! The tests of the engine on the scripted model, in one binary.
#![allow(clippy::unwrap_used, missing_docs)]

mod adapters;
mod answers;
mod decoding;
mod engine;
mod heartbeat;
mod log_lines;
mod pooling;
mod prefix_cache;
mod reasoning;
mod requests;
