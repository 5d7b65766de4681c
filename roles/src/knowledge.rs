//! Knowledge: the files that roles may answer from, and how these are searched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_model::ModelPurpose;
use artel_task::{KnowledgeName, ModelName, RoleName};
use artel_yaml::{Diagnostics, Span, YamlNode, YamlValue, shown};
use globset::Glob;

use crate::declared_names::DeclaredNames;
use crate::decode::{MapReader, choice, integer, items, name, text};
use crate::definition::DefinitionKind;
use crate::keys;
use crate::model::Model;
use crate::role::Role;

/// The most sources of one knowledge: each is watched by itself.
const MAX_SOURCE_ITEMS: usize = 64;
/// The most patterns of one list: each is compared with each file.
const MAX_PATTERNS: usize = 64;
/// The longest path or pattern: what Linux takes.
const MAX_PATH_CHARS: usize = 4096;
/// The most labels of a source, and the longest: they are stored with each file.
const MAX_LABELS: usize = 16;
const MAX_LABEL_CHARS: usize = 100;
/// The smallest passage: shorter ones say too little by themselves.
const MIN_CHUNK_TOKENS: u32 = 32;
/// The largest passage: several of them fit into the context of a small model, and into that of an embedding model.
const MAX_CHUNK_TOKENS: u32 = 2048;
/// The longest name of a collection: that of a file, which Qdrant makes of it.
const MAX_COLLECTION_CHARS: usize = 255;
/// The most passages of one search: more do not fit into a prompt.
pub(crate) const MAX_TOP_PASSAGES: u32 = 50;

/// Files that roles may answer from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knowledge {
    /// Its name.
    pub name: KnowledgeName,
    /// What it is about, for people.
    pub description: Option<String>,
    /// Where its files are; none if all of its texts are handed in.
    pub sources: Vec<KnowledgeSource>,
    /// Files of any source that are left out: patterns of paths relative to their source.
    pub exclude: Vec<String>,
    /// The model that embeds its passages; without it, that of the routers.
    pub embedding: Option<ModelName>,
    /// How texts are cut into passages.
    pub chunk: ChunkSetting,
    /// How it is searched.
    pub search: SearchSetting,
    /// The languages of its texts, as ISO 639-1 codes; empty: told by the texts themselves.
    pub languages: Vec<TextLanguage>,
    /// Where its vectors are compared; without it, in the daemon.
    pub store: Option<QdrantSetting>,
}

/// A collection of a Qdrant server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QdrantSetting {
    /// The URL of its gRPC port.
    pub url: String,
    /// The name of the collection.
    pub collection: String,
    /// The file with its API key.
    pub key: Option<PathBuf>,
}

/// A file, the files of a directory, or those of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnowledgeSource {
    /// The absolute path of the file or directory.
    pub path: PathBuf,
    /// Which files below the directory are taken; without it, all.
    pub pattern: Option<String>,
    /// Files that are left out: patterns of paths relative to `path`.
    pub exclude: Vec<String>,
    /// What a search may ask for.
    pub labels: BTreeMap<String, String>,
}

/// How texts are cut into passages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSetting {
    /// The most tokens of a passage.
    pub tokens: u32,
    /// The tokens that a passage repeats of the one before it.
    pub overlap: u32,
}

impl Default for ChunkSetting {
    /// Small enough for several passages in a prompt and large enough for a thought. Most embedding models read 512 tokens.
    fn default() -> Self {
        Self { tokens: 256, overlap: 32 }
    }
}

/// How a knowledge is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchSetting {
    /// The passages that a search gives.
    pub top: u32,
    /// By what passages are found.
    pub mode: SearchModeSetting,
    /// What orders the passages that were found.
    pub rerank: Option<Reranker>,
}

/// What reads a question with each passage, and orders these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reranker {
    /// A model with `use: rerank`.
    Model(ModelName),
    /// A role, by how much more probable `yes` is than `no` as its answer to whether the passage answers the question.
    Role(RoleName),
}

impl Default for SearchSetting {
    fn default() -> Self {
        Self { top: 6, mode: SearchModeSetting::Hybrid, rerank: None }
    }
}

/// By what passages are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SearchModeSetting {
    /// By their words and by their meaning, together.
    #[default]
    Hybrid,
    /// By the distance of their embeddings to that of the question.
    Vector,
    /// By their words. No model is needed.
    Keyword,
}

impl SearchModeSetting {
    /// Every mode, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Hybrid, Self::Vector, Self::Keyword];

    /// The word in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hybrid => "hybrid",
            Self::Vector => "vector",
            Self::Keyword => "keyword",
        }
    }
}

/// A language whose words are stemmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextLanguage(&'static str);

impl TextLanguage {
    /// The ISO 639-1 codes of the languages for which there are stemmers.
    pub const CODES: [&str; 11] = ["ar", "de", "el", "en", "es", "fr", "it", "nl", "pt", "ru", "sv"];

    /// The code.
    pub fn code(self) -> &'static str {
        self.0
    }
}

/// What a knowledge may name.
pub(crate) struct NamedDefinitions<'a> {
    /// All names, also of what could not be read.
    pub(crate) declared: &'a DeclaredNames,
    pub(crate) models: &'a BTreeMap<ModelName, Arc<Model>>,
    pub(crate) roles: &'a BTreeMap<RoleName, Arc<Role>>,
}

impl Knowledge {
    pub(crate) fn decode(
        knowledge: &KnowledgeName,
        fields: MapReader<'_>,
        named: &NamedDefinitions<'_>,
        report: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let mut f = fields;
        let description = f.get("description").and_then(|n| text(n, "`description`", 1..=2000, report));
        let sources = f.get("sources").map(|n| sources(n, report)).unwrap_or_default();
        let exclude = f.get("exclude").map(|n| patterns(n, report)).unwrap_or_default();
        let embedding = f.get("embedding").map(|n| named.model(n, ModelPurpose::Embedding, report));
        let chunk = f.get("chunk").map_or_else(|| Some(ChunkSetting::default()), |n| chunk(n, report));
        let search = f.get("search").and_then(|n| search(n, named, report));
        let languages = f.get("languages").map(|n| languages(n, report)).unwrap_or_default();
        let store_node = f.get("store");
        let store = store_node.map_or(Some(None), |n| store(n, knowledge, report));
        let chunk_keys = keys::CHUNK.names().map(|key| (key, "chunk"));
        let search_keys = keys::SEARCH.names().map(|key| (key, "search"));
        f.finish(&chunk_keys.chain(search_keys).collect::<Vec<_>>(), report);
        let embedding = match embedding {
            Some(named) => Some(named?),
            None => None,
        };
        let (search, store) = (search.unwrap_or_default(), store?);
        if let Some(node) = store_node.filter(|_| store.is_some() && search.mode == SearchModeSetting::Keyword) {
            report.error(node.span, "a knowledge with `mode: keyword` has no vectors for a `store`");
        }
        Some(Self {
            name: knowledge.clone(),
            description,
            sources,
            exclude,
            embedding,
            chunk: chunk?,
            search,
            languages,
            store,
        })
    }

    /// Whether a model embeds its passages.
    pub fn has_vectors(&self) -> bool {
        self.search.mode != SearchModeSetting::Keyword
    }
}

impl NamedDefinitions<'_> {
    fn model(&self, node: &YamlNode, purpose: ModelPurpose, report: &mut Diagnostics<'_>) -> Option<ModelName> {
        let model = name(node, "a model", ModelName::parse, report)?;
        self.check(&model, purpose, node.span, report);
        Some(model)
    }

    /// Reports a model that there is not, or that is for something else.
    fn check(&self, model: &ModelName, purpose: ModelPurpose, span: Span, report: &mut Diagnostics<'_>) {
        match self.models.get(model) {
            Some(found) if found.purpose != purpose => {
                let message = format!(
                    "model `{model}` has `use: {}`, and `use: {}` is needed here",
                    found.purpose.as_str(),
                    purpose.as_str()
                );
                report.error(span, message);
            }
            None => self.declared.report_missing(DefinitionKind::Model, model.as_str(), span, report),
            _ => {}
        }
    }

    /// A model with `use: rerank`, or a role.
    fn reranker(&self, node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<Reranker> {
        let model = name(node, "a model or a role", ModelName::parse, report)?;
        let is_model = self.models.get(&model).is_some_and(|found| found.purpose == ModelPurpose::Rerank);
        let role = RoleName::parse(model.as_str()).ok();
        let role = role.filter(|role| self.declared.has(DefinitionKind::Role, role.as_str()));
        let Some(role) = role else {
            self.check(&model, ModelPurpose::Rerank, node.span, report);
            return Some(Reranker::Model(model));
        };
        if is_model {
            let message = format!("`{role}` is both a role and a model with `use: rerank`");
            report.error_with_hint(node.span, message, "give one of them another name");
        } else if self.roles.get(&role).is_some_and(|role| !role.prompt.is_fixed()) {
            let message =
                format!("the `prompt` of role `{role}` has values of a task, and there is none when it reranks");
            report.error_with_hint(node.span, message, "name a role whose prompt is the same for every task");
        }
        Some(Reranker::Role(role))
    }
}

/// One source, or a list of them.
fn sources(node: &YamlNode, report: &mut Diagnostics<'_>) -> Vec<KnowledgeSource> {
    if !matches!(node.value, YamlValue::List(_)) {
        return source(node, report).into_iter().collect();
    }
    let nodes = items(node, "`sources`", MAX_SOURCE_ITEMS, report).unwrap_or_default();
    nodes.iter().filter_map(|node| source(node, report)).collect()
}

fn source(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<KnowledgeSource> {
    if !matches!(node.value, YamlValue::Map(_)) {
        let (path, pattern) = place(node, "a source", report)?;
        return Some(KnowledgeSource { path, pattern, exclude: Vec::new(), labels: BTreeMap::new() });
    }
    let mut f = MapReader::open(node, "a source", &keys::SOURCE, report)?;
    let place = f.need("path", report).and_then(|n| place(n, "`path`", report));
    let exclude = f.get("exclude").map(|n| patterns(n, report)).unwrap_or_default();
    let labels = f.get("labels").map(|n| labels(n, report)).unwrap_or_default();
    f.finish(&[], report);
    let (path, pattern) = place?;
    Some(KnowledgeSource { path, pattern, exclude, labels })
}

/// A path, and the pattern behind its last directory that is named in full.
fn place(node: &YamlNode, what: &str, report: &mut Diagnostics<'_>) -> Option<(PathBuf, Option<String>)> {
    let written = text(node, what, 1..=MAX_PATH_CHARS, report)?;
    let Some(dir) = &report.source.dir else {
        report.error(node.span, format!("{what} names a file, and this document is not in a file"));
        return None;
    };
    let (directory, pattern) = split_pattern(&written);
    let path = dir.join(directory);
    if let Some(pattern) = &pattern {
        check_pattern(pattern, node, report)?;
    }
    Some((path, pattern))
}

/// Splits a path before its first part with a character of patterns.
pub(crate) fn split_pattern(written: &str) -> (&Path, Option<String>) {
    let is_pattern = |part: &str| part.contains(['*', '?', '[', '{']);
    let mut at = 0;
    for part in written.split_inclusive('/') {
        if is_pattern(part) {
            let directory = if at == 0 { "." } else { &written[..at] };
            return (Path::new(directory), Some(written[at..].to_owned()));
        }
        at += part.len();
    }
    (Path::new(written), None)
}

fn patterns(node: &YamlNode, report: &mut Diagnostics<'_>) -> Vec<String> {
    let nodes = items(node, "`exclude`", MAX_PATTERNS, report).unwrap_or_default();
    let one = |node: &YamlNode, report: &mut Diagnostics<'_>| {
        let pattern = text(node, "a pattern of `exclude`", 1..=MAX_PATH_CHARS, report)?;
        check_pattern(&pattern, node, report)?;
        Some(pattern)
    };
    nodes.iter().filter_map(|node| one(node, report)).collect()
}

fn check_pattern(pattern: &str, node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<()> {
    let leaves = pattern.starts_with('/') || pattern.split('/').any(|part| part == "..");
    let problem = match Glob::new(pattern) {
        _ if leaves => "it is relative to its source and stays below it".to_owned(),
        Ok(_) => return Some(()),
        Err(error) => error.kind().to_string(),
    };
    let message = format!("`{}` is no pattern of files: {problem}", shown(pattern));
    report.error_with_hint(node.span, message, "as in `*.md`, `drafts/**` or `**/*.{txt,html}`");
    None
}

fn labels(node: &YamlNode, report: &mut Diagnostics<'_>) -> BTreeMap<String, String> {
    let YamlValue::Map(entries) = &node.value else {
        crate::decode::wrong(node, "`labels` is a map of texts", report);
        return BTreeMap::new();
    };
    if entries.len() > MAX_LABELS {
        report.error(node.span, format!("`labels` has {} entries, the limit is {MAX_LABELS}", entries.len()));
        return BTreeMap::new();
    }
    let mut labels = BTreeMap::new();
    for entry in entries {
        if entry.key.is_empty() || entry.key.chars().count() > MAX_LABEL_CHARS {
            let message = format!("the name of a label has 1 to {MAX_LABEL_CHARS} characters");
            report.error(entry.key_span, message);
        }
        if let Some(value) = text(&entry.value, "a label", 1..=MAX_LABEL_CHARS, report) {
            labels.insert(entry.key.clone(), value);
        }
    }
    labels
}

fn chunk(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<ChunkSetting> {
    let base = ChunkSetting::default();
    let mut f = MapReader::open(node, "`chunk`", &keys::CHUNK, report)?;
    let tokens = f.get("tokens").map(|n| integer(n, "`tokens`", MIN_CHUNK_TOKENS..=MAX_CHUNK_TOKENS, report));
    let overlap_node = f.get("overlap");
    let overlap = overlap_node.map(|n| integer(n, "`overlap`", 0..=MAX_CHUNK_TOKENS / 2, report));
    f.finish(&[], report);
    let tokens = tokens.unwrap_or(Some(base.tokens))?;
    let overlap = overlap.unwrap_or(Some(base.overlap.min(tokens / 4)))?;
    if let Some(node) = overlap_node.filter(|_| overlap > tokens / 2) {
        let message = format!("`overlap: {overlap}` is more than half of a passage, which has {tokens} tokens");
        report.error(node.span, message);
    }
    Some(ChunkSetting { tokens, overlap })
}

fn search(node: &YamlNode, named: &NamedDefinitions<'_>, report: &mut Diagnostics<'_>) -> Option<SearchSetting> {
    let mut f = MapReader::open(node, "`search`", &keys::SEARCH, report)?;
    let base = SearchSetting::default();
    let top = f.get("top").map_or(Some(base.top), |n| integer(n, "`top`", 1..=MAX_TOP_PASSAGES, report));
    let words = SearchModeSetting::ALL.map(|mode| (mode.as_str(), mode));
    let mode = f.get("mode").map_or(Some(base.mode), |n| choice(n, "`mode`", &words, report));
    let rerank = f.get("rerank").and_then(|n| named.reranker(n, report));
    f.finish(&[], report);
    Some(SearchSetting { top: top?, mode: mode?, rerank })
}

/// `embedded`, or a collection of Qdrant.
fn store(node: &YamlNode, knowledge: &KnowledgeName, report: &mut Diagnostics<'_>) -> Option<Option<QdrantSetting>> {
    if let YamlValue::Str(..) = node.value {
        return choice(node, "`store`", &[("embedded", None::<()>)], report).map(|_| None);
    }
    let mut f = MapReader::open(node, "`store`", &keys::STORE, report)?;
    let url = f.need("qdrant", report).and_then(|n| service_url(n, report));
    let collection = f
        .get("collection")
        .map_or_else(|| Some(knowledge.to_string()), |n| text(n, "`collection`", 1..=MAX_COLLECTION_CHARS, report));
    let key = f.get("key").map(|n| key_file(n, report));
    f.finish(&[], report);
    Some(Some(QdrantSetting { url: url?, collection: collection?, key: key.map_or(Some(None), |key| key.map(Some))? }))
}

/// The URL of a service, without a key in it.
fn service_url(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<String> {
    let url = text(node, "`qdrant`", 1..=MAX_PATH_CHARS, report)?;
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let problem = match host {
        None => "it begins with `http://` or `https://`",
        Some(host) if host.contains('@') => "it has no name and no key: these belong into the file of `key`",
        Some(host) if host.is_empty() || host.starts_with(['/', ':']) => "it names a host",
        Some(host) if host.trim_end_matches('/').contains(['/', '?', '#']) => "it has no path",
        Some(host) if host.contains(|c: char| c.is_whitespace() || c.is_control()) => "it has no spaces",
        Some(_) => return Some(url),
    };
    // A key may stand in it.
    report.error_with_hint(
        node.span,
        format!("this is no URL of a server: {problem}"),
        "as in `http://127.0.0.1:6334`",
    );
    None
}

fn key_file(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<PathBuf> {
    let mut f = MapReader::open(node, "`key`", &keys::STORE_KEY, report)?;
    let file = f.need("file", report).and_then(|n| text(n, "`file`", 1..=MAX_PATH_CHARS, report));
    f.finish(&[], report);
    let dir = report.source.dir.clone().unwrap_or_default();
    file.map(|file| dir.join(file))
}

fn languages(node: &YamlNode, report: &mut Diagnostics<'_>) -> Vec<TextLanguage> {
    let words = TextLanguage::CODES.map(|code| (code, TextLanguage(code)));
    let nodes = items(node, "`languages`", words.len(), report).unwrap_or_default();
    nodes.iter().filter_map(|node| choice(node, "a language", &words, report)).collect()
}
