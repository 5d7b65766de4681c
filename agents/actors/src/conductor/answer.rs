//! The answers of people, and what holds when nobody answers.

use artel_roles::Schema;
use artel_task::StepId;
use artel_task::event::{FailureCode, Output, ResultSource};
use artel_task::graph::NodeKind;
use serde_json::Value;

use super::{Run, small_enough};
use crate::report::failure;

/// What a person answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A text; where there is a schema, one of the texts that it names.
    Text(String),
    /// A value that satisfies the schema.
    Json(Value),
}

/// Why an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The step does not wait for a person, or no longer.
    NotWaiting,
    /// Several steps wait, and none is named.
    Several(Vec<StepId>),
    /// It does not satisfy the schema.
    Bad(String),
    /// The journal took it not.
    Rests,
}

impl Run {
    pub(super) async fn answer(&mut self, step: Option<StepId>, answer: Answer) -> Result<(), Refusal> {
        // A deadline that is over is over, whether its timer has come or not.
        if !self.advance().await {
            return Err(Refusal::Rests);
        }
        let mut asked = self.task.open_questions();
        let step = match step {
            Some(step) if asked.contains(&step) => step,
            None if asked.len() > 1 => return Err(Refusal::Several(asked)),
            None => asked.pop().ok_or(Refusal::NotWaiting)?,
            Some(_) => return Err(Refusal::NotWaiting),
        };
        let graph = self.on.graph.subgraph(&step.visit.parents).map(|graph| graph.name().clone());
        let schema = graph.and_then(|graph| self.on.catalog.answer_schema(graph.as_str(), step.visit.node.as_str()));
        let output = understood(answer, schema).map_err(Refusal::Bad)?;
        small_enough(&output).map_err(Refusal::Bad)?;
        self.finish(&step, output, Default::default(), ResultSource::Person);
        if self.advance().await { Ok(()) } else { Err(Refusal::Rests) }
    }

    /// Nobody answered in time.
    pub(super) fn lapse(&mut self, step: &StepId) {
        let node = self.on.graph.node_at(&step.visit).map(|node| node.kind.clone());
        let Some(NodeKind::Ask(ask)) = node else { return };
        match ask.otherwise {
            Some(Value::String(text)) if ask.schema.is_none() => {
                self.finish(step, Output::text(text), Default::default(), ResultSource::Otherwise);
            }
            Some(value) => self.finish(step, Output::json(value), Default::default(), ResultSource::Otherwise),
            None => {
                let time = ask.deadline.unwrap_or_default();
                let message = format!("nobody answered node `{}` within {time:?}", step.visit.node);
                self.failed(step, failure(FailureCode::NoAnswer, message));
            }
        }
    }
}

fn understood(answer: Answer, schema: Option<&Schema>) -> Result<Output, String> {
    match (answer, schema) {
        (Answer::Text(text), None) => Ok(Output::text(text)),
        (Answer::Json(_), None) => Err("the step has no schema: its answer is text".to_owned()),
        (Answer::Text(text), Some(schema)) => {
            let value = Value::String(text);
            schema.check(&value).map_err(|e| format!("the text does not satisfy the step's schema: {e}"))?;
            Ok(Output::json(value))
        }
        (Answer::Json(value), Some(schema)) => {
            schema.check(&value).map_err(|e| format!("it does not satisfy the step's schema: {e}"))?;
            Ok(Output::json(value))
        }
    }
}
