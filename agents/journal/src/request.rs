//! What the handles of a journal ask of its writer.

use artel_task::{CatalogVersion, Event, TaskId};
use tokio::sync::oneshot;

use crate::erase::Erasure;
use crate::{Error, Retention};

/// The result of submitting a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// The task is new and on disk.
    New,
    /// The request was accepted before, as this task; nothing was written.
    Existing(TaskId),
}

/// Takes the writer's answer to a request.
pub(crate) type ReplySender<T> = oneshot::Sender<Result<T, Error>>;

pub(crate) enum WriteRequest {
    /// Starts a task with its first event and the events that follow it.
    Accept(Box<Event>, Vec<Event>, ReplySender<Acceptance>),
    /// Appends events to a task.
    Append(Vec<Event>, ReplySender<()>),
    /// Stores a catalog's sources.
    StoreCatalog(CatalogVersion, String, ReplySender<()>),
    /// Deletes as many tasks as one transaction may.
    Prune(Retention, ReplySender<u64>),
    /// Stores that these erases are asked for.
    BeginErasures(Vec<Erasure>, ReplySender<()>),
    /// Erases the text of these tasks, as many as one transaction may; answers with the number of those that exist.
    Erase(Vec<TaskId>, ReplySender<u64>),
    /// Writes the database anew and empties the log, so that nothing of what was erased is left in a file.
    Purge(ReplySender<()>),
    /// Stores that all erases are complete.
    EndErasures(ReplySender<()>),
    /// Writes the waiting requests, closes the database and releases the lock.
    Close(oneshot::Sender<()>),
}

impl WriteRequest {
    /// Answers with an error. The caller may have dropped its future, which does not matter.
    pub(crate) fn refuse(self, error: &Error) {
        match self {
            Self::Accept(_, _, reply) => drop(reply.send(Err(error.clone()))),
            Self::Append(_, reply) | Self::StoreCatalog(_, _, reply) => drop(reply.send(Err(error.clone()))),
            Self::Prune(_, reply) | Self::Erase(_, reply) => drop(reply.send(Err(error.clone()))),
            Self::BeginErasures(_, reply) | Self::Purge(reply) | Self::EndErasures(reply) => {
                drop(reply.send(Err(error.clone())));
            }
            Self::Close(reply) => drop(reply.send(())),
        }
    }
}
