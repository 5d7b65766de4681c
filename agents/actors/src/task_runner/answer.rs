//! The answers of people, and deadlines without an answer.

use artel_roles::Schema;
use artel_task::StepId;
use artel_task::event::{FailureCode, Output, ResultSource};
use artel_task::graph::NodeKind;
use serde_json::Value;

use super::{RunningTask, check_output_size};
use crate::completion::failure;

/// A person's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A text; where there is a schema, one of the texts that it allows.
    Text(String),
    /// A value that satisfies the schema.
    Json(Value),
}

/// Why an answer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnswerRejection {
    /// The step does not wait for a person, or no longer.
    NotWaiting,
    /// Several steps wait, and none is named.
    AmbiguousStep(Vec<StepId>),
    /// It does not satisfy the schema.
    Invalid(String),
    /// The journal did not take it.
    Suspended,
}

impl RunningTask {
    pub(super) async fn answer(&mut self, step: Option<StepId>, answer: Answer) -> Result<(), AnswerRejection> {
        // A deadline that has passed is applied first, even if its timer has not fired yet.
        if !self.advance().await {
            return Err(AnswerRejection::Suspended);
        }
        let mut waiting = self.task.open_questions();
        let step = match step {
            Some(step) if waiting.contains(&step) => step,
            None if waiting.len() > 1 => return Err(AnswerRejection::AmbiguousStep(waiting)),
            None => waiting.pop().ok_or(AnswerRejection::NotWaiting)?,
            Some(_) => return Err(AnswerRejection::NotWaiting),
        };
        let graph = self.cx.graph.subgraph(&step.visit.parents).map(|graph| graph.name().clone());
        let schema = graph.and_then(|graph| self.cx.catalog.answer_schema(graph.as_str(), step.visit.node.as_str()));
        let output = parse_answer(answer, schema).map_err(AnswerRejection::Invalid)?;
        check_output_size(&output).map_err(AnswerRejection::Invalid)?;
        self.finish(&step, output, Default::default(), ResultSource::Person);
        if self.advance().await { Ok(()) } else { Err(AnswerRejection::Suspended) }
    }

    /// No answer came before the deadline.
    pub(super) fn deadline_passed(&mut self, step: &StepId) {
        let node = self.cx.graph.node_at(&step.visit).map(|node| node.kind.clone());
        let Some(NodeKind::Ask(ask)) = node else { return };
        match ask.otherwise {
            Some(Value::String(text)) if ask.schema.is_none() => {
                self.finish(step, Output::text(text), Default::default(), ResultSource::Otherwise);
            }
            Some(value) => self.finish(step, Output::json(value), Default::default(), ResultSource::Otherwise),
            None => {
                let time = ask.deadline.unwrap_or_default();
                let message = format!("no answer to node `{}` came within {time:?}", step.visit.node);
                self.step_failed(step, failure(FailureCode::NoAnswer, message));
            }
        }
    }
}

fn parse_answer(answer: Answer, schema: Option<&Schema>) -> Result<Output, String> {
    match (answer, schema) {
        (Answer::Text(text), None) => Ok(Output::text(text)),
        (Answer::Json(_), None) => Err("the step has no schema: its answer is text".to_owned()),
        (Answer::Text(text), Some(schema)) => {
            let value = Value::String(text);
            schema.check(&value).map_err(|e| format!("the text does not satisfy the step's schema: {e}"))?;
            Ok(Output::json(value))
        }
        (Answer::Json(value), Some(schema)) => {
            schema.check(&value).map_err(|e| format!("the answer does not satisfy the step's schema: {e}"))?;
            Ok(Output::json(value))
        }
    }
}
