//! The index: one database with many bases, and what of it is kept in memory.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_documents::DocumentChunk;
use artel_task::CallerName;
use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Sqlite, Transaction};
use tokio::sync::{Mutex, watch};

use crate::embedder::ModelPrint;
use crate::entry::{ContentHash, EntryKey, EntryMeta, HandedText, StoredEntry};
use crate::error::Error;
use crate::generation::{self, GenerationId, IndexSettings, OpenedBase};
use crate::query::{SearchQuery, SearchResult};
use crate::rows::{self, CHUNK_COLUMNS, ENTRY_COLUMNS};
use crate::segment::GenerationView;
use crate::views::{CommittedViews, Views};
use crate::write::{self, EntryContent, PreparedChunk};
use crate::writer::IndexWriter;
use crate::{erase, load, schema, search, texts};

/// The read connections: a search holds one for as long as it runs.
const MAX_READ_CONNECTIONS: u32 = 4;

/// A read that waits longer than this for a connection fails.
const READ_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a read begins anew when more commits than are kept pass while it begins.
const BEGIN_ATTEMPTS: u32 = 16;

/// How long an embedding that no chunk has is kept: a file that is moved out and back, or a branch that is changed and changed
/// back, needs no new ones.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// The index of knowledge bases. Cheap to clone; all clones share one database.
#[derive(Debug, Clone)]
pub struct Index {
    shared: Arc<SharedIndex>,
}

#[derive(Debug)]
struct SharedIndex {
    path: Arc<Path>,
    readers: SqlitePool,
    views: CommittedViews,
    /// `None` once it is closed.
    writer: Arc<Mutex<Option<IndexWriter>>>,
    /// Counts what was written, for what follows it.
    writes: watch::Sender<u64>,
}

/// The state of a generation, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerationStats {
    /// Files and texts with chunks or without.
    pub entries: u64,
    /// Those that could not be read.
    pub failed: u64,
    /// The chunks of all.
    pub chunks: u64,
    /// The bytes that they take in memory.
    pub memory_bytes: u64,
}

impl Index {
    /// Opens a database, creating it if it is missing, and reads into memory what searches need: about a second for 100,000
    /// chunks.
    ///
    /// # Errors
    /// If it cannot be opened, another process has it open, or it is damaged, newer or something else.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, |connect| connect).await
    }

    /// Like [`open`](Self::open), with other options of the writer's connection: tests simulate a full disk with it.
    pub(crate) async fn open_with(
        path: &Path,
        tune: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> Result<Self, Error> {
        let lock = lock(path)?;
        let mut conn = schema::open(path, tune(schema::connect_options(path))).await?;
        let (commits, views) = load::load(path, &mut conn).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(MAX_READ_CONNECTIONS)
            .acquire_timeout(READ_CONNECTION_TIMEOUT)
            .connect_lazy_with(schema::connect_options(path).read_only(true));
        let path: Arc<Path> = path.into();
        let writer = Arc::new(Mutex::new(Some(IndexWriter::new(conn, path.clone(), lock))));
        let (views, writes) = (CommittedViews::new(commits, views), watch::Sender::new(0));
        let shared = SharedIndex { path, readers, views, writer, writes };
        let index = Self { shared: Arc::new(shared) };
        index.spawn_purge();
        Ok(index)
    }

    /// Finds or creates the generation of a base with these settings. If another one answers, the target is built beside it until
    /// [`swap`](Self::swap); one that was begun is continued.
    ///
    /// # Errors
    /// Any fault.
    pub async fn open_base(&self, name: &str, settings: &IndexSettings) -> Result<OpenedBase, Error> {
        let (name, settings) = (name.to_owned(), settings.clone());
        let opened =
            self.write(|writer| Box::pin(async move { generation::open_base(writer, &name, &settings).await })).await?;
        self.spawn_purge();
        Ok(opened)
    }

    /// Lets the target of a base answer, and deletes the generation that did, in the background.
    ///
    /// # Errors
    /// [`Error::UnknownGeneration`] if the settings changed meanwhile; any fault.
    pub async fn swap(&self, base: OpenedBase) -> Result<(), Error> {
        self.write(move |writer| Box::pin(generation::swap(writer, base))).await?;
        self.spawn_purge();
        Ok(())
    }

    /// Removes a base with its texts. Whether there was one.
    ///
    /// # Errors
    /// Any fault.
    pub async fn remove_base(&self, name: &str) -> Result<bool, Error> {
        let name = name.to_owned();
        let removed =
            self.write(|writer| Box::pin(async move { generation::remove_base(writer, &name).await })).await?;
        self.spawn_purge();
        Ok(removed)
    }

    /// The entries of a generation.
    ///
    /// # Errors
    /// Any fault.
    pub async fn entries(&self, generation: GenerationId) -> Result<Vec<StoredEntry>, Error> {
        let path = &self.shared.path;
        let sql = format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE generation = ? ORDER BY key");
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(generation.0).fetch_all(&self.shared.readers).await;
        let rows = rows.map_err(|e| Error::database(path, e))?;
        rows.iter().map(|row| rows::stored_entry(path, row)).collect()
    }

    /// The number of entries and chunks of a generation.
    ///
    /// # Errors
    /// Any fault.
    pub async fn stats(&self, generation: GenerationId) -> Result<GenerationStats, Error> {
        let (mut tx, views) = self.begin().await?;
        let counts: (i64, i64) = sqlx::query_as("SELECT count(*), count(reason) FROM entries WHERE generation = ?")
            .bind(generation.0)
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| Error::database(&self.shared.path, e))?;
        let view = views.get(&generation.0);
        Ok(GenerationStats {
            entries: counts.0.cast_unsigned(),
            failed: counts.1.cast_unsigned(),
            chunks: view.map_or(0, GenerationView::chunks) as u64,
            memory_bytes: view.map_or(0, GenerationView::bytes) as u64,
        })
    }

    /// The generation of a base that answers; `None` if there is no such base.
    ///
    /// # Errors
    /// Any fault.
    pub async fn answering(&self, base: &str) -> Result<Option<GenerationId>, Error> {
        let sql = "SELECT g.id FROM generations g JOIN bases b ON b.id = g.base WHERE b.name = ? AND g.phase = 1";
        let found = sqlx::query_scalar(sql).bind(base).fetch_optional(&self.shared.readers).await;
        let found: Option<i64> = found.map_err(|e| Error::database(&self.shared.path, e))?;
        Ok(found.map(GenerationId))
    }

    /// The chunks of an entry, in the order of its text; none if there is no such entry.
    ///
    /// # Errors
    /// Any fault.
    pub async fn chunks(&self, generation: GenerationId, key: &EntryKey) -> Result<Vec<DocumentChunk>, Error> {
        let path = &self.shared.path;
        let sql = format!(
            "SELECT {CHUNK_COLUMNS} FROM chunks c JOIN entries e ON e.id = c.entry
             WHERE e.generation = ? AND e.key = ? ORDER BY c.id"
        );
        let rows =
            sqlx::query(AssertSqlSafe(sql)).bind(generation.0).bind(key.as_str()).fetch_all(&self.shared.readers);
        let rows = rows.await.map_err(|e| Error::database(path, e))?;
        rows.iter().map(|row| rows::chunk(path, row)).collect()
    }

    /// Those of these texts that have no embedding by this model, by their hashes.
    ///
    /// # Errors
    /// Any fault.
    pub async fn missing_embeddings(
        &self,
        model: &ModelPrint,
        hashes: &[ContentHash],
    ) -> Result<HashSet<ContentHash>, Error> {
        let mut missing = HashSet::new();
        let mut conn = self.shared.readers.acquire().await.map_err(|e| Error::database(&self.shared.path, e))?;
        for hash in hashes {
            let found: Option<i64> = sqlx::query_scalar(
                "SELECT 1 FROM embeddings e JOIN models m ON m.id = e.model WHERE m.fingerprint = ? AND e.hash = ?",
            )
            .bind(model.as_str())
            .bind(hash.as_bytes().as_slice())
            .fetch_optional(&mut *conn)
            .await
            .map_err(|e| Error::database(&self.shared.path, e))?;
            if found.is_none() {
                missing.insert(*hash);
            }
        }
        Ok(missing)
    }

    /// Keeps embeddings by the hashes of their texts, so that they are not computed again if this ends before their chunks are
    /// stored.
    ///
    /// # Errors
    /// [`Error::Dimensions`] for a vector of another length; any fault.
    pub async fn store_embeddings(
        &self,
        model: &ModelPrint,
        vectors: Vec<(ContentHash, Vec<f32>)>,
    ) -> Result<(), Error> {
        let print = model.clone();
        self.write(|writer| {
            Box::pin(async move {
                let sql = "SELECT id, dimensions FROM models WHERE fingerprint = ?";
                let found = sqlx::query_as(sql).bind(print.as_str()).fetch_optional(&mut writer.conn).await;
                let found: Option<(i64, i64)> = found.map_err(|e| writer.failed(e))?;
                let Some((id, dimensions)) = found else {
                    return Err(Error::UnknownBase { base: format!("of the model {print}") });
                };
                let dimensions = usize::try_from(dimensions).unwrap_or_default();
                write::store_embeddings(writer, id, dimensions, &vectors, now_ms()).await
            })
        })
        .await
    }

    /// Replaces all chunks of an entry in one transaction. Each needs an embedding of the target's model, which
    /// [`store_embeddings`](Self::store_embeddings) keeps.
    ///
    /// # Errors
    /// [`Error::MissingEmbeddings`], [`Error::UnknownGeneration`]; any fault. The entry is then as it was.
    pub async fn replace(
        &self,
        base: OpenedBase,
        key: &EntryKey,
        meta: EntryMeta,
        chunks: Vec<PreparedChunk>,
    ) -> Result<(), Error> {
        self.store(base, key, meta, EntryContent::Chunks(Arc::new(chunks))).await
    }

    /// Stores that an entry cannot be read, and removes the chunks that it had.
    ///
    /// # Errors
    /// [`Error::UnknownGeneration`]; any fault.
    pub async fn fail(&self, base: OpenedBase, key: &EntryKey, meta: EntryMeta, reason: String) -> Result<(), Error> {
        self.store(base, key, meta, EntryContent::Unreadable(reason)).await
    }

    async fn store(
        &self,
        base: OpenedBase,
        key: &EntryKey,
        meta: EntryMeta,
        content: EntryContent,
    ) -> Result<(), Error> {
        let key = key.clone();
        self.write(move |writer| {
            Box::pin(async move { write::replace(writer, &base.all(), &key, &meta, &content, now_ms()).await })
        })
        .await
    }

    /// Removes entries from all generations of a base: the next search does not find them.
    ///
    /// # Errors
    /// Any fault; then none is removed.
    pub async fn remove(&self, base: OpenedBase, keys: Vec<EntryKey>) -> Result<(), Error> {
        self.write(move |writer| {
            Box::pin(async move {
                for generation in base.all() {
                    for key in &keys {
                        write::remove(writer, generation, key, now_ms()).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }

    /// Gives an entry another name, in place of any that has it, with what is now known of it; its chunks stay as they are.
    /// Whether the target had such an entry.
    ///
    /// # Errors
    /// Any fault.
    pub async fn rename(
        &self,
        base: OpenedBase,
        from: &EntryKey,
        to: &EntryKey,
        meta: EntryMeta,
    ) -> Result<bool, Error> {
        let (from, to) = (from.clone(), to.clone());
        self.write(move |writer| {
            Box::pin(async move {
                if let Some(answering) = base.answering {
                    write::rename(writer, answering, &from, &to, &meta, now_ms()).await?;
                }
                write::rename(writer, base.target, &from, &to, &meta, now_ms()).await
            })
        })
        .await
    }

    /// Stores what is known of an entry whose content is as it was. Whether the target has it with that content.
    ///
    /// # Errors
    /// Any fault.
    pub async fn touch(&self, base: OpenedBase, key: &EntryKey, meta: EntryMeta) -> Result<bool, Error> {
        let key = key.clone();
        self.write(move |writer| {
            Box::pin(async move {
                if let Some(answering) = base.answering {
                    write::touch(writer, answering, &key, &meta).await?;
                }
                write::touch(writer, base.target, &key, &meta).await
            })
        })
        .await
    }

    /// Searches the generation of a base that answers.
    ///
    /// # Errors
    /// [`Error::UnknownBase`], [`Error::Limit`], [`Error::Pattern`], [`Error::NoVector`], [`Error::Dimensions`]; any fault.
    pub async fn search(&self, base: &str, query: SearchQuery) -> Result<SearchResult, Error> {
        query.check()?;
        let (mut tx, views) = self.begin().await?;
        search::search(&self.shared.path, &mut tx, views, base, query).await
    }

    /// Keeps a text for a base, in place of one with its id; an [`Indexer`](crate::Indexer) indexes it.
    ///
    /// # Errors
    /// [`Error::UnknownBase`], [`Error::Limit`]; any fault.
    pub async fn put_text(&self, base: &str, text: HandedText) -> Result<(), Error> {
        texts::check(&text)?;
        let base = base.to_owned();
        self.write(|writer| Box::pin(async move { texts::put(writer, &base, &text).await })).await
    }

    /// Removes a text from a base. Whether there was one.
    ///
    /// # Errors
    /// Any fault.
    pub async fn remove_text(&self, base: &str, id: &str) -> Result<bool, Error> {
        let (base, id) = (base.to_owned(), id.to_owned());
        self.write(|writer| Box::pin(async move { texts::remove(writer, &base, &id).await })).await
    }

    /// The texts that were handed in for a base.
    ///
    /// # Errors
    /// Any fault.
    pub async fn texts(&self, base: &str) -> Result<Vec<HandedText>, Error> {
        texts::all(&self.shared.path, &self.shared.readers, base).await
    }

    /// Erases all that belongs to a caller: entries, texts and embeddings, from the files too, by writing them anew. Returns the
    /// number of entries.
    ///
    /// # Errors
    /// Any fault; what was removed then stays removed.
    pub async fn erase_owner(&self, owner: &CallerName) -> Result<u64, Error> {
        let owner = owner.clone();
        let erased = self.write(|writer| Box::pin(async move { erase::owner(writer, &owner, now_ms()).await })).await?;
        let mut writer = self.shared.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(|| self.closed())?;
        erase::rewrite(writer).await?;
        Ok(erased)
    }

    /// Deletes embeddings that no chunk has had for a day.
    ///
    /// # Errors
    /// Any fault.
    pub async fn sweep(&self) -> Result<(), Error> {
        let before = now_ms() - i64::try_from(ORPHAN_AGE.as_millis()).expect("a day is few milliseconds");
        self.write(move |writer| Box::pin(erase::orphans(writer, before))).await
    }

    /// Ends writes and closes the database; other clones then get [`Error::Closed`].
    pub async fn close(self) {
        self.shared.readers.close().await;
        if let Some(writer) = self.shared.writer.lock().await.take()
            && let Err(error) = writer.conn.close().await
        {
            tracing::warn!(path = %self.shared.path.display(), %error, "the last checkpoint of the knowledge index failed; it is repeated when it is opened again");
        }
    }

    /// A transaction that reads a committed state, and the views of the same state.
    async fn begin(&self) -> Result<(Transaction<'static, Sqlite>, Arc<Views>), Error> {
        let failed = |e| Error::database(&self.shared.path, e);
        for _ in 0..BEGIN_ATTEMPTS {
            let mut tx = self.shared.readers.begin().await.map_err(failed)?;
            // The first read decides which state the transaction sees.
            let commits: i64 =
                sqlx::query_scalar("SELECT commits FROM state").fetch_one(&mut *tx).await.map_err(failed)?;
            if let Some(views) = self.shared.views.at(commits) {
                return Ok((tx, views));
            }
        }
        Err(Error::Busy { path: self.shared.path.to_path_buf() })
    }

    /// Runs a write. If the caller stops waiting before it begins, it does not; later, it runs to its end. So what a caller begins
    /// after it gave up a write never comes before it.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        operation: impl for<'a> FnOnce(&'a mut IndexWriter) -> BoxFuture<'a, Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.shared.clone();
        let mut writer = shared.writer.clone().lock_owned().await;
        let written = tokio::spawn(async move {
            let closed = || Error::Closed { path: shared.path.to_path_buf() };
            let written = writer.as_mut().ok_or_else(closed)?.transact(&shared.views, operation).await;
            if written.is_ok() {
                shared.writes.send_modify(|count| *count += 1);
            }
            written
        });
        match written.await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(self.closed()),
        }
    }

    /// Deletes retired generations in the background, a part at a time.
    fn spawn_purge(&self) {
        let index = self.clone();
        tokio::spawn(async move {
            loop {
                match index.write(|writer| Box::pin(generation::purge_some(writer, now_ms()))).await {
                    Ok(true) => {}
                    Ok(false) | Err(Error::Closed { .. }) => break,
                    Err(error) => {
                        tracing::warn!(%error, "a former generation of a knowledge base is not deleted yet; it is when the index is opened again");
                        break;
                    }
                }
            }
        });
    }

    /// Counts what was written since it was opened.
    pub fn writes(&self) -> watch::Receiver<u64> {
        self.shared.writes.subscribe()
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.shared.readers
    }

    pub(crate) fn path(&self) -> &Path {
        &self.shared.path
    }

    fn closed(&self) -> Error {
        Error::Closed { path: self.shared.path.to_path_buf() }
    }
}

/// The wall time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The lock against a second process, which is held as long as the file stays open.
fn lock(path: &Path) -> Result<File, Error> {
    let lock_path = path.with_extension("lock");
    let failed = |source: std::io::Error| Error::ReadOnly { path: lock_path.clone(), source: Arc::new(source.into()) };
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
