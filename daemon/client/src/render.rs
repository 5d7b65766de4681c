//! Proto messages as text. Pure: nothing here performs I/O.

pub(crate) mod catalog;
pub(crate) mod data;
pub(crate) mod engines;
pub(crate) mod graph;
mod interleave;
pub(crate) mod knowledge;
pub(crate) mod loss_curve;
pub(crate) mod models;
pub(crate) mod progress;
pub(crate) mod route;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod step;
pub(crate) mod task;
pub(crate) mod time;
pub(crate) mod token;
pub(crate) mod train;
pub(crate) mod transcript;
