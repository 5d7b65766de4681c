//! The files and texts of a knowledge, and texts that clients hand in.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use artel_knowledge::{DocumentChunk, EntryKey, GenerationId, GenerationStats, HandedText, StoredEntry};
use artel_roles::{Catalog, Model};
use artel_task::{CallerName, KnowledgeName};

use crate::error::Error;
use crate::found::shown_source;
use crate::retrieval::{Retrieval, known};
use crate::writing::{self, WritingCheck, WritingCounts};

/// How far the index of a knowledge is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KnowledgeState {
    /// Its name.
    pub name: String,
    /// Files and texts that are indexed.
    pub sources: u64,
    /// Those that could not be read.
    pub failed: u64,
    /// Passages that a search looks through.
    pub passages: u64,
    /// Bytes that it takes in memory.
    pub memory_bytes: u64,
    /// The embedding model, if there is one.
    pub embedding_model: Option<String>,
    /// Files that have yet to be indexed.
    pub pending: u64,
    /// How fast passages are indexed at the moment.
    pub passages_per_second: f64,
    /// How long the rest takes.
    pub time_left: Option<std::time::Duration>,
    /// What is in the way.
    pub problem: Option<String>,
    /// Why changes are not reported by the system but looked for now and then.
    pub polling: Option<String>,
    /// Whether a new index is built while an older one answers.
    pub is_rebuilding: bool,
    /// Whether something is not indexed yet, or was not compared since the start.
    pub is_stale: bool,
    /// What its owner should know, such as that the embedding model does not know its language.
    pub warning: Option<String>,
}

/// The sources whose letters are counted: enough to tell one in twenty.
const MAX_SAMPLED_DOCUMENTS: usize = 50;

/// A file or text of a knowledge.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceRecord {
    /// Its path, or its name.
    pub source: String,
    /// What the index knows of it.
    pub entry: StoredEntry,
}

/// A text that a client hands in.
#[derive(Debug, Clone, PartialEq)]
pub struct NewText {
    /// Its name.
    pub source: String,
    /// The text.
    pub text: String,
    /// Whether it is Markdown.
    pub is_markdown: bool,
    /// What a search may ask for.
    pub labels: BTreeMap<String, String>,
    /// Whose it is.
    pub owner: CallerName,
}

/// What became of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedText {
    /// The passages that it was cut into.
    pub passages: u32,
    /// Whether one of the same name was replaced.
    pub replaced: bool,
}

impl Retrieval {
    /// How far each knowledge of a catalog is, by name.
    ///
    /// # Errors
    /// Those of the index.
    pub async fn states(&self, catalog: &Catalog) -> Result<Vec<KnowledgeState>, Error> {
        let mut states = Vec::new();
        for (name, knowledge) in catalog.knowledge() {
            let index = &self.shared.index;
            let generation = index.answering(name.as_str()).await?;
            let stats = match generation {
                Some(generation) => index.stats(generation).await?,
                None => GenerationStats::default(),
            };
            let model = catalog.embedding_model_of(knowledge);
            let base = self.base(name);
            let progress = base.as_ref().and_then(|base| base.progress()).unwrap_or_default();
            let is_stale = base.as_ref().is_none_or(|base| base.is_behind());
            let warning = match (generation, model) {
                (Some(generation), Some(model)) if !is_stale => {
                    self.writing_warning(name, model, generation, stats.chunks).await?
                }
                _ => None,
            };
            states.push(KnowledgeState {
                name: name.to_string(),
                sources: stats.entries - stats.failed,
                failed: stats.failed,
                passages: stats.chunks,
                memory_bytes: stats.memory_bytes,
                embedding_model: model.map(|model| model.name.to_string()),
                pending: progress.waiting,
                passages_per_second: progress.chunks_per_second,
                time_left: progress.time_left,
                problem: base.as_ref().and_then(|base| base.problem()),
                polling: progress.polling.clone(),
                is_rebuilding: progress.is_shadow,
                is_stale,
                warning,
            });
        }
        Ok(states)
    }

    /// What is to be told of a knowledge whose writing its embedding model does not know. It is found out when the index changes.
    async fn writing_warning(
        &self,
        name: &KnowledgeName,
        model: &Arc<Model>,
        generation: GenerationId,
        passages: u64,
    ) -> Result<Option<String>, Error> {
        let checks = || self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |check: &&WritingCheck| {
            (check.generation, check.passages, check.model.as_str()) == (generation, passages, model.name.as_str())
        };
        if let Some(check) = checks().get(name).filter(is_same) {
            return Ok(check.warning.clone());
        }
        let index = &self.shared.index;
        let entries = index.entries(generation).await?;
        let mut letters = WritingCounts::default();
        for entry in entries.iter().step_by(entries.len().div_ceil(MAX_SAMPLED_DOCUMENTS).max(1)) {
            let chunks = index.chunks(generation, &entry.key).await?;
            chunks.iter().for_each(|chunk| letters.add_text(&chunk.text));
        }
        let vocabulary = self.shared.models.vocabulary(model).await;
        let warning = writing::warning(&letters, &vocabulary, model.name.as_str());
        if let Some(warning) = &warning {
            tracing::warn!(knowledge = %name, "{warning}");
        }
        let check = WritingCheck { generation, passages, model: model.name.to_string(), warning: warning.clone() };
        checks().insert(name.clone(), check);
        Ok(warning)
    }

    /// The files and texts of a knowledge that this caller sees, by name; all of them without a caller.
    ///
    /// # Errors
    /// [`Error::NoKnowledge`], [`Error::NotReady`], those of the index.
    pub async fn sources(
        &self,
        catalog: &Catalog,
        name: &str,
        caller: Option<&CallerName>,
    ) -> Result<Vec<SourceRecord>, Error> {
        let knowledge = known(catalog, name)?;
        let entries = self.shared.index.entries(self.answering(&knowledge.name).await?).await?;
        let is_seen = |entry: &StoredEntry| {
            caller.is_none_or(|caller| caller.is_owner() || entry.meta.owner.is_owner() || entry.meta.owner == *caller)
        };
        let record = |entry: StoredEntry| {
            let source = shown_source(&entry.key, &entry.meta.owner);
            SourceRecord { source, entry }
        };
        let mut records: Vec<SourceRecord> = entries.into_iter().filter(is_seen).map(record).collect();
        records.sort_by(|one, other| one.source.cmp(&other.source));
        Ok(records)
    }

    /// A file or text with its passages.
    ///
    /// # Errors
    /// Those of [`sources`](Self::sources); [`Error::NoSource`].
    pub async fn source(
        &self,
        catalog: &Catalog,
        name: &str,
        source: &str,
        caller: Option<&CallerName>,
    ) -> Result<(SourceRecord, Vec<DocumentChunk>), Error> {
        let knowledge = known(catalog, name)?;
        let records = self.sources(catalog, name, caller).await?;
        let missing =
            || Error::NoSource { name: knowledge.name.clone(), source_name: source.chars().take(200).collect() };
        let record = records.into_iter().find(|record| record.source == source).ok_or_else(missing)?;
        let chunks = self.shared.index.chunks(self.answering(&knowledge.name).await?, &record.entry.key).await?;
        Ok((record, chunks))
    }

    /// Takes a text, and returns once it is found.
    ///
    /// # Errors
    /// [`Error::NoKnowledge`], [`Error::NotReady`], [`Error::Unreadable`], those of the index.
    pub async fn add_text(&self, catalog: &Catalog, name: &str, text: NewText) -> Result<AddedText, Error> {
        let knowledge = known(catalog, name)?;
        let NewText { source, text, is_markdown, labels, owner } = text;
        let id = text_id(&owner, &source);
        let base = self.base(&knowledge.name);
        let indexer = base.and_then(|base| base.indexer());
        let indexer = indexer.ok_or_else(|| Error::NotReady { name: knowledge.name.clone() })?;
        let before = self.shared.index.texts(knowledge.name.as_str()).await?;
        let replaced = before.iter().any(|text| text.id == id);
        let handed =
            HandedText { id: id.clone(), name: format!("text.{}", extension(is_markdown)), text, owner, labels };
        self.shared.index.put_text(knowledge.name.as_str(), handed).await?;
        indexer.rescan();
        indexer.idle().await;
        let entry = self.entry(&knowledge.name, &EntryKey::text(&id)).await?;
        match entry {
            Some(StoredEntry { reason: Some(reason), .. }) => Err(Error::Unreadable { reason }),
            Some(entry) => Ok(AddedText { passages: entry.chunks, replaced }),
            None => Ok(AddedText { passages: 0, replaced }),
        }
    }

    /// Removes a text of this caller.
    ///
    /// # Errors
    /// [`Error::NoKnowledge`], [`Error::NoSource`], those of the index.
    pub async fn remove_text(
        &self,
        catalog: &Catalog,
        name: &str,
        source: &str,
        owner: &CallerName,
    ) -> Result<(), Error> {
        let knowledge = known(catalog, name)?;
        let removed = self.shared.index.remove_text(knowledge.name.as_str(), &text_id(owner, source)).await?;
        if !removed {
            let source_name = source.chars().take(200).collect();
            return Err(Error::NoSource { name: knowledge.name.clone(), source_name });
        }
        if let Some(indexer) = self.base(&knowledge.name).and_then(|base| base.indexer()) {
            indexer.rescan();
            indexer.idle().await;
        }
        Ok(())
    }

    /// Erases the texts of a caller beyond recovery. Returns how many there were.
    ///
    /// # Errors
    /// Those of the index.
    pub async fn erase(&self, catalog: &Catalog, owner: &CallerName) -> Result<u64, Error> {
        // Files have the owner's name, and would be indexed anew.
        if !owner.is_owner() {
            return Ok(self.shared.index.erase_owner(owner).await?);
        }
        let mut erased = 0;
        for name in catalog.knowledge().keys() {
            let texts = self.shared.index.texts(name.as_str()).await?;
            for text in texts.iter().filter(|text| text.owner.is_owner()) {
                erased += u64::from(self.shared.index.remove_text(name.as_str(), &text.id).await?);
            }
        }
        Ok(erased)
    }

    /// The generation that answers.
    async fn answering(&self, name: &KnowledgeName) -> Result<GenerationId, Error> {
        let answering = self.shared.index.answering(name.as_str()).await?;
        answering.ok_or_else(|| Error::NotReady { name: name.clone() })
    }

    async fn entry(&self, name: &KnowledgeName, key: &EntryKey) -> Result<Option<StoredEntry>, Error> {
        let entries = self.shared.index.entries(self.answering(name).await?).await?;
        Ok(entries.into_iter().find(|entry| entry.key == *key))
    }
}

/// The id of a text: two callers may have texts of one name.
fn text_id(owner: &CallerName, source: &str) -> String {
    format!("{owner}/{source}")
}

fn extension(is_markdown: bool) -> &'static str {
    if is_markdown { "md" } else { "txt" }
}
