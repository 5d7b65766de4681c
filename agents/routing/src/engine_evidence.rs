//! What engines compute for the router: the embeddings of texts, and the log-probabilities of names.

use artel_engine::request::{ChatRole, ContextOverflow, Message, Priority, SamplingParams};
use artel_engine::{EngineHandle, PooledTexts, PoolingRequest, RequestOrigin};
use artel_hosting::engine_host;
use artel_router::LabelPrompt;
use artel_task::event::Failure;
use ractor::ActorRef;
use tokio::sync::OnceCell;

use artel_hosting::engine_call::on_engine;

/// The embeddings of these texts, in their order.
pub(crate) async fn embed(host: &ActorRef<engine_host::Message>, texts: Vec<String>) -> Result<PooledTexts, Failure> {
    let embed = |engine: EngineHandle| {
        let request = PoolingRequest::of_router(texts.clone());
        async move { engine.pool(request).await }
    };
    on_engine(host, embed).await.map_err(|error| error.into_failure("embed texts for the router"))
}

/// The scores of labels after a content-free question, which are computed with the first question.
#[derive(Default)]
pub(crate) struct LabelBaseline(OnceCell<Vec<f64>>);

impl LabelBaseline {
    /// The calibrated score of each label of a prompt, always the same one, and the number of tokens computed.
    pub(crate) async fn scores(
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
    let message = |speaker, text: String| Message::new(speaker, text.trim());
    let request = artel_engine::Request {
        origin: RequestOrigin::default(),
        flow: "router".into(),
        priority: Priority::Router,
        remaining_steps: 0,
        messages: vec![
            message(ChatRole::System, prompt.system_message().to_owned()),
            message(ChatRole::User, LabelPrompt::user_message(question)),
        ],
        adapters: Vec::new(),
        // Nothing is sampled.
        sampling: SamplingParams::GREEDY,
        logprobs: None,
        shares_prompt: false,
        max_tokens: 1,
        stop: Vec::new(),
        schema: None,
        tools: None,
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
    let choice = on_engine(host, score).await;
    let choice = choice.map_err(|error| error.into_failure("score the router's labels"))?;
    Ok((choice.scores, choice.usage.computed))
}
