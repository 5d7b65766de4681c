//! Requests into what the crew takes; what breaks a limit goes no further.

use std::collections::{BTreeMap, HashMap};

use artel_actors::{Answer, Fork, Submission, Target};
use artel_proto::v1;
use artel_task::event::TaskPriority;
use artel_task::{RequestId, TaskId};
use tonic::Status;

use crate::grpc::status::{Violations, bad};
use crate::grpc::value::json;

/// The longest text of a request, in bytes: more than any context of a model holds.
pub(super) const MAX_INPUT: usize = 1024 * 1024;
/// The longest reason, in bytes: a few sentences.
pub(super) const MAX_REASON: usize = 1000;
/// Notes of one task: enough for any program's own ids.
const MAX_LABELS: usize = 64;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 256;

pub(super) fn task_id(text: &str) -> Result<TaskId, Status> {
    let description = match text {
        "" => "it is required",
        _ => "it is no task id, which is a UUID such as 0198c0de-0000-7000-8000-000000000000",
    };
    TaskId::parse(text).ok_or_else(|| bad("task_id", description))
}

/// `path` comes before the names of fields in violations.
pub(super) fn submission(request: v1::SubmitRequest, path: &str) -> Result<Submission, Status> {
    let mut violations = Violations::default();
    let field = |name: &str| format!("{path}{name}");
    let task_class = request.task_class();
    let v1::SubmitRequest { target, input, request_id, task_class: number, labels } = request;
    if let Err(e) = input_text(&input) {
        violations.add(&field("input"), e);
    }
    let class = violations.take(&field("task_class"), class(task_class, number));
    let request = match request_id.as_str() {
        "" => Some(None),
        id => {
            let parsed = RequestId::parse(id);
            violations.take(&field("request_id"), parsed.map(Some).ok_or_else(|| REQUEST_ID.to_owned()))
        }
    };
    let labels = violations.take(&field("labels"), notes(labels));
    let target = match target {
        None => Target::Default,
        Some(v1::submit_request::Target::Graph(name)) => Target::Graph(name),
        Some(v1::submit_request::Target::Role(name)) => Target::Role(name),
    };
    violations.finish()?;
    let (request, class, labels) = (request.flatten(), class.unwrap_or_default(), labels.unwrap_or_default());
    Ok(Submission { target, input, request_id: request, priority: class, labels })
}

/// What a person answers.
pub(super) fn answer(given: Option<v1::answer_request::Answer>) -> Result<Answer, Status> {
    use v1::answer_request::Answer as Given;
    match given {
        None => Err(bad("answer", "it is required: text, or JSON for a step with a schema")),
        Some(Given::Text(text)) if text.len() > MAX_INPUT => {
            Err(bad("text", format!("it has {} bytes, the limit is {MAX_INPUT}", text.len())))
        }
        Some(Given::Text(text)) => Ok(Answer::Text(text)),
        Some(Given::Json(value)) => Ok(Answer::Json(json(&value).map_err(|e| bad("json", e))?)),
    }
}

/// From where to fork.
pub(super) fn fork(request: v1::ForkRequest) -> Result<Fork, Status> {
    let mut violations = Violations::default();
    let current = request.catalog() == v1::ForkCatalog::Current;
    let v1::ForkRequest { task_id, from_step_id, catalog, request_id, labels } = request;
    if v1::ForkCatalog::try_from(catalog).is_err() {
        violations.add("catalog", format!("there is no catalog {catalog}"));
    }
    let parsed = if request_id.is_empty() { None } else { Some(RequestId::parse(&request_id)) };
    if parsed == Some(None) {
        violations.add("request_id", REQUEST_ID);
    }
    let labels = violations.take("labels", notes(labels)).unwrap_or_default();
    let task = self::task_id(&task_id)?;
    violations.finish()?;
    let from = Some(from_step_id).filter(|step| !step.is_empty());
    Ok(Fork { task, from_step: from, use_current_catalog: current, request_id: parsed.flatten(), labels })
}

const REQUEST_ID: &str = "a request id has 1 to 128 printable ASCII characters without spaces";

pub(crate) fn input_text(input: &str) -> Result<(), String> {
    match input.len() {
        0 => Err("it is empty".to_owned()),
        length if length > MAX_INPUT => Err(format!("it has {length} bytes, the limit is {MAX_INPUT}")),
        _ => Ok(()),
    }
}

fn class(class: v1::Class, number: i32) -> Result<TaskPriority, String> {
    match class {
        // An unknown number reads as unspecified.
        v1::Class::Unspecified if number != 0 => Err(format!("there is no class {number}")),
        v1::Class::Unspecified | v1::Class::Interactive => Ok(TaskPriority::Interactive),
        v1::Class::Batch => Ok(TaskPriority::Batch),
    }
}

pub(super) fn notes(labels: HashMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if labels.len() > MAX_LABELS {
        return Err(format!("there are {}, the limit is {MAX_LABELS}", labels.len()));
    }
    for (key, value) in &labels {
        if key.is_empty() || key.len() > MAX_LABEL_KEY {
            return Err(format!("a key has 1 to {MAX_LABEL_KEY} bytes, and one has {}", key.len()));
        }
        if value.len() > MAX_LABEL_VALUE {
            return Err(format!("a value has up to {MAX_LABEL_VALUE} bytes, and that of `{key}` has {}", value.len()));
        }
    }
    Ok(labels.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::StatusExt as _;

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let request = v1::SubmitRequest {
            input: String::new(),
            request_id: "two words".to_owned(),
            task_class: 7,
            labels: HashMap::from([(String::new(), "x".to_owned())]),
            target: None,
        };
        let status = submission(request, "submit.").unwrap_err();
        let violations = status.get_details_bad_request().unwrap().field_violations;
        let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["submit.input", "submit.task_class", "submit.request_id", "submit.labels"]);
        assert_eq!(status.get_details_error_info().unwrap().reason, "BAD_REQUEST");
    }

    #[test]
    fn the_largest_input_is_taken_and_one_more_byte_is_not() {
        assert!(input_text(&"x".repeat(MAX_INPUT)).is_ok());
        assert!(input_text(&"x".repeat(MAX_INPUT + 1)).is_err());
    }
}
