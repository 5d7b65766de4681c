//! The one task that writes: whatever waits goes into one transaction, and everybody is answered after the commit.

use std::fs::File;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artel_task::{CatalogVersion, Event};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use crate::index::Index;
use crate::rows::Rows;
use crate::write::{self, PRUNE};
use crate::{Acceptance, Error, Options, Retention, dir, schema};

/// How many requests may wait; the next caller waits with its events in hand, which bounds memory.
pub(crate) const QUEUE: usize = 1024;

/// How many requests share a commit at most, so that the first of them does not wait for a whole queue.
const BATCH: usize = 256;

/// How often a journal that nobody writes to looks for tasks that have become too old.
const AGE_CHECK: Duration = Duration::from_secs(3600);

/// How often a journal whose disk was full looks whether there is room again.
const ROOM_CHECK: Duration = Duration::from_secs(5);

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

pub(crate) enum Request {
    /// Begins a task, with events that follow the first.
    Accept(Box<Event>, Vec<Event>, Reply<Acceptance>),
    /// Continues a task.
    Append(Vec<Event>, Reply<()>),
    /// Stores a catalog's sources.
    Keep(CatalogVersion, String, Reply<()>),
    /// Deletes up to [`PRUNE`] tasks.
    Prune(Retention, Reply<u64>),
    /// Writes what waits, closes the database and gives up the lock.
    Close(oneshot::Sender<()>),
}

/// Tells a caller its result once the commit is known.
type Settle = Box<dyn FnOnce(Result<(), Error>) + Send>;

pub(crate) struct Writer {
    conn: SqliteConnection,
    index: Index,
    rows: Rows,
    path: PathBuf,
    /// How to connect again, after the disk was full.
    connect: SqliteConnectOptions,
    lock: File,
    retention: Retention,
    retain_every: NonZeroU32,
    /// Tasks that ended since retention last began.
    ended: u32,
    /// Whether retention has work left, or is due.
    prune: bool,
    /// Whether the file may have more room than it needs.
    shrink: bool,
    /// The failure since which nothing is written, told to whoever waits for it. Only a full disk is ever got over.
    broken: watch::Sender<Option<Arc<Error>>>,
    #[cfg(feature = "failpoints")]
    death: (Option<crate::Death>, u64),
}

impl Writer {
    /// Opens the database for writing.
    pub(crate) async fn open(
        path: &Path,
        connect: SqliteConnectOptions,
        lock: File,
        options: &Options,
        broken: watch::Sender<Option<Arc<Error>>>,
    ) -> Result<Self, Error> {
        let mut conn = schema::open(path, connect.clone()).await?;
        let index = Index::open(&mut conn).await.map_err(|e| Error::database(path, e))?;
        let Options { retention, retain_every, .. } = *options;
        Ok(Self {
            conn,
            index,
            rows: Rows::default(),
            path: path.to_owned(),
            connect,
            lock,
            retention,
            retain_every,
            ended: 0,
            prune: true,
            shrink: true,
            broken,
            #[cfg(feature = "failpoints")]
            death: (options.death, 0),
        })
    }

    fn is_broken(&self) -> bool {
        self.broken.borrow().is_some()
    }

    fn is_full(&self) -> bool {
        self.broken.borrow().as_deref().is_some_and(|error| matches!(error, Error::Full { .. }))
    }

    /// Ends when it is told to, or when every handle is gone.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut closers = Vec::new();
        while self.next(&mut requests, &mut batch).await {
            for close in batch.extract_if(.., |request| matches!(request, Request::Close(_))) {
                requests.close();
                closers.push(close);
            }
            if self.is_full() {
                self.recover().await;
            }
            self.commit(std::mem::take(&mut batch)).await;
            self.tidy().await;
        }
        if let Err(error) = self.conn.close().await {
            tracing::warn!(path = %self.path.display(), %error, "the journal's last checkpoint failed; opening it again repeats it");
        }
        drop(self.lock);
        for close in closers {
            close.refuse(&Error::Closed { path: self.path.clone() });
        }
    }

    /// Waits for requests, unless there is tidying to do meanwhile. False at the end.
    async fn next(&mut self, requests: &mut mpsc::Receiver<Request>, batch: &mut Vec<Request>) -> bool {
        let tidying = self.prune || self.shrink;
        if !tidying || self.is_broken() || requests.is_closed() {
            let patience = if self.is_full() { ROOM_CHECK } else { AGE_CHECK };
            let waited = tokio::time::timeout(patience, requests.recv_many(batch, BATCH)).await;
            // Nothing came for long: tasks may have become too old meanwhile.
            self.prune |= waited.is_err();
            return waited.is_err() || !batch.is_empty();
        }
        while batch.len() < BATCH
            && let Ok(request) = requests.try_recv()
        {
            batch.push(request);
        }
        true
    }

    async fn commit(&mut self, requests: Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        let broken = self.broken.borrow().clone();
        if let Some(cause) = broken {
            let error = match &*cause {
                Error::Full { .. } => Error::clone(&cause),
                _ => Error::Broken { path: self.path.clone(), cause },
            };
            return requests.into_iter().for_each(|request| request.refuse(&error));
        }
        let mut settles = Vec::with_capacity(requests.len());
        let mut requests = requests;
        let outcome = self.transact(&mut requests, &mut settles).await.map_err(|error| self.known(error));
        if let Err(error) = &outcome {
            requests.into_iter().for_each(|request| request.refuse(error));
            self.break_off(error).await;
        }
        settles.into_iter().for_each(|settle| settle(outcome.clone()));
    }

    /// Not every limit of a disk is told as one.
    fn known(&self, error: Error) -> Error {
        if error.is_failed_write() && dir::is_full(&self.path) {
            Error::Full { path: self.path.clone() }
        } else {
            error
        }
    }

    /// Takes requests up to the first that fails; a refused one counts as done.
    async fn transact(&mut self, requests: &mut Vec<Request>, settles: &mut Vec<Settle>) -> Result<(), Error> {
        let Self { conn, index, rows, path, ended, .. } = self;
        let failed = |error| Error::database(path, error);
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        index.learn(&mut tx, path, requests).await.map_err(failed)??;
        for request in requests.drain(..) {
            request.perform(&mut tx, index, rows, ended, settles).await.map_err(failed)?;
        }
        rows.write(&mut tx).await.map_err(failed)?;
        #[cfg(feature = "failpoints")]
        let (death, commit) = {
            self.death.1 += 1;
            self.death
        };
        #[cfg(feature = "failpoints")]
        death.inspect(|death| death.come(crate::Moment::Before, commit));
        tx.commit().await.map_err(failed)?;
        #[cfg(feature = "failpoints")]
        death.inspect(|death| death.come(crate::Moment::After, commit));
        self.index.forget();
        Ok(())
    }

    /// A commit that failed may be on disk or not, and a page that failed to be written may be lost in silence the next
    /// time. A database that was busy has begun nothing.
    async fn break_off(&mut self, error: &Error) {
        // What was decided in memory was not written.
        self.rows = Rows::default();
        if matches!(error, Error::Busy { .. }) {
            let index = Index::open(&mut self.conn).await;
            self.index = index.unwrap_or_default();
            return;
        }
        if matches!(error, Error::Full { .. }) {
            tracing::error!(path = %self.path.display(), %error, "the journal takes no more writes until there is room");
        } else {
            tracing::error!(path = %self.path.display(), %error, "the journal takes no more writes");
        }
        self.broken.send_replace(Some(Arc::new(error.clone())));
    }

    /// Where a full disk has room again, what it holds is read anew, and writing goes on: what SQLite could not write for
    /// lack of room was part of no commit.
    async fn recover(&mut self) {
        if !dir::has_room(&self.path) {
            return;
        }
        let reopened = async {
            let mut conn = schema::open(&self.path, self.connect.clone()).await?;
            let index = Index::open(&mut conn).await.map_err(|e| Error::database(&self.path, e))?;
            Ok::<_, Error>((conn, index))
        };
        match reopened.await {
            Ok((conn, index)) => {
                // Closing the old connection may fail for what it could not write; the new one has read what counts.
                drop(std::mem::replace(&mut self.conn, conn).close().await);
                self.index = index;
                tracing::info!(path = %self.path.display(), "there is room again: the journal takes writes");
                self.broken.send_replace(None);
            }
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "there is room, but the journal"),
        }
    }

    /// One piece of retention, if it is due.
    async fn tidy(&mut self) {
        if self.ended >= self.retain_every.get() {
            self.ended = 0;
            self.prune = true;
        }
        if self.is_broken() {
            return;
        }
        if self.prune {
            let (reply, deleted) = oneshot::channel();
            self.commit(vec![Request::Prune(self.retention, reply)]).await;
            let deleted = deleted.await;
            self.prune = matches!(deleted, Ok(Ok(PRUNE)));
            self.shrink |= matches!(deleted, Ok(Ok(1..)));
        } else if self.shrink {
            match write::shrink(&mut self.conn).await {
                Ok(more) => self.shrink = more,
                Err(error) => {
                    self.shrink = false;
                    let error = Error::database(&self.path, error);
                    self.break_off(&error).await;
                }
            }
        }
    }
}

impl Request {
    /// Gives the error that loses the transaction; the caller hears of that, too, through its [`Settle`].
    async fn perform(
        self,
        conn: &mut SqliteConnection,
        index: &mut Index,
        rows: &mut Rows,
        ended: &mut u32,
        settles: &mut Vec<Settle>,
    ) -> sqlx::Result<()> {
        match self {
            Self::Accept(first, more, reply) => hold(settles, reply, Ok(index.accept(&first, &more, rows))),
            Self::Append(events, reply) => {
                let over = index.append(&events, rows);
                *ended += u32::from(matches!(over, Ok(true)));
                hold(settles, reply, Ok(over.map(|_| ())))
            }
            Self::Keep(version, sources, reply) => {
                hold(settles, reply, write::keep_catalog(conn, &version, &sources).await.map(Ok))
            }
            Self::Prune(limits, reply) => {
                // What came before may be what is to be deleted.
                let written = rows.write(conn).await;
                index.forget_catalogs();
                let deleted = match written {
                    Ok(()) => write::prune(conn, limits).await,
                    Err(error) => Err(error),
                };
                hold(settles, reply, deleted.map(Ok))
            }
            Self::Close(_) => Ok(()),
        }
    }

    /// Whoever asked may be gone, which is no concern of the journal.
    fn refuse(self, error: &Error) {
        match self {
            Self::Accept(_, _, reply) => drop(reply.send(Err(error.clone()))),
            Self::Append(_, reply) | Self::Keep(_, _, reply) => drop(reply.send(Err(error.clone()))),
            Self::Prune(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::Close(reply) => drop(reply.send(())),
        }
    }
}

/// Keeps a result back until the commit.
fn hold<T: Send + 'static>(
    settles: &mut Vec<Settle>,
    reply: Reply<T>,
    result: sqlx::Result<Result<T, Error>>,
) -> sqlx::Result<()> {
    let (result, lost) = match result {
        Ok(result) => (Some(result), Ok(())),
        Err(error) => (None, Err(error)),
    };
    settles.push(Box::new(move |commit| {
        let answer = match (commit, result) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => unreachable!("a transaction that lost a request is not committed"),
        };
        drop(reply.send(answer));
    }));
    lost
}
