//! JSON schemas as constraints of decoding: what a model may write next, and whether it can write anything at all.
//!
//! A schema goes in. It is refused if no value satisfies it ([`Error::Unsatisfiable`]), or if the decoder cannot be held to it
//! within its budgets. Otherwise a [`Constraint`] comes out, which gives the tokens that are allowed next. It allows every value
//! of the schema that can be written, and more where llguidance lacks a keyword: an output is checked against the schema once it
//! is complete, by the caller.
//!
//! Calls of tools are a grammar around such schemas ([`Compiler::compile_calls`]).
//!
//! The same code compiles for the vocabulary of a model ([`Compiler`]) and, when a catalog is read, for one of bytes
//! ([`check_output`]), so that what is valid there decodes later. This crate knows no model, no role and no YAML.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod byte_vocabulary;
mod calls;
mod check;
mod compiler;
mod conjoined_patterns;
mod constraint;
mod emptiness;
mod endless;
mod error;
mod grammar;
mod matcher;
mod object_keys;
mod reference;

pub use byte_vocabulary::byte_vocabulary;
pub use check::{check_answer, check_arguments, check_output};
pub use compiler::{COMPILE_TIMEOUT, Compiler};
pub use constraint::Constraint;
pub use error::Error;
