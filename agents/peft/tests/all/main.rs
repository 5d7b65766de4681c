//! Adapters are converted both ways, for small models of random weights.
#![allow(clippy::unwrap_used)]

mod fixtures;
mod hostile;
mod refusals;
mod round_trip;
mod scale;
