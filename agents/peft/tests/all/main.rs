//! Adapters are converted, for small models of random weights.
#![allow(clippy::unwrap_used)]

mod conversion;
mod fixtures;
mod hostile;
mod refusals;
mod scale;
