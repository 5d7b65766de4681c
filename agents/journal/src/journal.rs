//! The handle of a journal.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use artel_task::event::{TaskSpec, Timestamp};
use artel_task::{CallerName, CatalogVersion, Event, RequestId, Seq, TaskId};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tokio::sync::{mpsc, oneshot, watch};

use crate::erase::ERASE_TASKS;
use crate::request::{ReplySender, WriteRequest};
use crate::write::PRUNE_TASKS;
use crate::writer::JournalWriter;
use crate::{
    Acceptance, DamagedTask, Erasure, Error, Options, Retention, TaskFilter, TaskPage, TaskSummary, backup, codec,
    connection, dir, read,
};

/// The maximum number of waiting requests. Further callers wait with their events, which bounds memory.
const MAX_QUEUED_REQUESTS: usize = 1024;

/// Reads are short, and SQLite runs each connection on its own thread: more of them would only compete for cores.
const MAX_READ_CONNECTIONS: u32 = 4;

/// A read that waits longer than this for a connection fails: it then waits behind a stuck disk, not behind other reads.
const READ_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long closing waits for the disk. A queue of requests and a checkpoint take a second on a slow one; a disk that takes
/// longer hangs. It is a part of the 90 s after which systemd kills a service.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// The durable event log. Cheap to clone; all clones share one journal.
#[derive(Debug, Clone)]
pub struct Journal {
    requests: mpsc::Sender<WriteRequest>,
    readers: SqlitePool,
    path: Arc<Path>,
    failure: watch::Receiver<Option<Arc<Error>>>,
    is_purging: Arc<AtomicBool>,
}

impl Journal {
    /// Opens `dir/journal.sqlite`, creating both if they are missing, and spawns the writer on the current runtime.
    ///
    /// # Errors
    /// If the directory cannot be used or another daemon uses it, or the database is damaged, newer or not a journal.
    pub async fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        Self::open_with(dir, &options, |connect| connect).await
    }

    /// Like [`open`](Self::open), with other options of the writer's connection: tests simulate a full disk with it.
    pub(crate) async fn open_with(
        dir: &Path,
        options: &Options,
        tune: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> Result<Self, Error> {
        let lock = dir::open(dir)?;
        let path: Arc<Path> = dir.join("journal.sqlite").into();
        let (failure_tx, failure) = watch::channel(None);
        let connect = tune(connection::connect_options(&path));
        let is_purging = Arc::new(AtomicBool::new(false));
        let writer = JournalWriter::open(&path, connect, lock, options, failure_tx, is_purging.clone()).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(MAX_READ_CONNECTIONS)
            .acquire_timeout(READ_CONNECTION_TIMEOUT)
            .connect_lazy_with(connection::connect_options(&path).read_only(true));
        let (requests, inbox) = mpsc::channel(MAX_QUEUED_REQUESTS);
        tokio::spawn(writer.run(inbox));
        Ok(Self { requests, readers, path, failure, is_purging })
    }

    /// Resolves when the journal takes no more writes, with the failure that caused it. Never resolves if the journal is
    /// closed without a failure.
    pub async fn failed(&self) -> Arc<Error> {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await.ok().and_then(|error| error.clone()) {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Resolves when the journal takes writes. Never resolves after a failure other than a full disk.
    pub async fn writable(&self) {
        if self.failure.clone().wait_for(Option::is_none).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Checks whether an event can be stored at its position.
    ///
    /// # Errors
    /// [`Error::Unstorable`].
    pub fn check_storable(event: &Event) -> Result<(), Error> {
        codec::check_storable(event)
    }

    /// The task of a caller's request id and its submission; `None` for an unknown id.
    ///
    /// # Errors
    /// Any fault.
    pub async fn find_request(
        &self,
        owner: &CallerName,
        request: &RequestId,
    ) -> Result<Option<(TaskId, TaskSpec)>, Error> {
        read::find_request(&self.readers, &self.path, owner, request).await
    }

    /// Whether a task belongs to a caller. Takes as long for a task of another caller as for one that does not exist.
    ///
    /// # Errors
    /// Any fault.
    pub async fn is_owned(&self, task: TaskId, owner: &CallerName) -> Result<bool, Error> {
        read::is_owned(&self.readers, &self.path, task, owner).await
    }

    /// Starts a task with its event number 1, which is on disk when this returns.
    ///
    /// A request id of a retained task of the same owner returns that task, if input, graph, role, priority and labels are the same.
    ///
    /// # Errors
    /// [`Error::RequestReused`] if they are not; [`Error::UnexpectedSeq`] if the task exists; [`Error::Unstorable`] for another
    /// kind of event; any fault, after which the task may or may not exist when the journal is opened again.
    pub async fn accept(&self, event: Event) -> Result<Acceptance, Error> {
        self.accept_with(event, Vec::new()).await
    }

    /// Starts a task with its event number 1 and the events that follow it: all of them or none.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept) and of [`append`](Self::append).
    pub async fn accept_with(&self, first: Event, more: Vec<Event>) -> Result<Acceptance, Error> {
        self.send(|reply| WriteRequest::Accept(Box::new(first), more, reply)).await
    }

    /// Appends events to a task: all of them or none. They are on disk when this returns. The write happens even if the caller
    /// drops the future meanwhile.
    ///
    /// # Errors
    /// [`Error::UnexpectedSeq`] if the events do not follow the last one without gaps, [`Error::Ended`], [`Error::NoTask`],
    /// [`Error::Unstorable`] for events of several tasks or values that JSON cannot represent; any fault.
    pub async fn append(&self, events: Vec<Event>) -> Result<(), Error> {
        self.send(|reply| WriteRequest::Append(events, reply)).await
    }

    /// Up to `limit` events of a task after the sequence number `after`, in order. Empty for a task that does not exist.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where an event is missing or unreadable; any fault.
    pub async fn events(&self, task: TaskId, after: Seq, limit: u32) -> Result<Vec<Event>, Error> {
        read::events(&self.readers, &self.path, task, after, limit).await
    }

    /// The sequence number of a task's last event; `None` if there is no such task.
    ///
    /// # Errors
    /// Any fault.
    pub async fn last_seq(&self, task: TaskId) -> Result<Option<Seq>, Error> {
        read::last_seq(&self.readers, &self.path, task).await
    }

    /// The tasks without a last event that are not set aside, oldest first. One whose row is damaged is left out.
    ///
    /// # Errors
    /// Any fault.
    pub async fn unfinished(&self) -> Result<Vec<TaskId>, Error> {
        read::unfinished(&self.readers, &self.path).await
    }

    /// The tasks of all callers but the user whose daemon it is that have not ended or have ended at this time or later, oldest
    /// first. One whose row is damaged is left out.
    ///
    /// # Errors
    /// Any fault.
    pub async fn tasks_of_callers(&self, ended_from: Timestamp) -> Result<Vec<TaskId>, Error> {
        read::tasks_of_callers(&self.readers, &self.path, ended_from).await
    }

    /// The entry of a task, or what is wrong with its row; `None` if there is no such task.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn summary(&self, task: TaskId) -> Result<Option<Result<TaskSummary, DamagedTask>>, Error> {
        read::summary(&self.readers, &self.path, task).await
    }

    /// One page of tasks, newest first. A damaged row is an entry of its own, so that the others can be listed.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn list(
        &self,
        filter: TaskFilter,
        page: TaskPage,
    ) -> Result<Vec<Result<TaskSummary, DamagedTask>>, Error> {
        read::list(&self.readers, &self.path, &filter, page).await
    }

    /// Stores the sources of a catalog, so that tasks can resume with it. Call it again when an old catalog is used again. A
    /// catalog is kept while a task refers to it, while it is the newest, and for an hour after this call.
    ///
    /// # Errors
    /// Any fault.
    pub async fn store_catalog(&self, version: &CatalogVersion, sources: String) -> Result<(), Error> {
        self.send(|reply| WriteRequest::StoreCatalog(version.clone(), sources, reply)).await
    }

    /// The sources of a catalog.
    ///
    /// # Errors
    /// Any fault.
    pub async fn catalog(&self, version: &CatalogVersion) -> Result<Option<String>, Error> {
        read::catalog(&self.readers, &self.path, version).await
    }

    /// Deletes the ended tasks beyond these limits, the ones that ended first, and returns their number. Other writes are
    /// interleaved. The journal also does this itself, with the limits of its options.
    ///
    /// # Errors
    /// Any fault.
    pub async fn prune(&self, limits: Retention) -> Result<u64, Error> {
        let mut total = 0;
        loop {
            let deleted = self.send(|reply| WriteRequest::Prune(limits, reply)).await?;
            total += deleted;
            if deleted < PRUNE_TASKS {
                return Ok(total);
            }
        }
    }

    /// Stores that these erases are asked for: they are among [`erasures`](Self::erasures) until
    /// [`end_erasures`](Self::end_erasures), also after a crash.
    ///
    /// # Errors
    /// Any fault.
    pub async fn begin_erasures(&self, erasures: Vec<Erasure>) -> Result<(), Error> {
        self.send(|reply| WriteRequest::BeginErasures(erasures, reply)).await
    }

    /// The erases that are not complete.
    ///
    /// # Errors
    /// Any fault.
    pub async fn erasures(&self) -> Result<Vec<Erasure>, Error> {
        read::erasures(&self.readers).await.map_err(|e| Error::database(&self.path, e))
    }

    /// The tasks whose text is to be erased; those of an owner that are erased already are left out.
    ///
    /// # Errors
    /// Any fault.
    pub async fn tasks_to_erase(&self, erasure: &Erasure) -> Result<Vec<TaskId>, Error> {
        match erasure {
            Erasure::Task(task) => Ok(vec![*task]),
            Erasure::Owner { name, until } => read::tasks_to_erase(&self.readers, &self.path, name, *until).await,
        }
    }

    /// Erases the text of tasks in the database, and returns the number of those that exist. Their figures stay; of a task whose
    /// rows cannot be read nothing does. Other writes are interleaved. The files have the text until [`purge`](Self::purge).
    ///
    /// # Errors
    /// [`Error::Unfinished`] for a task that has not ended; any fault. Tasks before it may be erased.
    pub async fn erase(&self, tasks: &[TaskId]) -> Result<u64, Error> {
        let mut erased = 0;
        for tasks in tasks.chunks(ERASE_TASKS) {
            erased += self.send(|reply| WriteRequest::Erase(tasks.to_vec(), reply)).await?;
        }
        Ok(erased)
    }

    /// Removes what was erased or deleted from the files of the journal, by writing them anew. Other writes wait meanwhile, for
    /// about as long as it takes to copy the file.
    ///
    /// # Errors
    /// [`Error::Purge`], [`Error::LogInUse`]; then the files may have the text still.
    pub async fn purge(&self) -> Result<(), Error> {
        self.send(WriteRequest::Purge).await
    }

    /// Stores that all erases are complete. The caller has one erase at a time.
    ///
    /// # Errors
    /// Any fault.
    pub async fn end_erasures(&self) -> Result<(), Error> {
        self.send(WriteRequest::EndErasures).await
    }

    /// Deletes the copies of damaged journals that repairs made at this time or later, and returns their number. What is in them
    /// cannot be erased, since it cannot be read. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Directory`].
    pub fn remove_backups(&self, since: Timestamp) -> Result<u64, Error> {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        backup::remove(dir, since).map_err(|source| Error::Directory { path: dir.to_owned(), source: source.into() })
    }

    /// Writes the waiting requests, closes the database and unlocks the directory. Other clones then get [`Error::Closed`].
    /// Returns whether it was closed.
    ///
    /// If the disk hangs, or a [`purge`](Self::purge) takes so long, this gives up after 15 s: what was not acknowledged is then lost
    /// or not, as after a crash, and the directory stays locked until the process ends.
    pub async fn close(self) -> bool {
        let closed = async {
            // The writer is closed last: only it may checkpoint the write-ahead log into the database.
            self.readers.close().await;
            let (reply, closed) = oneshot::channel();
            if self.requests.send(WriteRequest::Close(reply)).await.is_ok() {
                // An error means that another clone closed the journal.
                closed.await.ok();
            }
        };
        let is_closed = tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_ok();
        if !is_closed {
            let cause = if self.is_purging() { "it is being written anew for an erase" } else { "its disk hangs" };
            tracing::error!(path = %self.path.display(), "the journal could not be closed within {CLOSE_TIMEOUT:?}, since {cause}");
        }
        is_closed
    }

    /// Whether its files are being written anew, by [`purge`](Self::purge) or by retention: other writes wait meanwhile.
    pub fn is_purging(&self) -> bool {
        self.is_purging.load(Relaxed)
    }

    async fn send<T>(&self, request: impl FnOnce(ReplySender<T>) -> WriteRequest) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| self.closed())?;
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(self.dropped().await),
        }
    }

    /// The error of a request whose answer the writer dropped: it panicked, and will say so, or its runtime has ended.
    async fn dropped(&self) -> Error {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await.ok().and_then(|error| error.clone()) {
            Some(cause) => Error::Failed { path: self.path.to_path_buf(), cause },
            None => self.closed(),
        }
    }

    fn closed(&self) -> Error {
        Error::Closed { path: self.path.to_path_buf() }
    }
}
