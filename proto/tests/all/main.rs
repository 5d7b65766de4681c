//! The tests of the contract, in one binary.
#![allow(clippy::unwrap_used)]

mod contract;
mod reference;
