//! llama.cpp's pointers as owned values. The safe functions rely only on documented guarantees of llama.cpp, and check their
//! arguments before each call, because llama.cpp aborts the process on many invalid arguments.

pub(crate) mod context;
pub(crate) mod device;
pub(crate) mod dry_samplers;
pub(crate) mod half_float;
pub(crate) mod keepalive;
pub(crate) mod log;
pub(crate) mod model;
mod owned_sampler;
pub(crate) mod process;
pub(crate) mod sampler_chain;
pub(crate) mod thread_pool;
