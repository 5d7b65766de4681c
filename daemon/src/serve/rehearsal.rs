//! What the daemon can do in rehearsal: models that follow a script, and death at a commit. For tests alone.

use std::env;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use artel_actors::{MemoryDemand, Loader, LoadProgress};
use artel_engine::backend::EngineLimits;
use artel_engine::scripted::ScriptedBackend;
use artel_engine::{EngineHandle, Options};
use artel_journal::Death;
use artel_placement::{DeviceBytes, Device, ModelFootprint, Placement};
use artel_roles::{Adapter, GgufFile, Model};
use async_trait::async_trait;
use serde::Deserialize;

use super::files;
use super::loader::LlamaLoader;

/// `before:N` or `after:N`: the process kills itself at its N-th commit.
const DEATH: &str = "ARTEL_REHEARSAL_DEATH";

pub(super) fn death() -> Result<Option<Death>> {
    let Ok(text) = env::var(DEATH) else { return Ok(None) };
    text.parse().map(Some).map_err(|e: String| anyhow!("{DEATH}: {e}"))
}

/// Loads a model whose file ends in `.script` as a scripted engine, and every other one as it should be.
pub(super) struct ScriptLoader {
    others: Arc<LlamaLoader>,
}

impl ScriptLoader {
    pub(super) fn new(others: Arc<LlamaLoader>) -> Self {
        Self { others }
    }
}

/// What a script file holds, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    /// The first one that fits answers.
    replies: Vec<Reply>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    /// All of this must be in the rendered prompt.
    #[serde(default)]
    when: Vec<String>,
    /// The answer; `{last}` stands for the last line of the prompt.
    say: String,
}

impl Script {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no script", path.display()))
    }

    fn reply(&self, prompt: &str) -> String {
        let fits = |reply: &&Reply| reply.when.iter().all(|part| prompt.contains(part));
        let last = prompt.lines().last().unwrap_or_default();
        self.replies.iter().find(fits).map(|reply| reply.say.replace("{last}", last)).unwrap_or_default()
    }
}

#[async_trait]
impl Loader for ScriptLoader {
    async fn load(&self, model: &Model, place: &Placement, progress: LoadProgress) -> Result<EngineHandle, String> {
        if !is_script(model) {
            return self.others.load(model, place, progress).await;
        }
        let script = Script::read(&files::of_model(model, Path::new(".")).map_err(|e| e.to_string())?)
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
            false => self.others.footprint(model, demand).await,
        }
    }

    fn download_progress(&self, model: &Model) -> Option<f32> {
        self.others.download_progress(model)
    }

    async fn fetch_adapter(&self, adapter: &Adapter) -> Result<(), String> {
        self.others.fetch_adapter(adapter).await
    }

    async fn devices(&self, taken: &DeviceBytes) -> Vec<Device> {
        self.others.devices(taken).await
    }
}

fn is_script(model: &Model) -> bool {
    matches!(&model.file, GgufFile::Path(path) if path.extension().is_some_and(|extension| extension == "script"))
}
