//! Points of a Qdrant collection over gRPC: written, listed, searched and deleted.
//!
//! A [`QdrantStore`] is one collection on one server. It connects with its first call, and again by itself. Each call has a
//! deadline and each answer a largest size; nothing is tried twice here, but an [`Error`] says whether another attempt makes
//! sense.
//!
//! ```text
//! StoredPoint ──upsert, in batches──▶ collection ──search──▶ ScoredPoint: an id and a score
//!                                         └──────points──▶ the ids of a knowledge
//! ```
//!
//! A point has one unnamed vector, which is compared by cosine, and a payload in the form of LangChain's `QdrantVectorStore`:
//! `page_content` and `metadata`. One collection holds the points of many knowledges; every call but `prepare` and `delete`
//! names one.
//!
//! This crate knows no index, no embedding model and no settings file. Of the variables `QDRANT_*` none is read.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod api_key;
mod batches;
mod collection_name;
mod connection;
mod error;
mod filter;
mod operation;
mod payload;
mod point;
mod search;
mod settings;
mod shape;
mod store;

pub use address::{InvalidAddress, ServerAddress};
pub use api_key::{ApiKey, InvalidApiKey};
pub use collection_name::{CollectionName, InvalidCollectionName};
pub use error::Error;
pub use operation::Operation;
pub use point::{PointId, PointMetadata, StoredPoint};
pub use search::{ScoredPoint, SearchPoints};
pub use settings::QdrantSettings;
pub use shape::CollectionShape;
pub use store::{MAX_POINTS, QdrantStore};
