//! The tests of the daemon from outside, in one binary: `cargo nextest` runs each test in a process of its own.
#![allow(clippy::unwrap_used)]

mod book;
mod catalog;
mod cli;
mod clients;
mod commit_faults;
mod compatibility;
mod demo;
mod engines;
mod feedback;
mod full_disk;
mod graphs;
mod hub;
mod journal;
mod kill;
mod message_size;
mod models;
mod reference;
mod routing;
mod tasks;
#[cfg(feature = "vulkan")]
mod vulkan;
