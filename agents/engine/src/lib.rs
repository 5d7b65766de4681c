//! Serves many sequences on one model: continuous batching, fairness between flows, streaming, cancellation.
//!
//! Callers hold an [`EngineHandle`]. [`EngineHandle::generate`] hands a [`Request`] to the one thread that owns the model and
//! returns an [`OutputStream`] of [`Chunk`]s; dropping the stream cancels the sequence. A pure function,
//! [`schedule::next_batch`], decides what the next batch computes; the thread runs the batch on a [`Backend`]: llama.cpp in
//! production, a script in tests. An engine in a process of its own implements [`Engine`], so callers need not know where it runs.
//!
//! This crate knows nothing of roles, tasks, gRPC or llama.cpp: a role is a flow here, the key of fairness.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adapter_sets;
mod adapter_turn;
mod adjacency;
mod answer_tokens;
pub mod backend;
mod batch_cost;
mod command;
mod compaction;
mod counters;
mod cpu_lease;
pub mod disk_prefix_cache;
mod draft;
mod engine;
mod erase_count;
mod file_version;
mod handle;
mod heartbeat;
mod job_calls;
mod label_score;
mod load_error;
mod local;
mod options;
mod pooling;
mod pooling_queue;
mod prefix_cache;
mod prefix_pins;
mod reasoning;
pub mod request;
mod request_origin;
pub mod schedule;
pub mod scripted;
mod sequence;
mod slot_table;
mod stream;
mod wait_queue;
mod worker;

pub use answer_tokens::AnswerTokens;
pub use backend::{
    AdapterSet, Backend, CallConstraint, PooledTokens, ReasoningFormat, TextTokenizer, Token, TokenizedPrompt,
    Tokenizer,
};
pub use counters::EngineStats;
pub use cpu_lease::{CpuArbiter, SharedCpu};
pub use draft::DraftMode;
pub use engine::Engine;
pub use handle::{EngineHandle, WeakEngineHandle};
pub use heartbeat::{EngineActivity, Heartbeat};
pub use load_error::LoadError;
pub use options::Options;
pub use pooling::{PooledInput, PooledTexts, PoolingRequest};
pub use request::{
    CallDelta, ChatRole, Chunk, ContextOverflow, Error, FinishReason, FinishSummary, LabelScores, Message, Priority,
    ReasoningParams, Request, RequestTimings, RequestUsage, SamplingOptions, SamplingParams, ScaledAdapters,
    TokenLogprob, ToolCall, ToolSet, TopLogprob,
};
pub use request_origin::RequestOrigin;
pub use stream::{OutputStream, PrefixPin};
