//! What engines compute for the router: the embeddings of texts, and the log-probabilities of names.

use artel_engine::request::{ChatRole, ContextOverflow, Message, Priority, SamplingParams};
use artel_engine::{Embeddings, RequestOrigin};
use artel_router::LabelPrompt;
use artel_task::event::{Failure, FailureCode};
use ractor::{ActorRef, call};
use tokio::sync::OnceCell;

use crate::completion::failure;
use crate::engine_host;

/// The embeddings of these texts, in their order.
pub(super) async fn embed(host: &ActorRef<engine_host::Message>, texts: Vec<String>) -> Result<Embeddings, Failure> {
    let engine = engine_host::lease_or_failure(call!(host, engine_host::Message::Acquire))?;
    let embedded = engine.embed(texts).await;
    embedded.map_err(|e| failure(FailureCode::ModelUnavailable, format!("failed to embed texts for the router: {e}")))
}

/// The scores of labels after a content-free question, which are computed with the first question.
#[derive(Default)]
pub(super) struct LabelBaseline(OnceCell<Vec<f64>>);

impl LabelBaseline {
    /// The calibrated score of each label of a prompt, always the same one, and the number of tokens computed.
    pub(super) async fn scores(
        &self,
        host: &ActorRef<engine_host::Message>,
        prompt: &LabelPrompt,
        question: &str,
    ) -> Result<(Vec<f64>, u32), Failure> {
        let mut computed = 0;
        let baseline = self.0.get_or_try_init(|| async {
            let (scores, tokens) = log_probabilities(host, prompt, LabelPrompt::CONTENT_FREE_QUESTION).await?;
            computed += tokens;
            Ok::<_, Failure>(scores)
        });
        let baseline = baseline.await?;
        let (scores, tokens) = log_probabilities(host, prompt, question).await?;
        Ok((LabelPrompt::calibrate(&scores, baseline), computed + tokens))
    }
}

/// The log-probability of each label after a question, and the number of tokens computed.
async fn log_probabilities(
    host: &ActorRef<engine_host::Message>,
    prompt: &LabelPrompt,
    question: &str,
) -> Result<(Vec<f64>, u32), Failure> {
    let engine = engine_host::lease_or_failure(call!(host, engine_host::Message::Acquire))?;
    let message = |speaker, text: String| Message { role: speaker, text };
    let request = artel_engine::Request {
        origin: RequestOrigin::default(),
        flow: "router".into(),
        priority: Priority::Router,
        remaining_steps: 0,
        messages: vec![
            message(ChatRole::System, prompt.system_message().to_owned()),
            message(ChatRole::User, LabelPrompt::user_message(question)),
        ],
        adapter: None,
        // Nothing is sampled.
        sampling: SamplingParams::GREEDY,
        max_tokens: 1,
        stop: Vec::new(),
        schema: None,
        overflow: ContextOverflow::Truncate,
    };
    let choice = engine.score_labels(request, prompt.labels().to_vec()).await;
    let choice = choice
        .map_err(|e| failure(FailureCode::ModelUnavailable, format!("failed to score the router's labels: {e}")))?;
    Ok((choice.scores, choice.usage.computed))
}
