//! Stores what a person says of a task.

use artel_feedback::{Error, RecordFile, StepRecord};
use artel_journal::Erasure;
use artel_proto::v1::ErrorReason;
use artel_task::TaskId;
use tonic::{Code, Status};

use crate::state::ServiceState;
use crate::status::{internal, status};

/// The longest comment.
pub(super) const MAX_COMMENT_BYTES: usize = 4096;

/// Stores a record of a task; it is on disk when this returns, unless the task was erased meanwhile.
pub(super) async fn keep<R: StepRecord + Send + 'static>(
    state: &ServiceState,
    store: &RecordFile<R>,
    task: TaskId,
    record: R,
) -> Result<(), Status> {
    change(store, move |store| store.append(record)).await?;
    // An erase comes to the records last: if it has not been there yet, it will remove this one itself.
    if !state.runtime.is_erased(task).await.map_err(|e| state.status_of(e))? {
        return Ok(());
    }
    change(store, move |store| store.erase(&[Erasure::Task(task)]).map(drop)).await?;
    Err(state.status_of(artel_actors::Error::Erased(task)))
}

async fn change<R: StepRecord + 'static>(
    store: &RecordFile<R>,
    change: impl FnOnce(&RecordFile<R>) -> Result<(), Error> + Send + 'static,
) -> Result<(), Status> {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || change(&store)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(&error, R::WHAT)),
        Err(_) => Err(internal()),
    }
}

fn failed(error: &Error, what: &str) -> Status {
    if let Error::Full { .. } = error {
        tracing::error!(%error, "the store of {what} is full");
        let message = format!("the daemon's store of {what} is full");
        return status(Code::ResourceExhausted, ErrorReason::Journal, message);
    }
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, cause, "failed to store {what}");
    status(Code::Unavailable, ErrorReason::Journal, format!("failed to write the {what}; see the daemon's log"))
}
