//! The tests of the catalog, in one binary.
#![allow(clippy::unwrap_used)]

mod broken;
mod budgets;
mod catalog;
mod former_keys;
mod portable;
mod random;
