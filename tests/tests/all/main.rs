//! The tests of the daemon from outside, in one binary: `cargo nextest` runs each test in a process of its own.
#![allow(clippy::unwrap_used)]

mod access;
mod book;
mod budgets;
mod caller_limits;
mod callers;
mod catalog;
mod cert;
mod certificates;
mod cli;
mod clients;
mod commit_faults;
mod compatibility;
mod config;
mod connections;
mod demo;
mod engines;
mod erase;
mod feedback;
mod full_disk;
mod graphs;
mod hardening;
mod hostile;
mod hub;
mod hung_engine;
mod init;
mod journal;
mod kill;
mod logs;
mod message_size;
mod models;
mod monitoring;
mod network_names;
mod owner_token;
mod port;
mod private_data;
mod reference;
mod routing;
mod set_aside;
mod stopping;
mod tasks;
mod values;
#[cfg(feature = "vulkan")]
mod vulkan;
