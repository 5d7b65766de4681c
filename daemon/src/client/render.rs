//! What people read: messages in, text out. Nothing here reads, waits or writes.

pub(crate) mod catalog;
pub(crate) mod fleet;
pub(crate) mod graph;
pub(crate) mod page;
pub(crate) mod progress;
pub(crate) mod route;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod step;
pub(crate) mod table;
pub(crate) mod task;
pub(crate) mod time;
pub(crate) mod transcript;
mod voice;
