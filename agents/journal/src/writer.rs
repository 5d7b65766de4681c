//! The single writer: it commits all waiting requests in one transaction and answers them after the commit.

use std::fs::File;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use artel_metrics::JournalMetrics;
use artel_task::event::Timestamp;
use artel_task::{Clock, TaskId};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::erase::{self, ErasedRows};
use crate::hook::CommitCounter;
use crate::index::TaskIndex;
use crate::request::{ReplySender, WriteRequest};
use crate::rows::RowBatch;
use crate::write::{self, PRUNE_TASKS};
use crate::{Error, Options, Retention, connection, dir, panic};

/// The maximum number of requests in a commit, so that the first of them does not wait for a whole queue.
const MAX_BATCH_REQUESTS: usize = 256;

/// How often an idle journal looks for tasks beyond the maximum age.
const AGE_CHECK_INTERVAL: Duration = Duration::from_secs(3600);

/// How often the free space is checked after the disk was full.
const FREE_SPACE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Sends a caller its result once the outcome of the commit is known.
type CommitCallback = Box<dyn FnOnce(Result<(), Error>) + Send>;

pub(crate) struct JournalWriter {
    conn: SqliteConnection,
    index: TaskIndex,
    rows: RowBatch,
    path: PathBuf,
    /// The options to connect again after the disk was full.
    connect: SqliteConnectOptions,
    lock: File,
    retention: Retention,
    clock: Clock,
    prune_interval_tasks: NonZeroU32,
    /// The tasks that ended since retention last started.
    ended_tasks: u32,
    /// Whether retention is due or has work left.
    is_prune_due: bool,
    /// Whether the file may have more free pages than it needs.
    is_vacuum_due: bool,
    /// The failure that stopped writes, sent to the waiting handles. Only a full disk is recovered from.
    failure: watch::Sender<Option<Arc<Error>>>,
    /// Set while the database is written anew.
    is_purging: Arc<AtomicBool>,
    commits: CommitCounter,
    metrics: JournalMetrics,
}

impl JournalWriter {
    /// Opens the database for writing.
    pub(crate) async fn open(
        path: &Path,
        connect: SqliteConnectOptions,
        lock: File,
        options: &Options,
        failure: watch::Sender<Option<Arc<Error>>>,
        is_purging: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let mut conn = connection::open(path, connect.clone()).await?;
        let index = TaskIndex::open(&mut conn).await.map_err(|e| Error::database(path, e))?;
        let Options { retention, prune_interval_tasks, .. } = *options;
        Ok(Self {
            conn,
            index,
            rows: RowBatch::default(),
            path: path.to_owned(),
            connect,
            lock,
            retention,
            clock: options.clock.clone(),
            prune_interval_tasks,
            ended_tasks: 0,
            is_prune_due: true,
            is_vacuum_due: true,
            failure,
            is_purging,
            commits: CommitCounter::new(options.hook.clone()),
            metrics: options.metrics.clone(),
        })
    }

    fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    fn is_disk_full(&self) -> bool {
        self.failure.borrow().as_deref().is_some_and(|error| matches!(error, Error::Full { .. }))
    }

    /// Runs until [`WriteRequest::Close`], or until all handles are dropped.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<WriteRequest>) {
        let mut close_requests = Vec::new();
        while let Err(payload) = panic::catch(self.serve(&mut requests, &mut close_requests)).await {
            // Some of the writer's state may be half changed. With a failure set, it only refuses what is asked of it.
            let message = panic::message(&*payload).to_owned();
            self.stop_writes(&Error::Panicked { path: self.path.clone(), message }).await;
        }
        if let Err(error) = self.conn.close().await {
            tracing::warn!(path = %self.path.display(), %error, "the last checkpoint of the journal failed; it is repeated when the journal is opened again");
        }
        drop(self.lock);
        for close in close_requests {
            close.refuse(&Error::Closed { path: self.path.clone() });
        }
    }

    /// Takes and commits requests. Those that ask to close are answered later, by the caller.
    async fn serve(&mut self, requests: &mut mpsc::Receiver<WriteRequest>, close_requests: &mut Vec<WriteRequest>) {
        let mut batch = Vec::with_capacity(MAX_BATCH_REQUESTS);
        while self.receive(requests, &mut batch).await {
            for close in batch.extract_if(.., |request| matches!(request, WriteRequest::Close(_))) {
                requests.close();
                close_requests.push(close);
            }
            if self.is_disk_full() {
                self.try_recover().await;
            }
            let purges: Vec<_> = batch.extract_if(.., |request| matches!(request, WriteRequest::Purge(_))).collect();
            self.commit(std::mem::take(&mut batch)).await;
            for purge in purges {
                self.purge(purge).await;
            }
            self.run_retention().await;
        }
    }

    /// Waits for requests, or only takes those that are there if retention has work to do. False at the end.
    async fn receive(&mut self, requests: &mut mpsc::Receiver<WriteRequest>, batch: &mut Vec<WriteRequest>) -> bool {
        let has_retention_work = self.is_prune_due || self.is_vacuum_due;
        if !has_retention_work || self.has_failed() || requests.is_closed() {
            let timeout = if self.is_disk_full() { FREE_SPACE_CHECK_INTERVAL } else { AGE_CHECK_INTERVAL };
            let received = tokio::time::timeout(timeout, requests.recv_many(batch, MAX_BATCH_REQUESTS)).await;
            // After a long idle time, tasks may have reached the maximum age.
            self.is_prune_due |= received.is_err();
            return received.is_err() || !batch.is_empty();
        }
        while batch.len() < MAX_BATCH_REQUESTS
            && let Ok(request) = requests.try_recv()
        {
            batch.push(request);
        }
        true
    }

    async fn commit(&mut self, requests: Vec<WriteRequest>) {
        if requests.is_empty() {
            return;
        }
        if let Some(error) = self.refusal() {
            return requests.into_iter().for_each(|request| request.refuse(&error));
        }
        let mut callbacks = Vec::with_capacity(requests.len());
        let mut requests = requests;
        let outcome = self.transact(&mut requests, &mut callbacks).await.map_err(|error| self.classify(error));
        if let Err(error) = &outcome {
            requests.into_iter().for_each(|request| request.refuse(error));
            self.stop_writes(error).await;
        }
        callbacks.into_iter().for_each(|callback| callback(outcome.clone()));
    }

    /// Removes what was erased from the files. That the disk is full for it stops no writes: nothing was written.
    async fn purge(&mut self, request: WriteRequest) {
        if let Some(error) = self.refusal() {
            return request.refuse(&error);
        }
        let WriteRequest::Purge(reply) = request else { return };
        // The caller may have stopped waiting.
        drop(reply.send(self.rewrite_files().await));
    }

    /// Writes the database anew, and empties the log.
    async fn rewrite_files(&mut self) -> Result<(), Error> {
        let Self { conn, path, commits, clock, .. } = self;
        let failed = |source: sqlx::Error| Error::Purge { path: path.clone(), source: source.into() };
        self.is_purging.store(true, Relaxed);
        let rewritten = async {
            commits.before().await.map_err(failed)?;
            erase::rewrite(conn, clock.now()).await.map_err(failed)?;
            erase::truncate_log(conn, path).await?;
            commits.after().await.map_err(failed)
        };
        let rewritten = rewritten.await;
        self.is_purging.store(false, Relaxed);
        rewritten
    }

    /// Removes the sources of catalogs that were in use when the last task that refers to them was erased, as they are not now.
    async fn purge_catalogs(&mut self) {
        let has_catalogs = write::has_catalogs_to_erase(&mut self.conn, self.clock.now()).await;
        let purged = match has_catalogs {
            Ok(false) => return,
            Ok(true) => self.rewrite_files().await,
            Err(error) => Err(Error::database(&self.path, error)),
        };
        if let Err(error) = purged {
            let path = self.path.display();
            tracing::warn!(%path, %error, "failed to erase the sources of catalogs; retention tries again");
        }
    }

    /// Why no request is performed, after a failure.
    fn refusal(&self) -> Option<Error> {
        let cause = self.failure.borrow().clone()?;
        Some(match &*cause {
            Error::Full { .. } => Error::clone(&cause),
            _ => Error::Failed { path: self.path.clone(), cause },
        })
    }

    /// Recognises a full disk behind a failed write: SQLite does not report all limits of a disk as such.
    fn classify(&self, error: Error) -> Error {
        if error.is_failed_write() && dir::is_disk_full(&self.path) {
            Error::Full { path: self.path.clone() }
        } else {
            error
        }
    }

    /// Performs requests up to the first that fails; a refused one counts as performed.
    async fn transact(
        &mut self,
        requests: &mut Vec<WriteRequest>,
        callbacks: &mut Vec<CommitCallback>,
    ) -> Result<(), Error> {
        let Self { conn, index, rows, path, ended_tasks, commits, clock, metrics, .. } = self;
        let start = Instant::now();
        let failed = |error| Error::database(path, error);
        let now = clock.now();
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        index.load(&mut tx, path, requests).await.map_err(failed)?;
        for request in requests.drain(..) {
            request.perform(&mut tx, (path, now), index, rows, ended_tasks, callbacks).await.map_err(failed)?;
        }
        rows.write(&mut tx).await.map_err(failed)?;
        commits.before().await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        let written = rows.take_written();
        metrics.committed(start.elapsed(), written.events, written.bytes);
        commits.after().await.map_err(failed)?;
        index.end_batch();
        Ok(())
    }

    /// Stops writes after a failed transaction: its commit may be on disk or not, and a page whose write failed may be lost
    /// without an error the next time. After a busy database writes continue, since the transaction has not started.
    async fn stop_writes(&mut self, error: &Error) {
        // The index was changed for rows that were not written.
        self.rows = RowBatch::default();
        if matches!(error, Error::Busy { .. }) {
            let index = TaskIndex::open(&mut self.conn).await;
            self.index = index.unwrap_or_default();
            return;
        }
        if matches!(error, Error::Full { .. }) {
            tracing::error!(path = %self.path.display(), %error, "the journal takes no more writes until disk space is free");
        } else {
            tracing::error!(path = %self.path.display(), %error, "the journal takes no more writes");
        }
        self.metrics.failed();
        self.failure.send_replace(Some(Arc::new(error.clone())));
    }

    /// Opens the database again and continues writing, if a full disk has free space again. This is safe: what SQLite could
    /// not write for lack of space was part of no commit.
    async fn try_recover(&mut self) {
        if !dir::has_free_space(&self.path) {
            return;
        }
        let reopened = async {
            let mut conn = connection::open(&self.path, self.connect.clone()).await?;
            let index = TaskIndex::open(&mut conn).await.map_err(|e| Error::database(&self.path, e))?;
            Ok::<_, Error>((conn, index))
        };
        match reopened.await {
            Ok((conn, index)) => {
                // Closing the old connection may fail because of its unwritten pages; the new one has read all that is committed.
                drop(std::mem::replace(&mut self.conn, conn).close().await);
                self.index = index;
                tracing::info!(path = %self.path.display(), "disk space is free again; the journal takes writes");
                self.metrics.recovered();
                self.failure.send_replace(None);
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "disk space is free again, but the journal could not be opened");
            }
        }
    }

    /// Performs one step of retention, if it is due.
    async fn run_retention(&mut self) {
        if self.ended_tasks >= self.prune_interval_tasks.get() {
            self.ended_tasks = 0;
            self.is_prune_due = true;
        }
        if self.has_failed() {
            return;
        }
        if self.is_prune_due {
            let (reply, deleted) = oneshot::channel();
            self.commit(vec![WriteRequest::Prune(self.retention, reply)]).await;
            let deleted = deleted.await;
            self.is_prune_due = matches!(deleted, Ok(Ok(PRUNE_TASKS)));
            self.is_vacuum_due |= matches!(deleted, Ok(Ok(1..)));
            if !self.is_prune_due && !self.has_failed() {
                self.purge_catalogs().await;
            }
        } else if self.is_vacuum_due {
            match write::vacuum(&mut self.conn).await {
                Ok(more) => self.is_vacuum_due = more,
                Err(error) => {
                    self.is_vacuum_due = false;
                    let error = Error::database(&self.path, error);
                    self.stop_writes(&error).await;
                }
            }
        }
    }
}

impl WriteRequest {
    /// Returns an error that aborts the transaction; the caller gets it too, through its [`CommitCallback`].
    async fn perform(
        self,
        conn: &mut SqliteConnection,
        (path, now): (&Path, Timestamp),
        index: &mut TaskIndex,
        rows: &mut RowBatch,
        ended_tasks: &mut u32,
        callbacks: &mut Vec<CommitCallback>,
    ) -> sqlx::Result<()> {
        match self {
            Self::Accept(first, more, reply) => defer_reply(callbacks, reply, Ok(index.accept(&first, &more, rows))),
            Self::Append(events, reply) => {
                let has_ended = index.append(&events, rows);
                *ended_tasks += u32::from(matches!(has_ended, Ok(true)));
                defer_reply(callbacks, reply, Ok(has_ended.map(|_| ())))
            }
            Self::StoreCatalog(version, sources, reply) => {
                defer_reply(callbacks, reply, write::store_catalog(conn, &version, &sources, now).await.map(Ok))
            }
            Self::Prune(limits, reply) => {
                // The pending rows may belong to tasks that retention deletes.
                let written = rows.write(conn).await;
                index.clear_catalogs();
                let deleted = match written {
                    Ok(()) => write::prune(conn, limits, now).await,
                    Err(error) => Err(error),
                };
                defer_reply(callbacks, reply, deleted.map(Ok))
            }
            Self::BeginErasures(erasures, reply) => {
                defer_reply(callbacks, reply, erase::begin(conn, &erasures).await.map(Ok))
            }
            Self::Erase(tasks, reply) => {
                // The pending rows may belong to these tasks.
                let erased = match rows.write(conn).await {
                    Ok(()) => erase_tasks(conn, path, now, index, &tasks).await,
                    Err(error) => Err(error),
                };
                defer_reply(callbacks, reply, erased)
            }
            Self::EndErasures(reply) => defer_reply(callbacks, reply, erase::end(conn).await.map(Ok)),
            Self::Purge(_) | Self::Close(_) => Ok(()),
        }
    }
}

/// Erases the text of tasks; the number of those that exist. One that has not ended is an error.
async fn erase_tasks(
    conn: &mut SqliteConnection,
    path: &Path,
    now: Timestamp,
    index: &mut TaskIndex,
    tasks: &[TaskId],
) -> sqlx::Result<Result<u64, Error>> {
    let mut erased = 0;
    for task in tasks {
        index.forget_request_of(*task);
        match erase::erase(conn, path, *task, now).await? {
            ErasedRows::Missing => {}
            ErasedRows::Unfinished => return Ok(Err(Error::Unfinished { task: *task })),
            ErasedRows::Rewritten => erased += 1,
            ErasedRows::Deleted => {
                index.remove(*task);
                erased += 1;
            }
        }
    }
    Ok(Ok(erased))
}

/// Holds a result back until the commit.
fn defer_reply<T: Send + 'static>(
    callbacks: &mut Vec<CommitCallback>,
    reply: ReplySender<T>,
    result: sqlx::Result<Result<T, Error>>,
) -> sqlx::Result<()> {
    let (result, aborted) = match result {
        Ok(result) => (Some(result), Ok(())),
        Err(error) => (None, Err(error)),
    };
    callbacks.push(Box::new(move |commit| {
        let answer = match (commit, result) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => unreachable!("a transaction with a failed request is not committed"),
        };
        drop(reply.send(answer));
    }));
    aborted
}
