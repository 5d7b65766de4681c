//! The routes over scripted services: what a client sends and what it reads.

mod chat_requests;
mod chat_streams;
mod completions_and_models;
mod durability;
mod embeddings_and_rerank;
mod read_back;
mod responses;
mod scripted;
mod searches;
