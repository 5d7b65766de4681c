//! What engines compute for the router: the embeddings of texts, and the log-probabilities of names.

use artel_engine::request::{ChatRole, ContextOverflow, Message, Priority, SamplingParams};
use artel_engine::{Embeddings, EngineHandle, Error as EngineError, RequestOrigin};
use artel_hosting::engine_host;
use artel_router::LabelPrompt;
use artel_task::event::{Failure, FailureCode};
use ractor::{ActorRef, call};
use tokio::sync::OnceCell;

/// How often an engine is asked for the same: again only if it ended.
const MAX_ATTEMPTS: u32 = 2;

/// The embeddings of these texts, in their order.
pub(super) async fn embed(host: &ActorRef<engine_host::Message>, texts: Vec<String>) -> Result<Embeddings, Failure> {
    let embed = |engine: EngineHandle| {
        let texts = texts.clone();
        async move { engine.embed(texts).await }
    };
    let embedded = on_engine(host, embed).await?;
    embedded
        .map_err(|e| Failure::new(FailureCode::ModelUnavailable, format!("failed to embed texts for the router: {e}")))
}

/// Does something with the engine of a host. Once more if the engine ends meanwhile, since the request is not at fault: a
/// decision that holds up others needs no retry of its own for an engine that was killed. How long an engine may take is known to
/// the daemon's watch over it, which ends one that hangs.
async fn on_engine<T, F: Future<Output = Result<T, EngineError>>>(
    host: &ActorRef<engine_host::Message>,
    compute: impl Fn(EngineHandle) -> F,
) -> Result<F::Output, Failure> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let engine = engine_host::lease_or_failure(call!(host, engine_host::Message::Acquire))?;
        let result = compute(EngineHandle::clone(&engine)).await;
        engine.note(&result);
        match result {
            Err(EngineError::Ended(reason)) if attempts < MAX_ATTEMPTS => {
                tracing::warn!(reason, "an engine ended while it computed for the router; it is asked again");
            }
            result => return Ok(result),
        }
    }
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
    let message = |speaker, text: String| Message { role: speaker, text: text.trim().to_owned() };
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
        // The names and descriptions of the candidates.
        has_fixed_prefix: true,
        template_kwargs: std::sync::Arc::default(),
        reasoning: artel_engine::ReasoningParams::default(),
    };
    let labels = prompt.labels();
    let score = |engine: EngineHandle| {
        let (request, labels) = (request.clone(), labels.to_vec());
        async move { engine.score_labels(request, labels).await }
    };
    let choice = on_engine(host, score).await?;
    let choice = choice.map_err(|e| {
        Failure::new(FailureCode::ModelUnavailable, format!("failed to score the router's labels: {e}"))
    })?;
    Ok((choice.scores, choice.usage.computed))
}
