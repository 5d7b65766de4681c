//! The label signal: the log-probability that a chat model gives each candidate's name, in one pass over the question. The list
//! of candidates before it is prefilled once and shared, and the names are scored in parallel, so that nothing is generated.
//!
//! Models favour some names regardless of the question. Contextual calibration (Zhao et al., 2021, "Calibrate Before Use")
//! subtracts the scores after a content-free question.

use std::fmt::Write as _;
use std::sync::Arc;

use artel_engine::request::{ChatRole, ContextOverflow, Message, Priority, SamplingParams};
use artel_roles::Model;
use artel_task::event::{Failure, FailureCode};
use ractor::{ActorRef, call};
use tokio::sync::OnceCell;

use super::Candidate;
use crate::completion::failure;
use crate::engine_host;

/// The content-free question of the calibration.
const CONTENT_FREE_QUESTION: &str = "N/A";
/// The name that stands for "no match".
const NO_MATCH_LABEL: &str = "none";
/// Characters of the list of candidates, which must fit into a context of 4096 tokens with the question.
const LIST_CHARS: usize = 9_000;
/// Characters of one description: its first sentence says the most.
const DESCRIPTION_CHARS: usize = 200;
/// Characters of a question: with the list it must fit into the context.
const QUESTION_CHARS: usize = 2_000;

/// The names of a set of candidates, and the prompt that scores them.
pub(super) struct LabelScorer {
    model: Option<Arc<Model>>,
    list: String,
    names: Vec<String>,
    /// The score of each name after a content-free question.
    baseline: OnceCell<Vec<f64>>,
}

impl LabelScorer {
    pub(super) fn new(candidates: &[Candidate], model: Option<Arc<Model>>) -> Self {
        let line_chars = (LIST_CHARS / candidates.len().max(1)).min(DESCRIPTION_CHARS);
        let mut list = "Name the expert who should answer the question.\nExperts:\n".to_owned();
        for candidate in candidates {
            let description: String = candidate.description().chars().take(line_chars.saturating_sub(8)).collect();
            let _ = writeln!(list, "{}: {}", candidate.name(), description.trim());
        }
        let _ = write!(list, "{NO_MATCH_LABEL}: none of these experts");
        let names = candidates.iter().map(|candidate| candidate.name().to_string());
        let names = names.chain([NO_MATCH_LABEL.to_owned()]).collect();
        Self { model, list, names, baseline: OnceCell::new() }
    }

    pub(super) fn model(&self) -> Option<&Arc<Model>> {
        self.model.as_ref()
    }

    /// The score of each candidate and, last, of "no match": by how much the question raises the log-probability of its name.
    /// Also returns the number of tokens computed.
    pub(super) async fn scores(
        &self,
        host: &ActorRef<engine_host::Message>,
        question: &str,
    ) -> Result<(Vec<f64>, u32), Failure> {
        let mut computed = 0;
        let baseline = self.baseline.get_or_try_init(|| async {
            let (scores, tokens) = self.log_probabilities(host, CONTENT_FREE_QUESTION).await?;
            computed += tokens;
            Ok(scores)
        });
        let baseline = baseline.await?;
        let question: String = question.chars().take(QUESTION_CHARS).collect();
        let (scores, tokens) = self.log_probabilities(host, &question).await?;
        let calibrated = scores.iter().zip(baseline).map(|(score, baseline)| score - baseline).collect();
        Ok((calibrated, computed + tokens))
    }

    /// The log-probability of each name after a question, and the number of tokens computed.
    async fn log_probabilities(
        &self,
        host: &ActorRef<engine_host::Message>,
        question: &str,
    ) -> Result<(Vec<f64>, u32), Failure> {
        let engine = engine_host::lease_or_failure(call!(host, engine_host::Message::Acquire))?;
        let message = |speaker, text: String| Message { role: speaker, text };
        let request = artel_engine::Request {
            flow: "router".into(),
            priority: Priority::Router,
            remaining_steps: 0,
            messages: vec![
                message(ChatRole::System, self.list.clone()),
                message(ChatRole::User, format!("Question: {question}\nExpert:")),
            ],
            adapter: None,
            // Nothing is sampled.
            sampling: SamplingParams {
                temperature: 0.0,
                top_p: 1.0,
                top_k: 0,
                min_p: 0.0,
                repeat_penalty: 1.0,
                seed: None,
            },
            max_tokens: 1,
            stop: Vec::new(),
            schema: None,
            overflow: ContextOverflow::Truncate,
        };
        let choice = engine.score_labels(request, self.names.clone()).await;
        let choice = choice
            .map_err(|e| failure(FailureCode::ModelUnavailable, format!("failed to score the router's labels: {e}")))?;
        Ok((choice.scores, choice.usage.computed))
    }
}
