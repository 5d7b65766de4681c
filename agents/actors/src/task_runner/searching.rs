//! Searches of a knowledge as steps, and the roles that answer from what they found.

use std::time::Duration;

use artel_retrieval::{FoundPassages, PassageQuery};
use artel_task::event::{Failure, FailureCode, Output, ResultSource, Timings, Usage};
use artel_task::graph::SearchNode;
use artel_task::{NodeName, StepId, Visit};
use tokio::time::Instant;

use super::dispatch::AttemptContext;
use super::running_task::RunningTask;
use crate::completion::StepOutcome;

/// A search takes milliseconds; the first one may have to wait until the embedding model is loaded.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(120);

impl RunningTask {
    pub(super) fn dispatch_to_search(
        &self,
        step: &StepId,
        search: &SearchNode,
        timeout: Option<Duration>,
        attempt: AttemptContext,
    ) {
        // No barrier: its completion is handled after the start was journalled, and it publishes nothing before.
        let AttemptContext { cancel, completion, .. } = attempt;
        let query = self.search_query(step, search);
        let (query, retrieval) = match (query, self.cx.retrieval.clone()) {
            (Ok(query), Some(retrieval)) => (query, retrieval),
            (Err(failure), _) => return completion.send(Err(failure)),
            (_, None) => {
                let message = "this daemon has no index of knowledge";
                return completion.send(Err(Failure::new(FailureCode::Internal, message)));
            }
        };
        let (catalog, timeout) = (self.cx.catalog.clone(), timeout.unwrap_or(SEARCH_TIMEOUT));
        tokio::spawn(async move {
            let started = Instant::now();
            let found = tokio::time::timeout(timeout, retrieval.find(&catalog, query));
            tokio::select! {
                () = cancel.cancelled() => completion.discard(),
                found = found => {
                    let failed = |code, message: String| Failure::new(code, message);
                    let late = |_| failed(FailureCode::Timeout, format!("nothing was found within {timeout:?}"));
                    let found = found.map_err(late).and_then(|found| {
                        found.map_err(|error| failed(error.failure_code(), error.to_string()))
                    });
                    completion.send(found.map(|found| outcome(&found, started.elapsed())));
                }
            }
        });
    }

    fn search_query(&self, step: &StepId, search: &SearchNode) -> Result<PassageQuery, Failure> {
        let text = match self.message_of(&step.visit) {
            Some(template) => template.render(&self.context(step)).map_err(|e| Self::bad_template(step, &e))?,
            None => self.task.input_of(&step.visit),
        };
        Ok(PassageQuery {
            knowledge: vec![search.knowledge.clone()],
            text,
            caller: self.task.spec.owner.clone(),
            priority: self.task.spec.priority,
            top: search.top,
        })
    }

    /// What the last visit of a search found.
    pub(super) fn found_by(&self, search: &NodeName, visit: &Visit) -> Option<FoundPassages> {
        let output = self.task.scope(&visit.parents)?.outputs.get(search)?.clone();
        FoundPassages::from_json(output.get("output")?)
    }
}

/// The passages as the output of a step: numbered as a text, and in JSON.
fn outcome(found: &FoundPassages, elapsed: Duration) -> StepOutcome {
    let output = Output { json: Some(found.to_json()), ..Output::text(found.listing()) };
    let usage = Usage { prompt: found.query_tokens, computed: found.query_tokens, ..Usage::default() };
    let timings = Timings { prefill: elapsed, ..Timings::default() };
    StepOutcome::Answer { output, usage, timings, source: ResultSource::Run }
}
