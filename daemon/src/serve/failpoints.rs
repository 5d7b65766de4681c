//! Scripted models and failpoints, for tests only.

use std::env;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use artel_actors::{LoadProgress, Loader, MemoryDemand};
use artel_engine::backend::EngineLimits;
use artel_engine::scripted::ScriptedBackend;
use artel_engine::{EngineHandle, Options};
use artel_journal::Failpoint;
use artel_placement::{Device, DeviceBytes, ModelFootprint, Placement};
use artel_roles::{Adapter, GgufFile, Model};
use async_trait::async_trait;
use serde::Deserialize;

use super::files;
use super::loader::LlamaLoader;

/// `before:N` or `after:N`: the process kills itself before or after its N-th commit. The name is older than the feature name.
const KILL_VARIABLE: &str = "ARTEL_REHEARSAL_DEATH";

pub(super) fn kill_at_commit() -> Result<Option<Failpoint>> {
    let Ok(text) = env::var(KILL_VARIABLE) else { return Ok(None) };
    text.parse().map(Some).map_err(|e: String| anyhow!("{KILL_VARIABLE}: {e}"))
}

/// Loads a model whose file ends in `.script` as a scripted engine, and every other one with llama.cpp.
pub(super) struct ScriptModelLoader {
    llama: Arc<LlamaLoader>,
}

impl ScriptModelLoader {
    pub(super) fn new(llama: Arc<LlamaLoader>) -> Self {
        Self { llama }
    }
}

/// The content of a script file, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelScript {
    /// The first reply that matches is used.
    replies: Vec<ScriptedReply>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptedReply {
    /// Texts that the rendered prompt must all contain.
    #[serde(default)]
    when: Vec<String>,
    /// The output; `{last}` stands for the last line of the prompt.
    say: String,
}

impl ModelScript {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a valid script", path.display()))
    }

    fn reply(&self, prompt: &str) -> String {
        let matches = |reply: &&ScriptedReply| reply.when.iter().all(|part| prompt.contains(part));
        let last = prompt.lines().last().unwrap_or_default();
        self.replies.iter().find(matches).map(|reply| reply.say.replace("{last}", last)).unwrap_or_default()
    }
}

#[async_trait]
impl Loader for ScriptModelLoader {
    async fn load(&self, model: &Model, placement: &Placement, progress: LoadProgress) -> Result<EngineHandle, String> {
        if !is_script(model) {
            return self.llama.load(model, placement, progress).await;
        }
        let script = ModelScript::read(&files::model_path(model, Path::new(".")).map_err(|e| e.to_string())?)
            .map_err(|e| format!("{e:#}"))?;
        let limits = EngineLimits {
            context_tokens: model.context.unwrap_or(4096),
            sequences: model.sequences,
            batch_tokens: 512,
            prefill_multiple: 1,
            can_truncate_kv: true,
            can_shift: true,
        };
        let load = move || Ok(ScriptedBackend::new(limits, move |prompt| script.reply(prompt)));
        let handle = EngineHandle::spawn(model.name.as_str(), Options::default(), load).await;
        handle.map_err(|e| e.to_string())
    }

    async fn footprint(&self, model: &Model, demand: MemoryDemand) -> Result<ModelFootprint, String> {
        match is_script(model) {
            true => Ok(artel_actors::zero_footprint(model, demand.contexts)),
            false => self.llama.footprint(model, demand).await,
        }
    }

    fn download_progress(&self, model: &Model) -> Option<f32> {
        self.llama.download_progress(model)
    }

    async fn fetch_adapter(&self, adapter: &Adapter) -> Result<(), String> {
        self.llama.fetch_adapter(adapter).await
    }

    async fn devices(&self, taken: &DeviceBytes) -> Vec<Device> {
        self.llama.devices(taken).await
    }
}

fn is_script(model: &Model) -> bool {
    matches!(&model.file, GgufFile::Path(path) if path.extension().is_some_and(|extension| extension == "script"))
}
