//! `Tasks.Erase`.

use artel_actors::Viewer;
use artel_journal::Erasure;
use artel_proto::v1;
use artel_task::CallerName;
use tonic::Status;

use crate::audit::CallObject;
use crate::field_error::FieldError;
use crate::state::ServiceState;
use crate::status::invalid_field;
use crate::value::parse_task_id;

/// Tasks of one request: more than a person names. All tasks of a caller are one request.
const MAX_ERASED_TASKS: usize = 1000;

/// Erases the text of tasks. Nothing is erased if one of them does not exist or may not be erased.
pub(super) async fn erase(
    state: &ServiceState,
    viewer: &Viewer,
    object: &CallObject,
    request: v1::EraseRequest,
) -> Result<v1::EraseResponse, Status> {
    match request.task_ids.as_slice() {
        [] => object.name(&request.owner),
        [id] => object.name(id),
        [first, more @ ..] => object.name(format_args!("{first} and {} more", more.len())),
    }
    let erasures = parse(state, request)?;
    for erasure in &erasures {
        state.runtime.check_erasure(viewer, erasure).await.map_err(|e| state.status_of(e))?;
    }
    let report = state.runtime.erase(erasures).await.map_err(|e| state.status_of(e))?;
    Ok(v1::EraseResponse {
        tasks: report.tasks,
        cancelled_tasks: report.cancelled,
        feedback_entries: report.feedback,
        ratings: report.ratings,
        prefix_files: report.prefix_files,
        journal_copies: report.backups,
        knowledge_texts: report.texts,
    })
}

fn parse(state: &ServiceState, request: v1::EraseRequest) -> Result<Vec<Erasure>, Status> {
    let v1::EraseRequest { task_ids, owner } = request;
    match (task_ids.len(), owner.as_str()) {
        (0, "") => Err(invalid_field("task_ids", "either tasks or an owner must be named")),
        (0, owner) => {
            let name = CallerName::parse(owner).map_err(|e| invalid_field("owner", e))?;
            Ok(vec![Erasure::Owner { name, until: state.runtime.clock().now() }])
        }
        (entries, "") if entries > MAX_ERASED_TASKS => {
            Err(invalid_field("task_ids", FieldError::TooManyEntries { entries, limit: MAX_ERASED_TASKS }))
        }
        (_, "") => task_ids.iter().map(|id| parse_task_id("task_ids", id).map(Erasure::Task)).collect(),
        (_, _) => Err(invalid_field("owner", "tasks are named already: either tasks or an owner")),
    }
}
