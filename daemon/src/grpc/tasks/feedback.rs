//! What people say about decisions of routers.

use artel_journal::feedback::{self, Word};
use artel_proto::v1::{self, ErrorReason};
use artel_task::event::Decision;
use artel_task::{Event, EventKind, RoleName, StepId};
use tonic::{Code, Status};

use super::super::Served;
use super::super::status::{bad, missing, status};
use super::parse;

/// Bytes of a remark.
const MAX_COMMENT: usize = 4096;

/// Keeps a word about a decision; it is on disk when this returns.
pub(super) async fn keep(served: &Served, request: v1::FeedbackRequest) -> Result<(), Status> {
    let v1::FeedbackRequest { task_id, step_id, role, comment } = request;
    let task = parse::task_id(&task_id)?;
    if comment.len() > MAX_COMMENT {
        return Err(bad("comment", format!("it has {} bytes, the limit is {MAX_COMMENT}", comment.len())));
    }
    let role = match role.is_empty() {
        true => None,
        false => Some(known(served, &role)?),
    };
    let events = served.crew.history(task).await.map_err(|e| served.refuse(e))?;
    let (step, decision) = decision(&events, &step_id)?;
    let word =
        Word { task, step: step.to_string(), text: read(&events, step), chosen: decision.role.clone(), role, comment };
    let feedback = served.feedback.clone();
    let kept = tokio::task::spawn_blocking(move || feedback.keep(word)).await;
    match kept {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ feedback::Error::Full { .. })) => {
            tracing::error!(%error, "feedback was refused");
            Err(status(Code::ResourceExhausted, ErrorReason::Journal, "the daemon keeps no more feedback"))
        }
        Ok(Err(error)) => {
            tracing::error!(%error, cause = ?std::error::Error::source(&error), "feedback was not kept");
            Err(status(Code::Unavailable, ErrorReason::Journal, "the feedback could not be written; the log says more"))
        }
        Err(_) => Err(status(Code::Internal, ErrorReason::Internal, "a fault of the daemon; its log says more")),
    }
}

fn known(served: &Served, role: &str) -> Result<RoleName, Status> {
    let catalog = served.crew.catalog();
    match catalog.role(role) {
        Some(role) => Ok(role.name.clone()),
        None => Err(served.refuse(artel_actors::Error::NoRole { name: role.to_owned() })),
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
    let ran = |event: &Event| matches!(&event.kind, EventKind::StepStarted { step, .. } if step.to_string() == wanted);
    if wanted.is_empty() || events.iter().any(ran) {
        let message = "the task has no such decision of a router";
        return Err(status(Code::FailedPrecondition, ErrorReason::NotADecision, message));
    }
    let message = format!("the task has no step `{wanted}`");
    Err(missing(ErrorReason::StepNotFound, "step", wanted, &message, std::iter::empty()))
}

/// What the router read: its own output, or the task's input while it has none.
fn read(events: &[Event], router: &StepId) -> String {
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
