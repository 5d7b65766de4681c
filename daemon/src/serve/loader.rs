//! Models into engines, with llama.cpp.

use std::path::PathBuf;

use artel_actors::Loader;
use artel_engine::{Drafts, Handle, Turn};
use artel_llama::{CacheType, Llama};
use artel_roles::{Cache, Model, Speculation, Use};
use async_trait::async_trait;

use super::config::Config;
use super::files;

/// Layers on GPUs where there are some: all of them.
const ALL_LAYERS: i32 = -1;

/// Loads engines into this process. They take turns on its cores.
pub(super) struct LlamaLoader {
    models: PathBuf,
    threads: u32,
    options: artel_engine::Options,
}

impl LlamaLoader {
    pub(super) fn new(config: &Config) -> Self {
        let options = artel_engine::Options {
            gap: config.gap,
            turn: Some(Turn::default()),
            prefixes: config.prefixes,
            shelf: config.shelf.clone(),
            ..artel_engine::Options::default()
        };
        Self { models: config.crew.models.clone(), threads: config.threads, options }
    }
}

#[async_trait]
impl Loader for LlamaLoader {
    async fn load(&self, model: &Model) -> Result<Handle, String> {
        let options = artel_llama::Options {
            path: files::find(&model.candidates(&self.models))?,
            sha256: model.sha256.clone(),
            context: model.context,
            sequences: model.sequences,
            threads: model.threads.unwrap_or(self.threads).min(self.threads),
            gpu_layers: ALL_LAYERS,
            embedding: model.use_ == Use::Embedding,
            template: model.template.clone(),
            cache: cache(model.cache),
        };
        let engine = artel_engine::Options {
            drafts: match model.speculation {
                Speculation::Auto => Drafts::WherePays,
                Speculation::Off => Drafts::Never,
            },
            ..self.options.clone()
        };
        let load = move || Llama::load(options).map_err(|e| e.to_string());
        let handle = Handle::spawn(model.name.as_str(), engine, load).await;
        handle.map_err(|e| match e {
            artel_engine::Error::Gone(reason) => format!("model `{}`: {reason}", model.name),
            other => other.to_string(),
        })
    }
}

/// Keys and values in one form: llama.cpp's fast attention wants that.
fn cache(cache: Cache) -> artel_llama::Cache {
    let form = match cache {
        Cache::F32 => CacheType::F32,
        Cache::F16 => CacheType::F16,
        Cache::Bf16 => CacheType::Bf16,
        Cache::Q8_0 => CacheType::Q8_0,
        Cache::Q4_0 => CacheType::Q4_0,
    };
    artel_llama::Cache { keys: form, values: form }
}
