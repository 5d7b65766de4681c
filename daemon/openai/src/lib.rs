//! OpenAI's HTTP interface: the routes that programs written for OpenAI call, over the gRPC services in this process.
//!
//! A request becomes a `SubmitRequest` or a call of `Models`, with the extensions of the HTTP request, so that the services see
//! the same caller and hold it to the same limits. The events of the task are folded into the parts of an answer
//! (`answer_fold`), which each endpoint writes in its own form, whole or as a stream. A model name is a role, a graph or `auto`.
//!
//! It knows `artel.v1` and what it is told of the catalog ([`ModelDirectory`]). It does not know the runtime, YAML, sockets or
//! tokens: layers before the routes authenticate the caller, limit the body, and answer CORS.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod answer_fold;
mod answer_json;
mod api_error;
mod attachments;
mod call;
mod chat;
mod completions;
mod embeddings;
mod field_names;
mod fields;
mod front;
mod messages;
mod models;
mod rerank;
mod responses;
mod routes;
mod run_options;
mod running_answer;
mod sampling;
mod search;
mod services;
mod sse;
mod status_error;
mod target;
#[cfg(test)]
mod tests;
mod tools;

pub use routes::routes;
pub use services::{GRAPH_PREFIX, GraphFacts, ModelDirectory, RoleFacts, ServedKind, ServedModel, Services};
