//! Checks of an answer against passages, as steps.

use artel_retrieval::support::{self, CheckedSentence};
use artel_task::event::{Citation, Output, ResultSource, Timings, Usage};
use artel_task::{NodeName, StepId};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::dispatch::AttemptContext;
use super::running_task::RunningTask;
use crate::completion::StepOutcome;
use crate::expert::{NOTHING_FOUND, cited_in};

/// An answer, and the passages that it is to be supported by.
struct AnswerToCheck {
    question: String,
    answer: String,
    passages: Vec<Citation>,
}

impl RunningTask {
    pub(super) fn dispatch_to_check(
        &self,
        step: &StepId,
        answer: &NodeName,
        search: Option<&NodeName>,
        attempt: AttemptContext,
    ) {
        // No barrier: its completion is handled after the start was journalled, and it publishes nothing before.
        let (completion, given) = (attempt.completion, self.answer_to_check(step, answer, search));
        // A long answer takes a core for milliseconds.
        tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            completion.send(Ok(outcome(&given, started)));
        });
    }

    /// An answer that has failed is empty: nothing supports it.
    fn answer_to_check(&self, step: &StepId, answer: &NodeName, search: Option<&NodeName>) -> AnswerToCheck {
        let given = self.task.scope(&step.visit.parents).and_then(|scope| scope.outputs.get(answer));
        let passages = match search {
            Some(search) => self.found_by(search, &step.visit).map(|found| found.citations().collect()),
            None => given.and_then(|given| serde_json::from_value(given.get("citations")?.clone()).ok()),
        };
        let answer = given.and_then(|given| given.get("text")?.as_str()).unwrap_or_default().to_owned();
        AnswerToCheck { question: self.task.spec.input.clone(), answer, passages: passages.unwrap_or_default() }
    }
}

/// What is left of the answer as the text, and what was doubted as JSON.
fn outcome(given: &AnswerToCheck, started: Instant) -> StepOutcome {
    let passages: Vec<(u32, &str)> =
        given.passages.iter().map(|citation| (citation.number, citation.quote.as_str())).collect();
    let checked = support::check(&given.question, &given.answer, &passages);
    let doubted: Vec<Value> = checked.iter().filter_map(doubt_json).collect();
    let kept = support::supported_text(&given.answer, &checked);
    let text = if kept.is_empty() { NOTHING_FOUND.to_owned() } else { kept };
    let json = json!({
        "supported": doubted.is_empty() && !checked.is_empty(),
        "sentences": checked.len(),
        "doubted": doubted,
    });
    let citations = cited_in(&text, given.passages.clone());
    let output = Output { json: Some(json), citations, ..Output::text(text) };
    let timings = Timings { prefill: started.elapsed(), ..Timings::default() };
    StepOutcome::Answer { output, usage: Usage::default(), timings, source: ResultSource::Run }
}

fn doubt_json(sentence: &CheckedSentence) -> Option<Value> {
    let doubt = sentence.doubt.as_ref()?;
    Some(json!({"sentence": sentence.text, "reason": doubt.to_string()}))
}
