//! What an answer rests on: marks of citations, checked as they stream, and whether each sentence is supported by what it cites.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod citations;
pub mod support;
