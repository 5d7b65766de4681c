//! The tests of the daemon from outside, in one binary: `cargo nextest` runs each test in a process of its own.
#![allow(clippy::unwrap_used)]

mod book;
mod budgets;
mod catalog;
mod cli;
mod clients;
mod commit_faults;
mod compatibility;
mod connections;
mod demo;
mod engines;
mod feedback;
mod full_disk;
mod graphs;
mod hub;
mod hung_engine;
mod journal;
mod kill;
mod message_size;
mod models;
mod network_names;
mod private_data;
mod reference;
mod routing;
mod set_aside;
mod stopping;
mod tasks;
mod values;
#[cfg(feature = "vulkan")]
mod vulkan;
