//! `artel init` without its surroundings: which model to offer, and the files of a first catalog.
//!
//! A [`ModelTable`] and the memory of a machine go in, a [`ModelOffer`] for each row comes out, with the reason; a model goes
//! in, the files of a [`StarterCatalog`] come out, and [`write_files`] puts them into a directory without replacing anything. [`Dialogue`]
//! asks a person.
//!
//! What a hub has, which devices there are and what a daemon's settings say, this crate does not know: those are arguments.
//! Nothing is downloaded here.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod dialogue;
mod offer;
mod starter;
mod table;
mod write;

pub use dialogue::Dialogue;
pub use offer::{MachineResources, ModelFit, ModelOffer, assess, best};
pub use starter::{CatalogModel, StarterCatalog, StarterFile};
pub use table::{ModelTable, TableError, TableModel};
pub use write::{StarterComparison, WriteError, WrittenFile, compare, write_files};
