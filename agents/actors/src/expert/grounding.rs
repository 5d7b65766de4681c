//! The passages that a step answers from, and what its answer cites of them.

use std::collections::BTreeSet;

use artel_retrieval::{CitationFilter, FoundPassages, PassageQuery};
use artel_task::event::{Citation, Failure, Output, ResultSource, Timings, Usage};
use serde_json::{Value, json};

use super::step_job::StepJob;
use crate::completion::StepOutcome;

/// What a grounded role says where nothing answers.
pub(crate) const NOTHING_FOUND: &str = "Nothing was found that answers this.";
/// The field of an output by which a role with a schema cites.
const CITATIONS_FIELD: &str = "citations";

impl StepJob {
    /// Searches the role's knowledge for its input. Nothing is found by a role without any.
    pub(super) async fn find_passages(&self) -> Result<FoundPassages, Failure> {
        if let Some(found) = &self.found {
            return Ok(found.clone());
        }
        let Some((retrieval, known)) = self.retrieval.as_ref().filter(|_| !self.role.knowledge.is_empty()) else {
            return Ok(FoundPassages::default());
        };
        let query = PassageQuery {
            knowledge: self.role.knowledge.clone(),
            text: self.context.input.clone(),
            caller: self.owner.clone(),
            priority: self.priority,
            top: None,
        };
        let found = retrieval.find(known, query).await;
        found.map_err(|error| Failure::new(error.failure_code(), format!("role `{}`: {error}", self.role.name)))
    }

    /// The answer of a grounded role where nothing answers. One with a schema has to be asked: its model says it by citing nothing.
    pub(super) fn refused_answer(&self, found: &FoundPassages) -> Option<StepOutcome> {
        if !self.role.is_grounded || found.is_answerable || self.role.output.is_some() {
            return None;
        }
        let output = Output { role: Some(self.role.name.clone()), ..Output::text(NOTHING_FOUND) };
        let (usage, timings) = (Usage::default(), Timings::default());
        Some(StepOutcome::Answer { output, usage, timings, source: ResultSource::Run })
    }
}

/// The passages as templates read them.
pub(super) fn template_values(found: &FoundPassages) -> Vec<Value> {
    let citations = found.citations();
    citations
        .map(|citation| {
            let Citation { number, knowledge, source, page, first_line, last_line, context, quote } = citation;
            json!({
                "number": number, "knowledge": knowledge, "source": source, "page": page,
                "lines": [first_line, last_line], "context": context, "text": quote,
            })
        })
        .collect()
}

/// The passages and how to cite them, before the text of a user. Empty without any.
pub(super) fn prompt_text(found: &FoundPassages) -> String {
    let mut text = String::new();
    for Citation { number, source, page, context, quote, .. } in found.citations() {
        let page = page.map(|page| format!(", page {page}")).unwrap_or_default();
        let place = [&[format!("{source}{page}")], context.as_slice()].concat().join(" > ");
        text.push_str(&format!("[{number}] {place}\n{}\n\n", quote.trim()));
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "Passages:\n\n{text}Answer from these passages. After each statement, write the number of the passage that says it, as in [1]. \
         If they do not answer, say so.\n\n"
    )
}

/// The schema of an output in which citations can only be those of passages that were found.
pub(super) fn with_cited_numbers(mut schema: Value, found: &FoundPassages) -> Value {
    let numbers: Vec<u32> = found.citations().map(|citation| citation.number).collect();
    if let Some(field) = schema.pointer_mut(&format!("/properties/{CITATIONS_FIELD}")).and_then(Value::as_object_mut) {
        if numbers.is_empty() {
            field.insert("maxItems".to_owned(), 0.into());
        } else {
            field.insert("items".to_owned(), json!({"enum": numbers}));
        }
    }
    schema
}

/// What an output cites: by the marks of its text, or by the field of its JSON.
pub(super) fn cited(output: &Output, found: &FoundPassages) -> Vec<Citation> {
    let Some(json) = &output.json else { return cited_in(&output.text, found.citations().collect()) };
    let listed = json.get(CITATIONS_FIELD).and_then(Value::as_array).into_iter().flatten();
    let numbers: BTreeSet<u32> = listed.filter_map(|number| u32::try_from(number.as_u64()?).ok()).collect();
    found.citations().filter(|citation| numbers.contains(&citation.number)).collect()
}

/// Those of these passages that the marks of a text name.
pub(crate) fn cited_in(text: &str, passages: Vec<Citation>) -> Vec<Citation> {
    let highest = passages.iter().map(|citation| citation.number).max().unwrap_or(0);
    let mut marks = CitationFilter::new(highest);
    marks.push(text);
    passages.into_iter().filter(|citation| marks.cited().contains(&citation.number)).collect()
}
