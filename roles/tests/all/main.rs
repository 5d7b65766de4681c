//! The tests of the catalog, in one binary.
#![allow(clippy::unwrap_used)]

mod adapters;
mod broken;
mod budgets;
mod catalog;
mod contradictions;
mod former_keys;
mod keys;
mod memory;
mod other_kinds;
mod portable;
mod random;
mod random_outputs;
mod schema_suite;
mod schemas;
