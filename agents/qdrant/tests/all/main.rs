//! A store against a server, over the wire.
#![allow(clippy::unwrap_used)]

mod collections;
mod failures;
mod fixtures;
mod keys;
mod points;
mod search;
