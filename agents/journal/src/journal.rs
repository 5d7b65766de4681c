//! The handle that everybody else holds.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_task::event::TaskSpec;
use artel_task::{CatalogVersion, Event, RequestId, Seq, TaskId};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tokio::sync::{mpsc, oneshot, watch};

use crate::write::PRUNE;
use crate::writer::{QUEUE, Reply, Request, Writer};
use crate::{Error, Filter, Page, Summary, codec, dir, read, schema};

/// Reads are short and SQLite runs each on a thread of its own; more would only fight for cores.
const READERS: u32 = 4;

/// A read that waits longer than this for a connection is refused.
const READER_WAIT: Duration = Duration::from_secs(10);

/// How a journal behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it keeps of tasks that have ended.
    pub retention: Retention,
    /// After how many ended tasks it tidies by itself; it also does so when it is opened.
    pub retain_every: NonZeroU32,
    /// When the process is to kill itself.
    #[cfg(feature = "failpoints")]
    pub death: Option<crate::Death>,
}

impl Default for Options {
    /// Tidies every 256 ended tasks: often enough that the file stays flat, rarely enough to cost nothing.
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            retain_every: NonZeroU32::new(256).expect("256 is not 0"),
            #[cfg(feature = "failpoints")]
            death: None,
        }
    }
}

/// What is kept of tasks that have ended. Running tasks are always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most this many.
    pub tasks: u64,
    /// None that ended longer ago than this.
    pub age: Duration,
    /// As many as fit into so many bytes, tasks that run included.
    pub bytes: u64,
}

impl Default for Retention {
    /// 10,000 tasks, 30 days, 4 GiB: what somebody may still look for, on any disk that holds models.
    fn default() -> Self {
        Self { tasks: 10_000, age: Duration::from_secs(30 * 24 * 3600), bytes: 4 << 30 }
    }
}

/// What became of a task that somebody submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// It is on disk.
    New,
    /// The same request had been accepted before, as this task; nothing was written.
    Known(TaskId),
}

/// Events on disk. Cheap to clone; every clone is the same journal.
#[derive(Debug, Clone)]
pub struct Journal {
    requests: mpsc::Sender<Request>,
    readers: SqlitePool,
    path: Arc<Path>,
    broken: watch::Receiver<Option<Arc<Error>>>,
}

impl Journal {
    /// Opens `dir/journal.sqlite`, making both where they are missing, and spawns the writer on the current runtime.
    ///
    /// # Errors
    /// When the directory cannot be used or another daemon uses it, or the database is damaged, newer or none of ours.
    pub async fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        Self::open_tuned(dir, &options, |connect| connect).await
    }

    /// Like [`open`](Self::open), with the writer's connection changed: so tests make disks full.
    pub(crate) async fn open_tuned(
        dir: &Path,
        options: &Options,
        tune: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> Result<Self, Error> {
        let lock = dir::open(dir)?;
        let path: Arc<Path> = dir.join("journal.sqlite").into();
        let (told, broken) = watch::channel(None);
        let connect = tune(schema::connect_options(&path));
        let writer = Writer::open(&path, connect, lock, options, told).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(READER_WAIT)
            .connect_lazy_with(schema::connect_options(&path).read_only(true));
        let (requests, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(writer.run(inbox));
        Ok(Self { requests, readers, path, broken })
    }

    /// Resolves when the journal takes no more writes, with the failure since which that is so; never, if it is closed
    /// without one.
    pub async fn broken(&self) -> Arc<Error> {
        let mut broken = self.broken.clone();
        match broken.wait_for(Option::is_some).await.ok().and_then(|error| error.clone()) {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Resolves when the journal takes writes; after a failure other than a full disk, never.
    pub async fn whole(&self) {
        if self.broken.clone().wait_for(Option::is_none).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether an event could be stored in its place.
    ///
    /// # Errors
    /// [`Error::Unstorable`].
    pub fn check(event: &Event) -> Result<(), Error> {
        codec::check(event)
    }

    /// The task that a request id belongs to, and what was asked then; `None` for one that is not known.
    ///
    /// # Errors
    /// Any fault.
    pub async fn request(&self, request: &RequestId) -> Result<Option<(TaskId, TaskSpec)>, Error> {
        read::request(&self.readers, &self.path, request).await
    }

    /// Begins a task with its event number 1, which is on disk when this returns.
    ///
    /// A request id that a kept task has gives that task, if input, graph, role, class and labels are the same.
    ///
    /// # Errors
    /// [`Error::RequestReused`] if they are not; [`Error::Gap`] if the task exists; [`Error::Unstorable`] for another
    /// kind of event; any fault, after which the task may or may not be found when the journal is opened again.
    pub async fn accept(&self, event: Event) -> Result<Acceptance, Error> {
        self.accept_with(event, Vec::new()).await
    }

    /// Begins a task with its event number 1 and those that follow it, with all or none.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept) and of [`append`](Self::append).
    pub async fn accept_with(&self, first: Event, more: Vec<Event>) -> Result<Acceptance, Error> {
        self.ask(|reply| Request::Accept(Box::new(first), more, reply)).await
    }

    /// Continues a task, with all of the events or none; they are on disk when this returns. The write happens even if
    /// the caller goes away meanwhile.
    ///
    /// # Errors
    /// [`Error::Gap`] if the first is not the one after the newest or they have gaps, [`Error::Ended`],
    /// [`Error::NoTask`], [`Error::Unstorable`] for events of several tasks or values that JSON lacks; any fault.
    pub async fn append(&self, events: Vec<Event>) -> Result<(), Error> {
        self.ask(|reply| Request::Append(events, reply)).await
    }

    /// Up to `limit` events of a task after the number `after`, in order. None for a task that does not exist.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where an event is missing or unreadable; any fault.
    pub async fn events(&self, task: TaskId, after: Seq, limit: u32) -> Result<Vec<Event>, Error> {
        read::events(&self.readers, &self.path, task, after, limit).await
    }

    /// The number of a task's newest event; `None` if there is no such task.
    ///
    /// # Errors
    /// Any fault.
    pub async fn last(&self, task: TaskId) -> Result<Option<Seq>, Error> {
        read::last(&self.readers, &self.path, task).await
    }

    /// The tasks to resume, oldest first.
    ///
    /// # Errors
    /// Any fault.
    pub async fn unfinished(&self) -> Result<Vec<TaskId>, Error> {
        read::unfinished(&self.readers, &self.path).await
    }

    /// One page of tasks, newest first.
    ///
    /// # Errors
    /// Any fault.
    pub async fn list(&self, filter: Filter, page: Page) -> Result<Vec<Summary>, Error> {
        read::list(&self.readers, &self.path, &filter, page).await
    }

    /// Stores the sources of a catalog, to resume tasks with; call it again when an old catalog is in use anew. It is
    /// kept while a task names it, while it is the newest, and for an hour after this call.
    ///
    /// # Errors
    /// Any fault.
    pub async fn keep_catalog(&self, version: &CatalogVersion, sources: String) -> Result<(), Error> {
        self.ask(|reply| Request::Keep(version.clone(), sources, reply)).await
    }

    /// The sources of a catalog.
    ///
    /// # Errors
    /// Any fault.
    pub async fn catalog(&self, version: &CatalogVersion) -> Result<Option<String>, Error> {
        read::catalog(&self.readers, &self.path, version).await
    }

    /// Deletes the ended tasks beyond these limits, those first that ended first, and gives their number; others write
    /// meanwhile. The journal does this by itself with the limits it was opened with.
    ///
    /// # Errors
    /// Any fault.
    pub async fn retain(&self, limits: Retention) -> Result<u64, Error> {
        let mut total = 0;
        loop {
            let deleted = self.ask(|reply| Request::Prune(limits, reply)).await?;
            total += deleted;
            if deleted < PRUNE {
                return Ok(total);
            }
        }
    }

    /// Writes what waits, closes the database and gives up the directory. Other clones are refused from here on.
    pub async fn close(self) {
        // The writer goes last: only it may fold the log into the database.
        self.readers.close().await;
        let (reply, closed) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_ok() {
            // An error means that another clone closed it.
            closed.await.ok();
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let closed = || Error::Closed { path: self.path.to_path_buf() };
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}
