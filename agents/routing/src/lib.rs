//! The router actor: has engines compute what a question needs, and lets [`artel_router`] decide.
//!
//! For a question it finds or makes the index of the candidates (their embeddings come from memory, from the cache on disk
//! or from the embedding engine), has the question embedded and the labels scored, and asks the policy for the decision. How
//! it decides is known to [`artel_router`] alone; which engines there are, to those that send the [`Message`]s.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod candidate;
mod candidate_index;
mod embedding_cache;
mod engine_evidence;
mod message;
mod request;

use std::sync::Arc;

use artel_engine::PooledTexts;
use artel_roles::Model;
use artel_router::{QuestionEvidence, needs_embeddings, truncate_question};
use artel_task::RoleName;
use artel_task::event::{Decision, Failure, FailureCode, Signal};
use artel_traces::{RequestSpan, SpanAttributes};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use candidate_index::{CandidateIndex, CandidateSet};

pub use candidate::Candidate;
pub use embedding_cache::{EmbeddingCache, model_fingerprint};
pub use message::Message;
pub use request::{RouterEngines, RoutingRequest};

/// Decides; each decision runs in a task of its own, so that none waits for another.
pub struct Router;

/// What it remembers between questions.
pub struct State {
    index: Arc<CandidateIndex>,
    warmup: Option<AbortOnDropHandle<()>>,
}

impl Actor for Router {
    type Msg = Message;
    type State = State;
    type Arguments = Option<Arc<EmbeddingCache>>;

    async fn pre_start(&self, _: ActorRef<Message>, cache: Self::Arguments) -> Result<State, ActorProcessingErr> {
        Ok(State { index: Arc::new(CandidateIndex::new(cache)), warmup: None })
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Decide(request, engines, reply) => {
                let index = state.index.clone();
                let guard = index.begin_decision();
                tokio::spawn(async move {
                    let _guard = guard;
                    let decision = decide(*request, &engines, &index, || !reply.is_closed()).await;
                    // The caller may have stopped waiting.
                    let _ = reply.send(decision);
                });
            }
            Message::WarmUp(requests, busy) => {
                let warmup = tokio::spawn(state.index.clone().warm_up(requests, busy));
                state.warmup = Some(AbortOnDropHandle::new(warmup));
            }
            #[cfg(feature = "test-panics")]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

async fn decide(
    request: RoutingRequest,
    engines: &RouterEngines,
    index: &CandidateIndex,
    is_wanted: impl Fn() -> bool,
) -> Result<Decision, Failure> {
    let started = Instant::now();
    let no_candidates = || Failure::new(FailureCode::Router, "the router has no candidates");
    if request.candidates.is_empty() {
        return Err(no_candidates());
    }
    let text = truncate_question(&request.text);
    let signals = request.scored_signals();
    let (set, warmup_tokens) = index.prepare(&request, &signals, engines, is_wanted).await?;
    let (evidence, tokens) = question_evidence(&request, &set, &signals, engines).await?;
    let mut scores = set.index.scores(text, &signals, &evidence);
    if request.policy.uses_rules() {
        let matches: Vec<bool> = request.candidates.iter().map(|candidate| candidate.rule_matches(text)).collect();
        scores.insert_rules(&matches);
    }
    let names: Vec<&RoleName> = request.candidates.iter().map(Candidate::name).collect();
    let decision = request.policy.decide(&names, &signals, &scores).ok_or_else(no_candidates)?;
    Ok(Decision {
        graphs: request.candidates[0].is_graph(),
        elapsed: Instant::now().duration_since(started),
        tokens: warmup_tokens + tokens,
        warmup_tokens,
        ..decision
    })
}

/// What engines compute about a question for these signals, and the number of tokens computed.
async fn question_evidence(
    request: &RoutingRequest,
    set: &CandidateSet,
    signals: &[Signal],
    engines: &RouterEngines,
) -> Result<(QuestionEvidence, u32), Failure> {
    let text = truncate_question(&request.text);
    let (mut evidence, mut tokens) = (QuestionEvidence::default(), 0);
    let span =
        |operation, model: &Model| Some(RequestSpan::begin(request.trace.as_ref()?, operation, model.name.as_str()));
    if needs_embeddings(signals) {
        let span = span("embeddings", &request.embedding_model);
        let embedded =
            engine_evidence::embed(&engines.embedding, vec![request.embedding_model.prefixes.query_text(text)]).await;
        end_span(span, embedded.as_ref().map(PooledTexts::total_tokens));
        let embedded = embedded?;
        tokens += embedded.total_tokens();
        evidence.embedding = embedded.vectors.into_iter().next();
    }
    if signals.contains(&Signal::Label)
        && let Some((host, model)) = engines.label.as_ref().zip(request.label_model.as_ref())
    {
        let span = span("score_labels", model);
        let scored = set.label_baseline.scores(host, set.index.label_prompt(), text).await;
        end_span(span, scored.as_ref().map(|(_, computed)| *computed));
        let (labels, computed) = scored?;
        tokens += computed;
        evidence.labels = Some(labels);
    }
    Ok((evidence, tokens))
}

/// An engine has computed so many tokens for the router, or failed.
fn end_span(span: Option<RequestSpan>, tokens: Result<u32, &Failure>) {
    match (span, tokens) {
        (Some(span), Ok(tokens)) => span.finish(SpanAttributes::default().integer("gen_ai.usage.input_tokens", tokens)),
        (Some(span), Err(failure)) => span.fail(failure.code),
        (None, _) => {}
    }
}
