//! The vectors of a knowledge in a collection of Qdrant, kept as the index has them.
//!
//! The index is what holds: a search asks Qdrant while both are known to be alike, and compares in the daemon otherwise, so that what
//! was just saved is found and what is gone is not, also while the server is away.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use artel_knowledge::{GenerationId, Index, MirrorPoint, SearchQuery};
use artel_qdrant::{ApiKey, PointId, PointMetadata, QdrantSettings, QdrantStore, SearchPoints, StoredPoint};
use artel_roles::QdrantSetting;
use artel_task::{CallerName, KnowledgeName};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// How long one call may take: longer than an exact search of millions of vectors.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The points that are written together.
const WRITTEN_ENTRIES: u32 = 256;
/// The points that are deleted together.
const DELETED_ENTRIES: u32 = 1000;
/// How often it is looked whether the collection has lost points, or has some that are not known.
const COMPARE_INTERVAL: Duration = Duration::from_secs(600);
/// The first delay after which a call that failed is repeated; it doubles.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(500);
/// The longest such delay.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// The largest file of a key.
const MAX_KEY_BYTES: u64 = 16 * 1024;

/// Whether the collection is as the index.
#[derive(Debug, Clone, PartialEq)]
enum MirrorState {
    /// Something is still to be written.
    Behind,
    /// It was when the index had been written so many times.
    Alike { writes: u64 },
    /// It cannot be written.
    Failing(String),
}

/// Keeps the collection of one knowledge. Dropping it ends the work on it.
pub(crate) struct VectorMirror {
    knowledge: KnowledgeName,
    index: Index,
    store: Arc<OnceLock<QdrantStore>>,
    state: watch::Receiver<MirrorState>,
    _task: AbortOnDropHandle<()>,
}

/// What keeps the collection.
struct MirrorWork {
    knowledge: KnowledgeName,
    setting: QdrantSetting,
    index: Index,
    store: Arc<OnceLock<QdrantStore>>,
    /// Whether all ids of the collection were compared with those that are known.
    is_compared: bool,
    /// The generation and the dimensions for which the collection was prepared.
    prepared: Option<(GenerationId, usize)>,
}

impl VectorMirror {
    pub(crate) fn start(knowledge: KnowledgeName, setting: QdrantSetting, index: Index) -> Self {
        let (told, state) = watch::channel(MirrorState::Behind);
        let store: Arc<OnceLock<QdrantStore>> = Arc::default();
        let work = MirrorWork {
            knowledge: knowledge.clone(),
            setting,
            index: index.clone(),
            store: store.clone(),
            is_compared: false,
            prepared: None,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(work.run(told)));
        Self { knowledge, index, store, state, _task: task }
    }

    /// Why the collection cannot be written.
    pub(crate) fn problem(&self) -> Option<String> {
        match &*self.state.borrow() {
            MirrorState::Failing(problem) => Some(problem.clone()),
            MirrorState::Behind | MirrorState::Alike { .. } => None,
        }
    }

    /// The chunks that the collection has nearest to a query; `None` if it is not as the index, cannot be asked, or has no such
    /// filter: the index is then to compare.
    pub(crate) async fn nearest(&self, query: &SearchQuery) -> Option<Vec<i64>> {
        let writes = *self.index.writes().borrow();
        let is_alike = *self.state.borrow() == MirrorState::Alike { writes };
        let store = self.store.get().filter(|_| is_alike && query.filter.paths.is_empty())?;
        let search = SearchPoints {
            knowledge: self.knowledge.to_string(),
            vector: query.embedding.as_ref()?.values.clone(),
            top: u32::try_from(query.candidates()).unwrap_or(u32::MAX),
            sources: Vec::new(),
            labels: query.filter.labels.clone().into_iter().collect(),
            owners: query.filter.owners.iter().map(CallerName::to_string).collect(),
        };
        let found = match store.search(search).await {
            Ok(found) => found,
            // Nothing was written yet, or it was deleted there; the next comparison finds that.
            Err(artel_qdrant::Error::NoCollection { .. }) => return None,
            Err(error) => {
                tracing::warn!(knowledge = %self.knowledge, %error, "vectors are compared here: Qdrant gave no answer");
                return None;
            }
        };
        let points: Vec<Uuid> = found.into_iter().map(|point| point.id.into()).collect();
        self.index.chunks_of_points(&points).await.ok()
    }
}

impl MirrorWork {
    async fn run(mut self, state: watch::Sender<MirrorState>) {
        let mut writes = self.index.writes();
        let mut delay = MIN_RETRY_DELAY;
        loop {
            let seen = *writes.borrow_and_update();
            match self.sync().await {
                // What was written was counted too: it is looked again.
                Ok(true) => {
                    state.send_if_modified(|state| std::mem::replace(state, MirrorState::Behind) != MirrorState::Behind)
                }
                Ok(false) => {
                    state.send_replace(MirrorState::Alike { writes: seen });
                    delay = MIN_RETRY_DELAY;
                    match tokio::time::timeout(COMPARE_INTERVAL, writes.changed()).await {
                        Ok(Ok(())) => {}
                        // The index is closed.
                        Ok(Err(_)) => return,
                        Err(_) => self.is_compared = false,
                    }
                    continue;
                }
                Err(problem) => {
                    let is_new = state.send_if_modified(|state| {
                        let failing = MirrorState::Failing(problem.clone());
                        std::mem::replace(state, failing.clone()) != failing
                    });
                    if is_new {
                        tracing::warn!(knowledge = %self.knowledge, %problem, "vectors are not written to Qdrant: trying again");
                    }
                    self.is_compared = false;
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(MAX_RETRY_DELAY);
                    continue;
                }
            };
            delay = MIN_RETRY_DELAY;
        }
    }

    /// Writes what the collection lacks, and deletes what has no chunk. Whether there was anything.
    async fn sync(&mut self) -> Result<bool, String> {
        let store = self.store().await?;
        let failed = |error: artel_knowledge::Error| error.to_string();
        let Some(generation) = self.index.answering(self.knowledge.as_str()).await.map_err(failed)? else {
            return Ok(false);
        };
        if !self.is_compared {
            self.compare(&store, generation).await?;
            self.is_compared = true;
        }
        let mut is_changed = false;
        loop {
            let gone = self.index.abandoned_points(generation, DELETED_ENTRIES).await.map_err(failed)?;
            if gone.is_empty() {
                break;
            }
            self.delete(&store, gone).await?;
            is_changed = true;
        }
        while self.index.lacks_points(generation).await.map_err(failed)? {
            let points = self.index.lacking_points(generation, WRITTEN_ENTRIES).await.map_err(failed)?;
            let Some(dimensions) = points.first().map(|point| point.vector.len()) else { break };
            if self.prepared != Some((generation, dimensions)) {
                store
                    .prepare(u32::try_from(dimensions).unwrap_or_default())
                    .await
                    .map_err(|error| error.to_string())?;
                self.prepared = Some((generation, dimensions));
            }
            let ids = points.iter().map(|point| point.id).collect();
            let points = points.into_iter().map(|point| stored_point(&self.knowledge, point)).collect();
            store.upsert(points).await.map_err(|error| error.to_string())?;
            self.index.mirrored(ids).await.map_err(failed)?;
            is_changed = true;
        }
        Ok(is_changed)
    }

    /// Deletes points that are not known, as those of an index that is gone, and notes those that the collection has lost.
    async fn compare(&self, store: &QdrantStore, generation: GenerationId) -> Result<(), String> {
        let there = match store.points(self.knowledge.as_str()).await {
            Err(artel_qdrant::Error::NoCollection { .. }) => BTreeSet::new(),
            points => points.map_err(|error| error.to_string())?,
        };
        let there: BTreeSet<Uuid> = there.into_iter().map(Uuid::from).collect();
        let known = self.index.written_points(generation).await.map_err(|error| error.to_string())?;
        let known: BTreeSet<Uuid> = known.into_iter().collect();
        let unknown: Vec<Uuid> = there.difference(&known).copied().collect();
        if !unknown.is_empty() {
            self.delete(store, unknown).await?;
        }
        let lost: Vec<Uuid> = known.difference(&there).copied().collect();
        if !lost.is_empty() {
            tracing::warn!(knowledge = %self.knowledge, points = lost.len(), "Qdrant has lost points: they are written again");
            self.index.unmirrored(lost).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn delete(&self, store: &QdrantStore, points: Vec<Uuid>) -> Result<(), String> {
        let ids: Vec<PointId> = points.iter().copied().map(PointId::from).collect();
        store.delete(&ids).await.map_err(|error| error.to_string())?;
        self.index.unmirrored(points).await.map_err(|error| error.to_string())
    }

    /// The store, with the key that its file has at the moment.
    async fn store(&self) -> Result<QdrantStore, String> {
        if let Some(store) = self.store.get() {
            return Ok(store.clone());
        }
        let settings = settings(&self.setting)?;
        if settings.exposes_key() {
            tracing::warn!(knowledge = %self.knowledge, "the key of Qdrant goes through the network unencrypted: use `https://`");
        }
        let store = QdrantStore::new(settings).map_err(|error| error.to_string())?;
        Ok(self.store.get_or_init(|| store).clone())
    }
}

fn settings(setting: &QdrantSetting) -> Result<QdrantSettings, String> {
    let QdrantSetting { url, collection, key } = setting;
    Ok(QdrantSettings {
        address: url.parse().map_err(|error: artel_qdrant::InvalidAddress| error.to_string())?,
        collection: collection.parse().map_err(|error: artel_qdrant::InvalidCollectionName| error.to_string())?,
        api_key: key.as_deref().map(read_key).transpose()?,
        timeout: CALL_TIMEOUT,
    })
}

fn read_key(file: &Path) -> Result<ApiKey, String> {
    let failed = |cause: String| format!("cannot read the key of Qdrant in {}: {cause}", file.display());
    let bytes = fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
    if bytes > MAX_KEY_BYTES {
        return Err(failed(format!("it has {bytes} bytes, and a key has at most {MAX_KEY_BYTES}")));
    }
    let text = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    text.trim().parse().map_err(|error: artel_qdrant::InvalidApiKey| failed(error.to_string()))
}

fn stored_point(knowledge: &KnowledgeName, point: MirrorPoint) -> StoredPoint {
    let MirrorPoint { id, entry, owner, labels, chunk, vector, model } = point;
    StoredPoint {
        id: id.into(),
        vector,
        text: chunk.text,
        metadata: PointMetadata {
            knowledge: knowledge.to_string(),
            source: crate::found::shown_source(&entry, &owner),
            page: chunk.page,
            first_line: *chunk.lines.start(),
            last_line: *chunk.lines.end(),
            context: chunk.context,
            labels: labels.into_iter().collect(),
            owner: owner.to_string(),
            model,
        },
    }
}
