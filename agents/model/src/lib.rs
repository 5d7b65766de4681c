//! Words that several crates say of models, devices and requests: the type of a KV cache, the kind of a device, how tokens are
//! sampled, the tools that a model may call, the conversation that a request continues,
//! what an answer cites.
//!
//! Each is a plain value with the spelling that YAML and the specs of engines have for it. What a word means, how YAML is read
//! and what llama.cpp calls it, this crate does not know: it depends on nothing of ours, so that an engine can say the same
//! word as a catalog without knowing catalogs. [`open_regular_file`] is here for the same reason: all of them open files by
//! names that people write.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod citation;
mod conversation;
mod decoding;
mod device;
mod kv_cache;
mod memory_settings;
mod pieces;
mod purpose;
mod regular_file;
pub mod sampling;
mod size;
mod tools;

pub use citation::Citation;
pub use conversation::{
    Conversation, InvalidConversation, MAX_CALL_ID_BYTES, MAX_CONVERSATION_BYTES, MAX_CONVERSATION_ITEMS, Speaker,
    Turn, TurnFault,
};
pub use decoding::{ContextOverflow, FinishReason, ReasoningParams};
pub use device::{DeviceKind, DeviceMemory, SplitMode};
pub use kv_cache::KvCacheType;
pub use memory_settings::{CacheSize, ExpertPlacement, GpuLayers, KeepLoaded};
pub use pieces::{InvalidPieceName, MAX_PIECE_FILES, PieceHashes, PieceName, PieceNumbers, first_piece, piece_paths};
pub use purpose::ModelPurpose;
pub use regular_file::open_regular_file;
pub use sampling::{RequestSampling, SamplingOptions, SamplingParams, TokenLogprob, TopLogprob};
pub use size::format_bytes;
pub use tools::{
    InvalidTools, MAX_TOOL_ENTRIES, MAX_TOOL_NAME_BYTES, MAX_TOOLS_BYTES, Tool, ToolCall, ToolChoice, ToolSet,
    is_name_byte, is_tool_name,
};
