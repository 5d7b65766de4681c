//! For tests: the part of Qdrant that Artel uses, in the memory of the process that tests.
//!
//! A [`QdrantServer`] listens on a port of this machine and answers over gRPC as Qdrant does: collections of one unnamed vector,
//! compared by cosine in a scan of all points, with filters for keywords. What it does not know it refuses with
//! `UNIMPLEMENTED` instead of guessing. It counts the calls and can be told to fail or to hang.
//!
//! It keeps nothing on disk and knows nothing of Artel.
#![forbid(unsafe_code)]

mod access;
mod collection;
mod collections;
mod filter;
mod path;
mod payload;
mod points;
mod server;
mod state;
mod unsupported;
mod vectors;

pub use collection::ServedPoint;
pub use server::QdrantServer;
pub use state::ServedCall;
