//! YAML to a catalog of roles, models and graphs that is valid once built.
//!
//! Sources (the shipped ones, and the files of a directory over them) become located trees, trees become definitions,
//! and definitions become a [`Catalog`], or else [`Problems`]: everything that is wrong, with file, line, column and
//! advice. A catalog keeps its sources, so that a task can end under the catalog it began with.
//!
//! `serde_yaml` is archived upstream; `saphyr-parser` is maintained and gives the place of every node, which reporting
//! all errors at once needs.
//!
//! The daemon's own [`Settings`] are read in the same way, for the same messages.
//!
//! This crate knows no model file, no engine and no network. It reads directories; nothing else.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cases;
mod catalog;
mod decode;
mod file;
mod graph;
pub mod hub;
mod model;
mod node;
mod problem;
mod role;
pub mod routing;
mod schema;
mod settings;
pub mod shipped;
pub mod source;
pub mod template;
mod yaml;

pub use cases::Case;
pub use catalog::{Catalog, Definition, Kind, Sources};
pub use file::File;
pub use model::{Cache, Model, Pins, Speculation, Split, Use, Weights};
pub use problem::{MAX_PROBLEMS, Problem, Problems, Snippet, nearest};
pub use role::{Adapter, Overflow, Role, RoleLimits, Sampling};
pub use routing::{Routing, Topic};
pub use schema::Schema;
pub use settings::{Engines, Settings};
pub use source::Source;
pub use template::Template;
