//! The way of spans to a collector: OTLP over gRPC.
//!
//! A [`CollectorAddress`] is checked once. A [`Collector`] is made from it and the files that the settings name, headers and
//! certificates, and takes the batches of [`artel_traces::export`]. It connects when it first sends, and again by itself. Of the
//! variables `OTEL_*` none is read: what a daemon sends, and where, is in its settings alone.
//!
//! It does not know which spans there are, nor the settings file.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod collector;
mod error;
mod headers;

pub use address::{CollectorAddress, InvalidCollector};
pub use collector::{Collector, CollectorFiles};
pub use error::{CollectorHeaderFault, Error};
