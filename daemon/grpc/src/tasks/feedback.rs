//! Feedback on the decisions of routers.

use artel_actors::Viewer;
use artel_feedback::FeedbackRecord;
use artel_proto::v1::{self, ErrorReason};
use artel_task::event::Decision;
use artel_task::{Event, EventKind, RoleName, StepId};
use tonic::{Code, Status};

use super::keep_record::{MAX_COMMENT_BYTES, keep};
use crate::field_error::FieldError;
use crate::state::ServiceState;
use crate::status::{invalid_field, not_found, status};

/// Stores feedback on a decision; it is on disk when this returns.
pub(super) async fn store(state: &ServiceState, viewer: Viewer, request: v1::FeedbackRequest) -> Result<(), Status> {
    let v1::FeedbackRequest { task_id, step_id, role, comment } = request;
    if comment.len() > MAX_COMMENT_BYTES {
        return Err(invalid_field("comment", FieldError::TooLong { bytes: comment.len(), limit: MAX_COMMENT_BYTES }));
    }
    let role = match role.is_empty() {
        true => None,
        false => Some(role_name(state, &role)?),
    };
    let task = state.controlled_task(&viewer, &task_id).await?;
    let events = state.runtime.history(task).await.map_err(|e| state.status_of(e))?;
    let owner = match events.first().map(|event| &event.kind) {
        Some(EventKind::Accepted(accepted)) if accepted.erased.is_none() => accepted.owner.clone(),
        Some(EventKind::Accepted(_)) => return Err(state.status_of(artel_actors::Error::Erased(task))),
        _ => return Err(state.status_of(artel_actors::Error::NoTask(task))),
    };
    let (step, decision) = decision(&events, &step_id)?;
    let record = FeedbackRecord {
        task,
        step: step.to_string(),
        text: routed_text(&events, step),
        chosen: decision.role.clone(),
        role,
        comment,
        owner,
        caller: viewer.caller,
    };
    keep(state, &state.feedback, task, record).await
}

fn role_name(state: &ServiceState, role: &str) -> Result<RoleName, Status> {
    let catalog = state.runtime.catalog();
    match catalog.role(role) {
        Some(role) => Ok(role.name.clone()),
        None => Err(state.status_of(artel_actors::Error::NoRole { name: role.to_owned() })),
    }
}

/// The decision of a step, or the first one of the task.
fn decision<'e>(events: &'e [Event], wanted: &str) -> Result<(&'e StepId, &'e Decision), Status> {
    let mut decisions = events.iter().filter_map(|event| match &event.kind {
        EventKind::Routed { step, decision } => Some((step, decision)),
        _ => None,
    });
    if let Some(found) = decisions.find(|(step, _)| wanted.is_empty() || step.to_string() == wanted) {
        return Ok(found);
    }
    let is_start =
        |event: &Event| matches!(&event.kind, EventKind::StepStarted { step, .. } if step.to_string() == wanted);
    if wanted.is_empty() || events.iter().any(is_start) {
        let message = "the task has no such routing decision";
        return Err(status(Code::FailedPrecondition, ErrorReason::NotADecision, message));
    }
    let message = format!("the task has no step `{wanted}`");
    Err(not_found(ErrorReason::StepNotFound, "step", wanted, &message, std::iter::empty()))
}

/// The text that was routed: the output of the router's step, or the task's input if it has none.
fn routed_text(events: &[Event], router: &StepId) -> String {
    let own = events.iter().find_map(|event| match &event.kind {
        EventKind::StepFinished { step, output, .. } if step == router => Some(output.text.clone()),
        _ => None,
    });
    let input = || match events.first().map(|event| &event.kind) {
        Some(EventKind::Accepted(accepted)) => accepted.input.clone(),
        _ => String::new(),
    };
    own.unwrap_or_else(input)
}
