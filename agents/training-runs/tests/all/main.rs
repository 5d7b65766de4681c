//! Runs with a trainer of a few lines of Python, and a daemon that counts characters as tokens.
#![allow(clippy::unwrap_used, missing_docs)]

mod runs;
mod stage;
