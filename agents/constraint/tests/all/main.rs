//! The tests of constraints, in one binary.
#![allow(clippy::unwrap_used)]

mod model_vocabulary;
mod times;
