//! YAML with places: text becomes a tree in which every node has its span, and what is wrong is collected with file, line, column
//! and a hint.
//!
//! A [`YamlSource`] is [parsed](parse()) under [`Diagnostics`], which collect [`Problem`]s and may end by a [`CheckDeadline`];
//! [`KeyRules`] are kept there for a decoder that asks them. Sizes, depths and counts are bounded before a tree exists.
//!
//! `serde_yaml` is archived upstream; `saphyr-parser` is maintained and gives the span of every node, which is needed to
//! report all errors at once.
//!
//! This crate knows no key and no kind of document. It reads directories and YAML files; nothing else.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod deadline;
mod documents;
mod key_rules;
mod node;
mod parse;
mod problem;
pub mod source;
mod yaml_source;

pub use deadline::{CheckCancellation, CheckDeadline};
pub use documents::documents;
pub use key_rules::{KeyRefusal, KeyRules};
pub use node::{Span, TextStyle, YamlEntry, YamlNode, YamlValue, line_of};
pub use parse::{MAX_DEPTH, MAX_NODES, ParsedYaml, parse};
pub use problem::{Diagnostics, MAX_PROBLEMS, Problem, Problems, Severity, Snippet, did_you_mean, nearest, shown};
pub use yaml_source::YamlSource;
