//! How likely a chat model thinks each candidate's name, in one pass over the question: the list of candidates before it is
//! computed once and shared, and the names are scored side by side, so that nothing is generated.
//!
//! Models favour some names whatever is asked. Contextual calibration (Zhao et al., 2021, "Calibrate Before Use") takes away
//! what they say after a question without content.

use std::fmt::Write as _;
use std::sync::Arc;

use artel_engine::request::{Priority, Message, ContextOverflow, SamplingParams, ChatRole};
use artel_roles::Model;
use artel_task::event::{FailureCode, Failure};
use ractor::{ActorRef, call};
use tokio::sync::OnceCell;

use super::Candidate;
use crate::keeper;
use crate::report::failure;

/// A question that says nothing.
const NOTHING: &str = "N/A";
/// What stands for nobody among the names.
const NOBODY: &str = "none";
/// Characters of the list of candidates, which must fit into a context of 4096 tokens with the question.
const LIST: usize = 9_000;
/// Characters of one description: its first sentence says the most.
const DESCRIPTION: usize = 200;
/// Characters of a question: with the list it must fit into the context.
const QUESTION: usize = 2_000;

/// The names of a set of candidates.
pub(super) struct Labels {
    model: Option<Arc<Model>>,
    list: String,
    names: Vec<String>,
    /// What each name scores after a question without content.
    floor: OnceCell<Vec<f64>>,
}

impl Labels {
    pub(super) fn of(candidates: &[Candidate], model: Option<Arc<Model>>) -> Self {
        let most = (LIST / candidates.len().max(1)).min(DESCRIPTION);
        let mut list = "Name the expert who should answer the question.\nExperts:\n".to_owned();
        for candidate in candidates {
            let about: String = candidate.description().chars().take(most.saturating_sub(8)).collect();
            let _ = writeln!(list, "{}: {}", candidate.name(), about.trim());
        }
        let _ = write!(list, "{NOBODY}: none of these experts");
        let names = candidates.iter().map(|candidate| candidate.name().to_string());
        let names = names.chain([NOBODY.to_owned()]).collect();
        Self { model, list, names, floor: OnceCell::new() }
    }

    pub(super) fn model(&self) -> Option<&Arc<Model>> {
        self.model.as_ref()
    }

    /// The score of each candidate and, last, of nobody: by how much the question makes its name likelier. And the tokens
    /// that were computed.
    pub(super) async fn scores(
        &self,
        keeper: &ActorRef<keeper::Message>,
        question: &str,
    ) -> Result<(Vec<f64>, u32), Failure> {
        let mut computed = 0;
        let floor = self.floor.get_or_try_init(|| async {
            let (scores, tokens) = self.choose(keeper, NOTHING).await?;
            computed += tokens;
            Ok(scores)
        });
        let floor = floor.await?;
        let question: String = question.chars().take(QUESTION).collect();
        let (scores, tokens) = self.choose(keeper, &question).await?;
        let risen = scores.iter().zip(floor).map(|(score, floor)| score - floor).collect();
        Ok((risen, computed + tokens))
    }

    /// The one place that asks an engine.
    async fn choose(&self, keeper: &ActorRef<keeper::Message>, question: &str) -> Result<(Vec<f64>, u32), Failure> {
        let engine = keeper::unwrap(call!(keeper, keeper::Message::Engine))?;
        let say = |speaker, text: String| Message { role: speaker, text };
        let request = artel_engine::Request {
            flow: "router".into(),
            priority: Priority::Router,
            remaining_steps: 0,
            messages: vec![
                say(ChatRole::System, self.list.clone()),
                say(ChatRole::User, format!("Question: {question}\nExpert:")),
            ],
            adapter: None,
            // Nothing is sampled.
            sampling: SamplingParams { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: None },
            max_tokens: 1,
            stop: Vec::new(),
            schema: None,
            overflow: ContextOverflow::Truncate,
        };
        let choice = engine.score_labels(request, self.names.clone()).await;
        let choice = choice.map_err(|e| failure(FailureCode::ModelUnavailable, format!("scoring labels failed: {e}")))?;
        Ok((choice.scores, choice.usage.computed))
    }
}
