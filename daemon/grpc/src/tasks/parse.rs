//! Parses requests and checks their limits.

use std::collections::{BTreeMap, HashMap};

use artel_actors::{Answer, Fork, Submission, Target, Viewer};
use artel_proto::v1;
use artel_task::RequestId;
use artel_task::event::{ReasoningParams, TaskPriority};
use tonic::Status;

use super::{messages, response, sampling};
use crate::field_error::FieldError;
use crate::status::{Violations, invalid_field};
use crate::value::{json, parse_task_id};

/// The longest text of a request: more than the context of any model.
pub(crate) const MAX_INPUT_BYTES: usize = 1024 * 1024;
/// The longest reason: a few sentences.
pub(super) const MAX_REASON_BYTES: usize = 1000;
/// Labels of one task: enough for the ids of any client.
const MAX_LABELS: usize = 64;
/// The largest budget of a reasoning: the most tokens that a role may generate.
const MAX_REASONING_TOKENS: u32 = 1_048_576;
/// As much as the metadata of a request of OpenAI may have.
const MAX_LABEL_KEY_BYTES: usize = 64;
const MAX_LABEL_VALUE_BYTES: usize = 512;

/// Parses a task of this caller. `path` is the prefix of field names in violations.
pub(super) fn submission(request: v1::SubmitRequest, path: &str, viewer: Viewer) -> Result<Submission, Status> {
    let mut violations = Violations::default();
    let field = |name: &str| format!("{path}{name}");
    let priority = request.priority();
    let v1::SubmitRequest { target, input, request_id, priority: number, labels, messages, .. } = request;
    let v1::SubmitRequest { sampling, response, tools, tool_choice, reasoning, .. } = request;
    let (input, conversation) = if messages.is_empty() {
        violations.check(&field("input"), input_text(&input));
        (input, None)
    } else {
        messages::parse(messages, &input, path, &mut violations)
            .map(|(text, known)| (text, Some(known)))
            .unwrap_or_default()
    };
    let class = violations.check(&field("priority"), task_priority(priority, number));
    let request = match request_id.as_str() {
        "" => Some(None),
        id => {
            let parsed = RequestId::parse(id).map(Some);
            violations.check(&field("request_id"), parsed.ok_or(FieldError::RequestId))
        }
    };
    let labels = violations.check(&field("labels"), self::labels(labels));
    let sampling = sampling.and_then(|given| sampling::parse(given, &field("sampling"), &mut violations));
    let response = response.and_then(|given| response::parse(given, &field("response"), &mut violations));
    let tools = violations.check(&field("tools"), super::tools::parse(tools, tool_choice));
    let reasoning = reasoning.map(|options| violations.check(&field("reasoning.budget"), self::reasoning(&options)));
    let target = match target {
        None => Target::Default,
        Some(v1::submit_request::Target::Graph(name)) => Target::Graph(name),
        Some(v1::submit_request::Target::Role(name)) => Target::Role(name),
    };
    violations.finish()?;
    let (request, class, labels) = (request.flatten(), class.unwrap_or_default(), labels.unwrap_or_default());
    let Viewer { caller: owner, quota, .. } = viewer;
    let (sampling, response, tools) = (sampling.map(Box::new), response.map(Box::new), tools.flatten());
    let (request_id, priority, trace, reasoning) = (request, class, None, reasoning.flatten());
    Ok(Submission {
        target,
        input,
        request_id,
        priority,
        labels,
        owner,
        quota,
        trace,
        sampling,
        response,
        tools,
        reasoning,
        conversation,
    })
}

/// Parses the answer of a person.
pub(super) fn answer(given: Option<v1::answer_request::Answer>) -> Result<Answer, Status> {
    use v1::answer_request::Answer as Given;
    match given {
        None => Err(invalid_field("answer", "is required: text, or JSON for a step with a schema")),
        Some(Given::Text(text)) if text.len() > MAX_INPUT_BYTES => {
            Err(invalid_field("text", FieldError::TooLong { bytes: text.len(), limit: MAX_INPUT_BYTES }))
        }
        Some(Given::Text(text)) => Ok(Answer::Text(text)),
        Some(Given::Json(value)) => Ok(Answer::Json(json(&value).map_err(|e| invalid_field("json", e))?)),
    }
}

/// Parses a fork by this caller.
pub(super) fn fork(request: v1::ForkRequest, viewer: &Viewer) -> Result<Fork, Status> {
    let mut violations = Violations::default();
    let current = request.catalog() == v1::ForkCatalog::Current;
    let v1::ForkRequest { task_id, from_step_id, catalog, request_id, labels } = request;
    if v1::ForkCatalog::try_from(catalog).is_err() {
        violations.add("catalog", format!("unknown catalog {catalog}"));
    }
    let parsed = if request_id.is_empty() { None } else { Some(RequestId::parse(&request_id)) };
    if parsed == Some(None) {
        violations.add("request_id", FieldError::RequestId);
    }
    let labels = violations.check("labels", self::labels(labels)).unwrap_or_default();
    let task = parse_task_id("task_id", &task_id)?;
    violations.finish()?;
    let from = Some(from_step_id).filter(|step| !step.is_empty());
    let (owner, quota) = (viewer.caller.clone(), viewer.quota);
    Ok(Fork {
        task,
        from_step: from,
        use_current_catalog: current,
        request_id: parsed.flatten(),
        labels,
        owner,
        quota,
        trace: None,
    })
}

/// Checks the length of an input.
pub(crate) fn input_text(input: &str) -> Result<(), FieldError> {
    match input.len() {
        0 => Err(FieldError::Empty),
        bytes if bytes > MAX_INPUT_BYTES => Err(FieldError::TooLong { bytes, limit: MAX_INPUT_BYTES }),
        _ => Ok(()),
    }
}

pub(crate) fn task_priority(priority: v1::Priority, number: i32) -> Result<TaskPriority, FieldError> {
    match priority {
        // An unknown number is decoded as unspecified.
        v1::Priority::Unspecified if number != 0 => Err(FieldError::UnknownPriority(number)),
        v1::Priority::Unspecified | v1::Priority::Interactive => Ok(TaskPriority::Interactive),
        v1::Priority::Batch => Ok(TaskPriority::Batch),
    }
}

/// What a client allows of the reasoning of its models.
fn reasoning(options: &v1::ReasoningOptions) -> Result<ReasoningParams, FieldError> {
    if let Some(tokens) = options.budget.filter(|budget| *budget > MAX_REASONING_TOKENS) {
        return Err(FieldError::TooManyTokens { tokens, limit: MAX_REASONING_TOKENS });
    }
    let v1::ReasoningOptions { show, enabled, budget } = *options;
    Ok(ReasoningParams { show: show.unwrap_or(true), is_enabled: enabled.unwrap_or(true), budget })
}

pub(super) fn labels(labels: HashMap<String, String>) -> Result<BTreeMap<String, String>, FieldError> {
    if labels.len() > MAX_LABELS {
        return Err(FieldError::TooManyEntries { entries: labels.len(), limit: MAX_LABELS });
    }
    for (key, value) in &labels {
        if key.is_empty() || key.len() > MAX_LABEL_KEY_BYTES {
            return Err(FieldError::LabelKey { bytes: key.len(), limit: MAX_LABEL_KEY_BYTES });
        }
        if value.len() > MAX_LABEL_VALUE_BYTES {
            let (key, bytes) = (key.clone(), value.len());
            return Err(FieldError::LabelValue { key, bytes, limit: MAX_LABEL_VALUE_BYTES });
        }
    }
    Ok(labels.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::StatusExt as _;

    #[test]
    fn all_violations_are_reported_at_once() {
        let request = v1::SubmitRequest {
            input: String::new(),
            request_id: "two words".to_owned(),
            priority: 7,
            labels: HashMap::from([(String::new(), "x".to_owned())]),
            tools: vec![v1::Tool { name: "a b".to_owned(), ..v1::Tool::default() }],
            reasoning: Some(v1::ReasoningOptions { budget: Some(u32::MAX), ..Default::default() }),
            ..v1::SubmitRequest::default()
        };
        let status = submission(request, "submit.", Viewer::owner()).unwrap_err();
        let violations = status.get_details_bad_request().unwrap().field_violations;
        let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "submit.input",
                "submit.priority",
                "submit.request_id",
                "submit.labels",
                "submit.tools",
                "submit.reasoning.budget"
            ]
        );
        assert_eq!(status.get_details_error_info().unwrap().reason, "BAD_REQUEST");
    }

    #[test]
    fn the_largest_input_is_accepted_and_one_more_byte_is_not() {
        assert!(input_text(&"x".repeat(MAX_INPUT_BYTES)).is_ok());
        assert!(input_text(&"x".repeat(MAX_INPUT_BYTES + 1)).is_err());
    }
}
