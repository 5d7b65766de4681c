//! Questions to people: they are asked, answered, and expire.
//!
//! Deadlines are wall time, which people read and which goes on while the daemon is down; everything else in a run is measured
//! with its own clock.

use std::time::Duration;

use artel_task::event::{Failure, FailureCode, Output, ResultSource, Timestamp};
use artel_task::graph::{AskNode, NodeKind};
use artel_task::{EventKind, Phase, StepId};
use serde_json::Value;

use super::running_task::RunningTask;
use crate::answer::{Answer, AnswerRejection};

impl RunningTask {
    pub(super) fn ask_person(&mut self, step: &StepId, ask: &AskNode) {
        let question = match self.message_of(&step.visit).map(|template| template.render(&self.context(step))) {
            Some(Ok(question)) => question,
            Some(Err(e)) => return self.step_failed(step, Self::bad_template(step, &e)),
            None => return self.step_failed(step, Failure::new(FailureCode::Internal, "the question is missing")),
        };
        let now = self.wall_time().0;
        let until = |time: Duration| Timestamp(now.saturating_add(time.as_millis() as u64));
        let (schema, deadline) = (ask.schema.clone(), ask.deadline.map(until));
        self.record(EventKind::Waiting { step: step.clone(), question, schema, deadline });
    }

    pub(super) async fn answer(&mut self, step: Option<StepId>, answer: Answer) -> Result<(), AnswerRejection> {
        // A deadline that has passed is applied first, even if its timer has not fired yet.
        if !self.advance().await {
            return Err(AnswerRejection::Suspended);
        }
        if self.task.phase != Phase::Running {
            return Err(AnswerRejection::NotWaiting);
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
        let output = answer.parse(schema).map_err(AnswerRejection::Invalid)?;
        self.finish(&step, output, Default::default(), ResultSource::Person);
        if self.advance().await { Ok(()) } else { Err(AnswerRejection::Suspended) }
    }

    /// No answer came before the deadline.
    pub(super) fn expire(&mut self, step: &StepId) {
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
                self.step_failed(step, Failure::new(FailureCode::NoAnswer, message));
            }
        }
    }
}
