//! Parses requests to models and checks their limits.

use artel_actors::{EmbeddedAs, PooledInput, TextsRequest, Viewer};
use artel_proto::v1;
use tonic::Status;

use crate::field_error::FieldError;
use crate::status::Violations;
use crate::tasks::{MAX_INPUT_BYTES, task_priority};

/// Texts of one call to embed: as many as vectors of 4,000 numbers fit into an answer of 4 MiB.
const MAX_INPUT_TEXTS: usize = 256;
/// Documents of one call to rank: ten times what a search hands on to a reranker.
const MAX_DOCUMENTS: usize = 1000;
/// The longest name of a model that is looked up; those of the catalog are shorter.
const MAX_MODEL_NAME_BYTES: usize = 256;

/// Parses texts to embed by this caller; also how many numbers of each vector to keep.
pub(super) fn embed(request: v1::EmbedRequest, viewer: Viewer) -> Result<(TextsRequest, usize), Status> {
    let class = request.priority();
    let kind = request.input_kind();
    let v1::EmbedRequest { model, inputs, dimensions, truncate, priority, input_kind } = request;
    let mut violations = Violations::default();
    violations.check("model", model_name(&model));
    check_texts(&mut violations, "inputs", &inputs, MAX_INPUT_TEXTS, 0);
    let priority = violations.check("priority", task_priority(class, priority));
    let embedded_as = violations.check("input_kind", embedded_as(kind, input_kind));
    violations.finish()?;
    let Viewer { caller, quota, .. } = viewer;
    let (input, priority) = (PooledInput::Texts(inputs), priority.unwrap_or_default());
    let embedded_as = embedded_as.flatten();
    let texts = TextsRequest { model, input, embedded_as, truncates: truncate, priority, caller, quota, trace: None };
    Ok((texts, dimensions as usize))
}

/// Parses documents to rank for this caller; also how many to return, 0 for all.
pub(super) fn rerank(request: v1::RerankRequest, viewer: Viewer) -> Result<(TextsRequest, usize), Status> {
    let class = request.priority();
    let v1::RerankRequest { model, query, documents, top_n, truncate, priority } = request;
    let mut violations = Violations::default();
    violations.check("model", model_name(&model));
    violations.check("query", text(&query));
    check_texts(&mut violations, "documents", &documents, MAX_DOCUMENTS, query.len());
    let priority = violations.check("priority", task_priority(class, priority));
    violations.finish()?;
    let Viewer { caller, quota, .. } = viewer;
    let (input, priority) = (PooledInput::Documents { query, documents }, priority.unwrap_or_default());
    let texts =
        TextsRequest { model, input, embedded_as: None, truncates: truncate, priority, caller, quota, trace: None };
    Ok((texts, top_n as usize))
}

/// What the texts are; a number that is none of them is refused.
fn embedded_as(kind: v1::InputKind, number: i32) -> Result<Option<EmbeddedAs>, FieldError> {
    match kind {
        v1::InputKind::Unspecified if number != 0 => Err(FieldError::UnknownInputKind(number)),
        v1::InputKind::Unspecified => Ok(None),
        v1::InputKind::Query => Ok(Some(EmbeddedAs::Query)),
        v1::InputKind::Passage => Ok(Some(EmbeddedAs::Passage)),
    }
}

fn model_name(name: &str) -> Result<(), FieldError> {
    match name.len() {
        0 => Err(FieldError::Empty),
        bytes if bytes > MAX_MODEL_NAME_BYTES => Err(FieldError::TooLong { bytes, limit: MAX_MODEL_NAME_BYTES }),
        _ => Ok(()),
    }
}

fn text(text: &str) -> Result<(), FieldError> {
    match text.len() {
        0 => Err(FieldError::Empty),
        bytes if bytes > MAX_INPUT_BYTES => Err(FieldError::TooLong { bytes, limit: MAX_INPUT_BYTES }),
        _ => Ok(()),
    }
}

/// Checks the number of texts, each of them, and the bytes of all with those beside them. Of empty ones, the first is named.
fn check_texts(violations: &mut Violations, field: &str, texts: &[String], limit: usize, beside: usize) {
    match texts.len() {
        0 => return violations.add(field, FieldError::Empty),
        entries if entries > limit => return violations.add(field, FieldError::TooManyEntries { entries, limit }),
        _ => {}
    }
    if let Some(index) = texts.iter().position(String::is_empty) {
        violations.add(&format!("{field}[{index}]"), FieldError::Empty);
    }
    let mut bytes = beside;
    for (index, text) in texts.iter().enumerate() {
        bytes += text.len();
        if bytes > MAX_INPUT_BYTES {
            let all = texts.iter().map(String::len).sum::<usize>() + beside;
            let error = FieldError::TooLongTogether { bytes: all, limit: MAX_INPUT_BYTES };
            return violations.add(&format!("{field}[{index}]"), error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(inputs: Vec<String>) -> String {
        let request = v1::EmbedRequest { model: "m".to_owned(), inputs, ..v1::EmbedRequest::default() };
        embed(request, Viewer::owner()).unwrap_err().message().to_owned()
    }

    #[test]
    fn a_violation_names_the_text_and_the_limit() {
        assert_eq!(refused(Vec::new()), "inputs: is empty");
        assert_eq!(refused(vec!["x".to_owned(); 257]), "inputs: has 257 entries, the limit is 256");
        assert_eq!(refused(vec!["x".to_owned(), String::new(), String::new()]), "inputs[1]: is empty");
        let half = "x".repeat(MAX_INPUT_BYTES / 2);
        let over = refused(vec![half.clone(), half.clone(), "y".to_owned()]);
        assert_eq!(over, "inputs[2]: all texts have 1048577 bytes together, the limit is 1048576");
        let fits = v1::EmbedRequest { model: "m".to_owned(), inputs: vec![half.clone(), half], ..Default::default() };
        assert!(embed(fits, Viewer::owner()).is_ok());
    }

    #[test]
    fn all_violations_are_named_at_once_and_the_query_counts() {
        let request = v1::RerankRequest { priority: 9, ..v1::RerankRequest::default() };
        let refused = rerank(request, Viewer::owner()).unwrap_err().message().to_owned();
        assert_eq!(refused, "model: is empty; query: is empty; documents: is empty; priority: unknown priority 9");
        let query = "x".repeat(MAX_INPUT_BYTES);
        let documents = vec!["y".to_owned()];
        let request = v1::RerankRequest { model: "m".to_owned(), query, documents, ..v1::RerankRequest::default() };
        let refused = rerank(request, Viewer::owner()).unwrap_err().message().to_owned();
        assert!(refused.starts_with("documents[0]: all texts have 1048577 bytes"), "{refused}");
    }
}
