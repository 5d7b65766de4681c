//! Parses requests to knowledge and checks their limits.

use std::collections::{BTreeMap, HashMap};

use artel_actors::knowledge::{NewText, SearchRequest};
use artel_proto::v1;
use artel_roles::SearchModeSetting;
use artel_task::CallerName;
use artel_task::event::TaskPriority;
use tonic::Status;

use crate::field_error::FieldError;
use crate::status::Violations;
use crate::tasks::MAX_INPUT_BYTES;

/// The longest question: a page of text.
const MAX_QUERY_BYTES: usize = 8 * 1024;
/// The most passages of one search: more do not fit into a prompt.
const MAX_TOP_PASSAGES: u32 = 50;
/// The most patterns and labels of one search, and the longest of them.
const MAX_FILTER_ENTRIES: usize = 16;
const MAX_FILTER_BYTES: usize = 512;
/// The longest name of a text: a URL fits.
const MAX_SOURCE_BYTES: usize = 512;
const MAX_LABEL_BYTES: usize = 400;

/// Parses a search; `caller` is the one whose texts are found beside files.
pub(super) fn search(request: v1::SearchKnowledgeRequest, caller: Option<CallerName>) -> Result<SearchRequest, Status> {
    let mode = request.mode();
    let v1::SearchKnowledgeRequest { knowledge, query, top, mode: number, sources, labels } = request;
    let mut violations = Violations::default();
    violations.check("knowledge", text(&knowledge, MAX_SOURCE_BYTES));
    violations.check("query", text(&query, MAX_QUERY_BYTES));
    if top > MAX_TOP_PASSAGES {
        violations.add("top", FieldError::TooManyEntries { entries: top as usize, limit: MAX_TOP_PASSAGES as usize });
    }
    let mode = violations.check("mode", search_mode(mode, number));
    if sources.len() > MAX_FILTER_ENTRIES {
        violations.add("sources", FieldError::TooManyEntries { entries: sources.len(), limit: MAX_FILTER_ENTRIES });
    }
    for (at, source) in sources.iter().enumerate() {
        violations.check(&format!("sources[{at}]"), text(source, MAX_FILTER_BYTES));
    }
    let labels = violations.check("labels", self::labels(labels));
    violations.finish()?;
    Ok(SearchRequest {
        knowledge,
        text: query,
        top: Some(top).filter(|top| *top > 0),
        mode: mode.flatten(),
        sources,
        labels: labels.unwrap_or_default(),
        caller,
        priority: TaskPriority::Interactive,
    })
}

/// Parses a text of this caller, with the knowledge that takes it.
pub(super) fn text_of(request: v1::AddTextRequest, owner: CallerName) -> Result<(String, NewText), Status> {
    let v1::AddTextRequest { knowledge, source, text, markdown, labels } = request;
    let mut violations = Violations::default();
    violations.check("knowledge", self::text(&knowledge, MAX_SOURCE_BYTES));
    violations.check("source", self::text(&source, MAX_SOURCE_BYTES));
    violations.check("text", self::text(&text, MAX_INPUT_BYTES));
    let labels = violations.check("labels", self::labels(labels));
    violations.finish()?;
    let labels = labels.unwrap_or_default();
    Ok((knowledge, NewText { source, text, is_markdown: markdown, labels, owner }))
}

fn search_mode(mode: v1::SearchMode, number: i32) -> Result<Option<SearchModeSetting>, FieldError> {
    match mode {
        v1::SearchMode::Unspecified if number != 0 => Err(FieldError::UnknownSearchMode(number)),
        v1::SearchMode::Unspecified => Ok(None),
        v1::SearchMode::Hybrid => Ok(Some(SearchModeSetting::Hybrid)),
        v1::SearchMode::Vector => Ok(Some(SearchModeSetting::Vector)),
        v1::SearchMode::Keyword => Ok(Some(SearchModeSetting::Keyword)),
    }
}

fn text(text: &str, limit: usize) -> Result<(), FieldError> {
    match text.trim().len() {
        0 => Err(FieldError::Empty),
        _ if text.len() > limit => Err(FieldError::TooLong { bytes: text.len(), limit }),
        _ => Ok(()),
    }
}

fn labels(labels: HashMap<String, String>) -> Result<BTreeMap<String, String>, FieldError> {
    if labels.len() > MAX_FILTER_ENTRIES {
        return Err(FieldError::TooManyEntries { entries: labels.len(), limit: MAX_FILTER_ENTRIES });
    }
    for (key, value) in &labels {
        if key.is_empty() || key.len() > MAX_LABEL_BYTES {
            return Err(FieldError::LabelKey { bytes: key.len(), limit: MAX_LABEL_BYTES });
        }
        if value.len() > MAX_LABEL_BYTES {
            let key = key.clone();
            return Err(FieldError::LabelValue { key, bytes: value.len(), limit: MAX_LABEL_BYTES });
        }
    }
    Ok(labels.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn violations(request: v1::SearchKnowledgeRequest) -> Vec<String> {
        let status = search(request, None).unwrap_err();
        let details = status.get_error_details().bad_request().unwrap().clone();
        details.field_violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn every_fault_of_a_search_is_named_at_once() {
        let request = v1::SearchKnowledgeRequest {
            knowledge: String::new(),
            query: "x".repeat(MAX_QUERY_BYTES + 1),
            top: 51,
            mode: 9,
            sources: vec![String::new()],
            labels: HashMap::from([(String::new(), String::new())]),
        };
        assert_eq!(violations(request), ["knowledge", "query", "top", "mode", "sources[0]", "labels"]);
    }

    #[test]
    fn what_is_left_out_is_what_the_knowledge_says() {
        let request = v1::SearchKnowledgeRequest {
            knowledge: "handbook".to_owned(),
            query: "When?".to_owned(),
            ..v1::SearchKnowledgeRequest::default()
        };
        let parsed = search(request, None).unwrap();
        assert_eq!((parsed.top, parsed.mode), (None, None));
    }
}
