//! `Tasks.Rate`.

use artel_actors::{AnswerToRate, Viewer};
use artel_feedback::{AnswerRating, RatedMessage, RatingRecord};
use artel_proto::v1;
use artel_task::RoleName;
use tonic::Status;

use super::keep_record::{MAX_COMMENT_BYTES, keep};
use crate::field_error::FieldError;
use crate::state::ServiceState;
use crate::status::{Violations, internal};
use crate::tasks::MAX_INPUT_BYTES;

/// The most text that a model read which is kept with a rating: as much as a task's input has.
const MAX_READ_BYTES: usize = MAX_INPUT_BYTES;

/// Stores the rating of an answer; it is on disk when this returns.
pub(super) async fn store(
    state: &ServiceState,
    viewer: Viewer,
    request: v1::RateRequest,
) -> Result<v1::RateResponse, Status> {
    let (rating, correction) = parse(&request)?;
    let task = state.controlled_task(&viewer, &request.task_id).await?;
    let wanted = Some(request.step_id.as_str()).filter(|step| !step.is_empty());
    let answer = state.runtime.answer_to_rate(task, wanted).await.map_err(|e| state.status_of(e))?;
    if let Some(correction) = &correction {
        check_correction(state, &answer.role, correction)?;
    }
    let AnswerToRate { step, role, messages, text, catalog, owner } = answer;
    let messages =
        messages.filter(|messages| messages.iter().map(|(_, text)| text.len()).sum::<usize>() <= MAX_READ_BYTES);
    let message = |(role, content): (&str, String)| RatedMessage { role: role.to_owned(), content };
    let record = RatingRecord {
        task,
        step: step.to_string(),
        role,
        messages: messages.map(|messages| messages.into_iter().map(message).collect()),
        answer: text,
        rating,
        correction,
        comment: request.comment,
        catalog,
        rated_at: state.runtime.clock().now(),
        owner,
        caller: viewer.caller,
    };
    let response = v1::RateResponse {
        step_id: record.step.clone(),
        role: record.role.to_string(),
        trainable: record.messages.is_some() && (record.correction.is_some() || rating == AnswerRating::Good),
    };
    keep(state, &state.ratings, task, record).await?;
    Ok(response)
}

fn parse(request: &v1::RateRequest) -> Result<(AnswerRating, Option<String>), Status> {
    let mut violations = Violations::default();
    let too_long = |bytes, limit| FieldError::TooLong { bytes, limit };
    if request.comment.len() > MAX_COMMENT_BYTES {
        violations.add("comment", too_long(request.comment.len(), MAX_COMMENT_BYTES));
    }
    if request.correction.len() > MAX_INPUT_BYTES {
        violations.add("correction", too_long(request.correction.len(), MAX_INPUT_BYTES));
    }
    let rating = match v1::AnswerRating::try_from(request.rating) {
        Ok(v1::AnswerRating::Good) => Some(AnswerRating::Good),
        Ok(v1::AnswerRating::Bad) => Some(AnswerRating::Bad),
        Ok(v1::AnswerRating::Unspecified) | Err(_) => None,
    };
    let correction = Some(request.correction.trim().to_owned()).filter(|text| !text.is_empty());
    if rating.is_none() {
        violations.add("rating", "is neither good nor bad");
    }
    if rating == Some(AnswerRating::Good) && correction.is_some() {
        violations.add("correction", "an answer that is good needs none");
    }
    if correction.is_none() && !request.correction.is_empty() {
        violations.add("correction", FieldError::Empty);
    }
    violations.finish()?;
    Ok((rating.ok_or_else(internal)?, correction))
}

/// Refuses a correction that the role could not have given.
fn check_correction(state: &ServiceState, role: &RoleName, correction: &str) -> Result<(), Status> {
    let catalog = state.runtime.catalog();
    let Some(schema) = catalog.role(role.as_str()).and_then(|role| role.output.as_ref()) else { return Ok(()) };
    let mut violations = Violations::default();
    match serde_json::from_str(correction) {
        Ok(value) => {
            violations.check("correction", schema.check(&value));
        }
        Err(error) => violations.add("correction", format!("role `{role}` answers in JSON, and this is none: {error}")),
    }
    violations.finish()
}
