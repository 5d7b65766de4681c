//! What a document that arrives from a client may name: files and hubs of the daemon's side.
//!
//! Every key of every document has a [`KeyReach`]. The decoder asks [`NetworkRules`] for each key of each map of a document from
//! the network, so that no kind of document is read without this check, and a key without a reach is refused. The rules hold
//! for every client, the owner's among them: what else a client may name is said by `network` of the settings.
//!
//! An answer does not depend on whether a refused file exists.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Component, Path, PathBuf};

use artel_model::piece_paths;
use artel_yaml::{KeyRefusal, KeyRules, YamlNode, YamlValue};

use crate::hf_uri::{HfUri, SCHEME};
use crate::knowledge::split_pattern;

/// What the value of a key reaches outside of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyReach {
    /// Nothing: numbers, words, texts, names of definitions and of devices, and maps whose keys have a reach of their own.
    Nothing,
    /// Texts that name files of the daemon's machine or of a hub. A map as the value has keys of its own.
    File,
    /// Texts that name files and directories of the daemon's machine, or patterns of them. A map has keys of its own.
    Pattern,
    /// It stands in documents that the daemon or a command reads from its own disk. No client can send them.
    Local,
}

/// The reach of a key of a set of [`keys`](crate::keys()); `None` for a key that is not in this table, which clients may not
/// use.
pub(crate) fn reach(set: &str, key: &str) -> Option<KeyReach> {
    Some(match (set, key) {
        ("model" | "adapter" | "role.adapter", "file") | ("role", "adapter") => KeyReach::File,
        ("knowledge", "sources") | ("knowledge.sources", "path") | ("training", "data" | "held_out" | "base") => KeyReach::Pattern,
        ("role", "role" | "description" | "examples" | "keywords" | "when" | "model" | "devices" | "prompt" | "message")
        // A `$ref` of a schema to another document is not followed.
        | ("role", "template_kwargs" | "output" | "reasoning" | "sampling" | "limits" | "overflow" | "priority" | "caller_tools"
            | "caller_system" | "knowledge" | "grounded")
        | (
            "role.sampling",
            "temperature" | "top_p" | "min_p" | "repeat_penalty" | "top_k" | "seed" | "max_tokens" | "stop"
            | "typical_p" | "presence_penalty" | "frequency_penalty" | "penalty_last_n" | "dry" | "xtc" | "logit_bias"
            | "logprobs" | "fixed",
        )
        | ("role.sampling.dry", "multiplier" | "base" | "allowed_length" | "last_n" | "breakers")
        | ("role.sampling.xtc", "probability" | "threshold")
        | ("role.reasoning", "show" | "enabled" | "budget")
        | ("role.limits", "timeout" | "idle" | "retries" | "concurrency" | "queue")
        | ("role.adapter", "adapter" | "scale")
        | ("adapter", "adapter" | "description" | "sha256" | "scale" | "version")
        | ("model", "model" | "description" | "sha256" | "use" | "context" | "sequences" | "threads" | "template")
        // A device of an RPC server is one of those that the settings name.
        | ("model", "template_kwargs" | "cache" | "weights" | "speculation" | "devices" | "split" | "tensor_split")
        | ("model", "gpu_layers" | "experts" | "keep" | "prefixes")
        | ("model.prefixes", "query" | "passage")
        | ("knowledge", "knowledge" | "description" | "exclude" | "embedding" | "chunk" | "search" | "languages" | "store")
        | ("knowledge.sources", "exclude" | "labels")
        | ("knowledge.chunk", "tokens" | "overlap")
        | ("knowledge.search", "top" | "mode" | "rerank")
        | ("model.cache", "tokens" | "share" | "type")
        | ("graph", "graph" | "description" | "examples" | "keywords" | "start" | "result" | "limits" | "nodes")
        | ("graph", "reduce" | "fallback")
        | ("graph.limits", "steps" | "tokens" | "time")
        | ("node", "role" | "router" | "ask" | "search" | "check" | "passages" | "graph" | "message" | "for_each" | "timeout" | "idle" | "retries")
        | ("node", "effect" | "cache" | "join" | "next" | "on_failure" | "write")
        | ("node.role", "from" | "rank")
        | ("node.router", "roles" | "confidence" | "otherwise" | "best" | "settings" | "signals")
        | ("node.ask", "message" | "output" | "deadline" | "otherwise")
        | ("node.search", "knowledge" | "query" | "top")
        | ("node.for_each", "list" | "parallel" | "at_most")
        | ("node.join", "quorum")
        | ("node.retries", "count" | "delay" | "max_delay")
        | ("edge", "to" | "when" | "at_most")
        | ("router", "router" | "description" | "bias" | "temperature" | "background" | "signals")
        | ("router.signals", "embedding" | "linear" | "keyword" | "label")
        | ("router.signals.*" | "router.signals.label", "weight" | "mean" | "deviation" | "alone")
        | ("router.signals.label", "model")
        | ("router.signals.*.alone", "weight" | "bias")
        | ("training", "training" | "description" | "role" | "method" | "schedule" | "seed")
        | ("training.method", "lora")
        | ("training.method.lora", "rank" | "alpha" | "dropout" | "targets")
        | ("training.schedule", "epochs" | "learning_rate" | "batch" | "warmup" | "weight_decay") => KeyReach::Nothing,
        ("labelled question", _) | ("knowledge.store" | "knowledge.store.key", _) => KeyReach::Local,
        (settings, _) if settings.split('.').next() == Some("settings") => KeyReach::Local,
        _ => return None,
    })
}

/// A hub from which files are downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelHub {
    /// The hub of `hf:` URIs.
    HuggingFace,
}

impl ModelHub {
    /// The words of `network.hubs`.
    pub(crate) const WORDS: [(&str, Self); 1] = [("hf", Self::HuggingFace)];
}

/// Why a client may not use a key as it did. The message begins after the key's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkRefusal {
    #[error(
        "names a file that a client may not name: it lies outside of the directories of models and of the catalog, links \
         resolved, and of `network.files`"
    )]
    File,
    #[error(
        "names a file of a hub that a client may not name: it is not fetched, and `network.hubs` does not list the hub"
    )]
    Hub,
    #[error("is no key that a client may use")]
    Key,
}

impl NetworkRefusal {
    /// What to do.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::File => {
                "put the file into the daemon's models directory, or its directory into `network: {files: [DIR]}` of the \
                 daemon's settings; a path from a client has no `..`"
            }
            Self::Hub => {
                "fetch the file with `artel fetch` on the daemon's machine, or allow downloads with `network: {hubs: [hf]}` in \
                 the daemon's settings"
            }
            Self::Key => "write the document into the daemon's catalog directory",
        }
    }
}

/// What documents from clients may name.
#[derive(Debug, Clone)]
pub struct NetworkRules {
    models: PathBuf,
    /// The directories of files, that of models among them.
    dirs: Vec<PathBuf>,
    hubs: Vec<ModelHub>,
}

impl NetworkRules {
    /// Files below the directory of models are allowed, and those beside the YAML files of the daemon's catalog; `files` are
    /// further directories, and `hubs` those from which a client may have files downloaded.
    pub fn new(models: PathBuf, catalog: Option<PathBuf>, files: Vec<PathBuf>, hubs: Vec<ModelHub>) -> Self {
        let dirs = [Some(models.clone()), catalog].into_iter().flatten().chain(files).collect();
        Self { models, dirs, hubs }
    }

    /// Checks the value of a key; `dir` is the directory that relative names are looked up in before that of models. Asks the
    /// file system.
    pub(crate) fn check(&self, set: &str, key: &str, value: &YamlNode, dir: &Path) -> Result<(), NetworkRefusal> {
        match reach(set, key) {
            Some(KeyReach::Nothing) => Ok(()),
            Some(KeyReach::File) => texts(value).try_for_each(|name| self.check_file(name, dir)),
            Some(KeyReach::Pattern) => texts(value).try_for_each(|written| self.check_directory(written, dir)),
            Some(KeyReach::Local) | None => Err(NetworkRefusal::Key),
        }
    }

    fn check_file(&self, name: &str, dir: &Path) -> Result<(), NetworkRefusal> {
        if name.starts_with(SCHEME) {
            // The decoder reports what is no URI.
            let Ok(uri) = HfUri::parse(name) else { return Ok(()) };
            let is_here = |piece: &HfUri| {
                let path = self.models.join(piece.path());
                path.is_file() && self.allows(&path)
            };
            let is_allowed = self.hubs.contains(&ModelHub::HuggingFace) || uri.pieces().iter().all(is_here);
            return is_allowed.then_some(()).ok_or(NetworkRefusal::Hub);
        }
        let name = Path::new(name);
        // What lies above a link depends on whether the link exists.
        let goes_up = name.components().any(|part| part == Component::ParentDir);
        // The first of these that exists will be loaded, which may be another one by then.
        let pieces = piece_paths(name);
        let allows = |dir: &&Path| pieces.iter().all(|piece| self.allows(&dir.join(piece)));
        let is_allowed = !goes_up && [dir, &self.models].iter().all(allows);
        is_allowed.then_some(()).ok_or(NetworkRefusal::File)
    }

    /// A path or a pattern, which is relative to `dir` alone.
    fn check_directory(&self, written: &str, dir: &Path) -> Result<(), NetworkRefusal> {
        let goes_up = Path::new(written).components().any(|part| part == Component::ParentDir);
        let (directory, _) = split_pattern(written);
        let is_allowed = !goes_up && self.allows(&dir.join(directory));
        is_allowed.then_some(()).ok_or(NetworkRefusal::File)
    }

    /// Whether a path lies in an allowed directory, links resolved.
    fn allows(&self, path: &Path) -> bool {
        let Some(path) = resolved(path) else { return false };
        self.dirs.iter().filter_map(|dir| resolved(dir)).any(|dir| path.starts_with(dir))
    }
}

impl KeyRules for NetworkRules {
    fn refusal(&self, set: &str, key: &str, value: &YamlNode, dir: &Path) -> Option<KeyRefusal> {
        let refusal = self.check(set, key, value, dir).err()?;
        Some(KeyRefusal { reason: refusal.to_string(), hint: refusal.hint() })
    }
}

/// The texts of a value: itself, or the items of a list.
fn texts(value: &YamlNode) -> impl Iterator<Item = &str> {
    let nodes = match &value.value {
        YamlValue::List(items) => items.as_slice(),
        _ => std::slice::from_ref(value),
    };
    nodes.iter().filter_map(|node| match &node.value {
        YamlValue::Str(text, _) => Some(text.as_str()),
        _ => None,
    })
}

/// A path with its links resolved, as far as it exists; `None` for a link that leads nowhere.
fn resolved(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let existing = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok())?;
    let rest = path.strip_prefix(existing).ok()?;
    Some(fs::canonicalize(existing).ok()?.join(rest))
}
