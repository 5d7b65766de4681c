//! Models that are scripts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_actors::{LoadProgress, Loader, MemoryDemand};
use artel_check::files;
use artel_engine::backend::EngineLimits;
use artel_engine::scripted::ScriptedBackend;
use artel_engine::{EngineHandle, LoadError, Options, disk_prefix_cache};
use artel_placement::{Device, DeviceBytes, ModelFootprint, Placement};
use artel_roles::{Adapter, GgufFile, Model};
use async_trait::async_trait;
use serde::Deserialize;

use crate::failpoint::die;

/// What the prefixes of scripted models may take: more than any test has.
const PREFIX_FILES_BYTES: u64 = 1 << 24;

/// Loads a model whose file ends in `.script` as a scripted engine, and every other one as the daemon does.
pub(crate) struct ScriptModelLoader {
    inner: Arc<dyn Loader>,
    /// Where scripted engines keep their prefixes.
    prefixes: Option<PathBuf>,
}

impl ScriptModelLoader {
    /// The daemon's own loader is `inner`; scripted engines keep their prefixes in a directory if there is one.
    pub(crate) fn new(inner: Arc<dyn Loader>, prefixes: Option<PathBuf>) -> Self {
        Self { inner, prefixes }
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
    /// The output; `{last}` stands for the last line of the prompt, `{prompt}` for all of them.
    #[serde(default)]
    say: String,
    /// What happens instead.
    #[serde(default)]
    fault: Option<ScriptedFault>,
}

/// What a prompt does to the process that computes it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ScriptedFault {
    /// The daemon dies of SIGKILL.
    Kill,
    /// The engine panics, which ends it.
    Panic,
}

impl ModelScript {
    fn read(path: &Path) -> Result<Self, LoadError> {
        let unusable = |reason: String| LoadError::permanent(format!("{}: {reason}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| unusable(format!("cannot be read: {e}")))?;
        serde_json::from_str(&text).map_err(|e| unusable(format!("not a valid script: {e}")))
    }

    fn reply(&self, prompt: &str) -> String {
        let matches = |reply: &&ScriptedReply| reply.when.iter().all(|part| prompt.contains(part));
        let last = prompt.lines().last().unwrap_or_default();
        let Some(reply) = self.replies.iter().find(matches) else { return String::new() };
        match reply.fault {
            None => {
                reply.say.replace("{last}", last).replace("{prompt}", prompt.trim_end().replace('\n', " / ").as_str())
            }
            Some(ScriptedFault::Kill) => die(),
            Some(ScriptedFault::Panic) => panic!("the script ends the engine"),
        }
    }
}

#[async_trait]
impl Loader for ScriptModelLoader {
    async fn load(
        &self,
        model: &Model,
        placement: &Placement,
        progress: LoadProgress,
    ) -> Result<EngineHandle, LoadError> {
        if !is_script(model) {
            return self.inner.load(model, placement, progress).await;
        }
        let path = files::model_path(model, Path::new("."));
        let script = ModelScript::read(&path.map_err(|problem| LoadError::permanent(problem.to_string()))?)?;
        let limits = EngineLimits {
            context_tokens: model.context.unwrap_or(4096),
            sequences: model.sequences(),
            batch_tokens: 512,
            prefill_multiple: 1,
            can_truncate_kv: true,
            can_shift: true,
        };
        let load = move || Ok(ScriptedBackend::new(limits, move |prompt| script.reply(prompt)));
        let disk_prefix_cache =
            self.prefixes.clone().map(|dir| disk_prefix_cache::Options { dir, max_bytes: PREFIX_FILES_BYTES });
        let options = Options { disk_prefix_cache, ..Options::default() };
        EngineHandle::spawn(model.name.as_str(), options, load).await
    }

    async fn footprint(&self, model: &Model, demand: MemoryDemand) -> Result<ModelFootprint, LoadError> {
        match is_script(model) {
            true => Ok(artel_actors::zero_footprint(model)),
            false => self.inner.footprint(model, demand).await,
        }
    }

    fn download_progress(&self, model: &Model) -> Option<f32> {
        self.inner.download_progress(model)
    }

    async fn fetch_adapter(&self, adapter: &Adapter) -> Result<(), LoadError> {
        self.inner.fetch_adapter(adapter).await
    }

    async fn devices(&self, taken: &DeviceBytes) -> Vec<Device> {
        self.inner.devices(taken).await
    }
}

fn is_script(model: &Model) -> bool {
    matches!(&model.file, GgufFile::Path(path) if path.extension().is_some_and(|extension| extension == "script"))
}
