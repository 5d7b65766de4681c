//! The one task that writes: whatever waits goes into one transaction, and everybody is answered after the commit.

use std::fs::File;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artel_task::{CatalogVersion, Event};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::write::{self, PRUNE, Stop};
use crate::{Acceptance, Error, Options, Retention};

/// How many requests may wait; the next caller waits with its events in hand, which bounds memory.
pub(crate) const QUEUE: usize = 1024;

/// How many requests share a commit at most, so that the first of them does not wait for a whole queue.
const BATCH: usize = 256;

/// How often a journal that nobody writes to looks for tasks that have become too old.
const AGE_CHECK: Duration = Duration::from_secs(3600);

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
    path: PathBuf,
    lock: File,
    retention: Retention,
    retain_every: NonZeroU32,
    /// Tasks that ended since retention last began.
    ended: u32,
    /// Whether retention has work left, or is due.
    prune: bool,
    /// The first failure. Set once and for all, and told to whoever waits for it.
    broken: watch::Sender<Option<Arc<Error>>>,
    #[cfg(feature = "rehearsal")]
    death: (Option<crate::Death>, u64),
}

impl Writer {
    pub(crate) fn new(
        conn: SqliteConnection,
        path: &Path,
        lock: File,
        options: &Options,
        broken: watch::Sender<Option<Arc<Error>>>,
    ) -> Self {
        let Options { retention, retain_every, .. } = *options;
        Self {
            conn,
            path: path.to_owned(),
            lock,
            retention,
            retain_every,
            ended: 0,
            prune: true,
            broken,
            #[cfg(feature = "rehearsal")]
            death: (options.death, 0),
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.borrow().is_some()
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
            self.commit(batch.drain(..)).await;
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
        if !self.prune || self.is_broken() || requests.is_closed() {
            let waited = tokio::time::timeout(AGE_CHECK, requests.recv_many(batch, BATCH)).await;
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

    async fn commit(&mut self, requests: impl ExactSizeIterator<Item = Request>) {
        if requests.len() == 0 {
            return;
        }
        let mut settles = Vec::with_capacity(requests.len());
        let broken = self.broken.borrow().clone();
        let outcome = match broken {
            Some(cause) => Err(Error::Broken { path: self.path.clone(), cause }),
            None => Ok(()),
        };
        let mut requests = requests;
        let outcome = match outcome {
            Ok(()) => self.transact(&mut requests, &mut settles).await,
            broken => broken,
        };
        if let Err(error) = &outcome {
            requests.for_each(|request| request.refuse(error));
            self.break_off(error);
        }
        settles.into_iter().for_each(|settle| settle(outcome.clone()));
    }

    /// Takes requests up to the first that fails; a refused one counts as done.
    async fn transact(
        &mut self,
        requests: &mut impl Iterator<Item = Request>,
        settles: &mut Vec<Settle>,
    ) -> Result<(), Error> {
        let Self { conn, path, ended, .. } = self;
        let failed = |error| Error::database(path, error);
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        for request in requests {
            request.perform(&mut tx, path, ended, settles).await.map_err(failed)?;
        }
        #[cfg(feature = "rehearsal")]
        let (death, commit) = {
            self.death.1 += 1;
            self.death
        };
        #[cfg(feature = "rehearsal")]
        death.inspect(|death| death.come(crate::Moment::Before, commit));
        tx.commit().await.map_err(failed)?;
        #[cfg(feature = "rehearsal")]
        death.inspect(|death| death.come(crate::Moment::After, commit));
        Ok(())
    }

    /// A commit that failed may be on disk or not, and a page that failed to be written may be lost in silence the next
    /// time. A database that was busy has begun nothing.
    fn break_off(&mut self, error: &Error) {
        if self.is_broken() || matches!(error, Error::Busy { .. }) {
            return;
        }
        tracing::error!(path = %self.path.display(), %error, "the journal takes no more writes");
        self.broken.send_replace(Some(Arc::new(error.clone())));
    }

    /// One piece of retention, if it is due.
    async fn tidy(&mut self) {
        if self.ended >= self.retain_every.get() {
            self.ended = 0;
            self.prune = true;
        }
        if !self.prune || self.is_broken() {
            return;
        }
        let (reply, deleted) = oneshot::channel();
        self.commit([Request::Prune(self.retention, reply)].into_iter()).await;
        self.prune = matches!(deleted.await, Ok(Ok(PRUNE)));
    }
}

impl Request {
    /// Gives the error that loses the transaction; the caller hears of that, too, through its [`Settle`].
    async fn perform(
        self,
        conn: &mut SqliteConnection,
        path: &Path,
        ended: &mut u32,
        settles: &mut Vec<Settle>,
    ) -> sqlx::Result<()> {
        match self {
            Self::Accept(first, more, reply) => hold(settles, reply, write::accept(conn, path, &first, &more).await),
            Self::Append(events, reply) => {
                let stage = write::append(conn, &events).await;
                *ended += u32::from(matches!(stage, Ok(Some(_))));
                hold(settles, reply, stage.map(|_| ()))
            }
            Self::Keep(version, sources, reply) => {
                hold(settles, reply, write::keep_catalog(conn, &version, &sources).await)
            }
            Self::Prune(limits, reply) => hold(settles, reply, write::prune(conn, limits).await),
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
fn hold<T: Send + 'static>(settles: &mut Vec<Settle>, reply: Reply<T>, result: Result<T, Stop>) -> sqlx::Result<()> {
    let (result, lost) = match result {
        Ok(value) => (Some(Ok(value)), Ok(())),
        Err(Stop::Refused(error)) => (Some(Err(error)), Ok(())),
        Err(Stop::Failed(error)) => (None, Err(error)),
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
