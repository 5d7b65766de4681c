//! YAML to a catalog of roles, models, adapters, graphs, trainings and router settings that is valid once built.
//!
//! Sources (the shipped files, and the files of a directory over them) become located trees, trees become definitions,
//! and definitions become a [`Catalog`], or else [`Problems`]: everything that is wrong, with file, line, column and a
//! hint. A catalog keeps its sources, so that a task can end under the catalog with which it began. The daemon's
//! [`Settings`] are read in the same way, for the same messages. [`keys()`] lists every key that the decoder reads.
//!
//! This crate knows no model file, no engine and no network. It reads directories and YAML files; nothing else.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adapter;
mod catalog;
mod declared_names;
mod decode;
mod definition;
mod gguf_file;
mod graph;
pub mod hf_uri;
mod knowledge;
mod labelled_question;
mod model;
mod model_memory;
mod network;
mod portable;
mod role;
mod role_knowledge;
pub mod routing;
mod sampling;
mod schema;
mod settings;
pub mod shipped;
mod sources;
pub mod template;
mod template_kwargs;
mod training;
mod training_method;
mod written_setting;

pub use adapter::Adapter;
use artel_keys as keys;
pub use artel_keys::{DocumentKey, KeyDefault, KeySet, keys};
pub use artel_model::ModelPurpose;
pub use artel_yaml::{
    CheckCancellation, CheckDeadline, MAX_PROBLEMS, Problem, Problems, Severity, Snippet, YamlSource, documents,
    nearest, source,
};
pub use catalog::Catalog;
pub use decode::parse_duration;
pub use definition::{Definition, DefinitionKind};
pub use gguf_file::GgufFile;
pub use knowledge::{
    ChunkSetting, Knowledge, KnowledgeSource, QdrantSetting, Reranker, SearchModeSetting, SearchSetting, TextLanguage,
};
pub use labelled_question::LabelledQuestion;
pub use model::{EmbeddingPrefixes, Model, PlacementSetting, SpeculationSetting, WeightsSetting};
pub use model_memory::CacheSetting;
pub use network::{ModelHub, NetworkRules};
pub use role::{Role, RoleLimits};
pub use sampling::RoleSampling;
pub use schema::{Schema, SchemaMismatch, SchemaRefusal};
pub use settings::{EngineIsolation, HttpSettings, LogFormat, Settings, TlsSettings, TraceSettings};
pub use sources::Sources;
pub use template::Template;
pub use template_kwargs::TemplateKwargs;
pub use training::{DataSource, HeldOutSetting, Training};
pub use training_method::{LoraSetting, LoraTargets, ScheduleSetting};
pub use written_setting::{SettingKey, WrittenSetting, setting_keys};
