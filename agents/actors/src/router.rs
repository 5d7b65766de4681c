//! The router: decides which role, or which graph, answers a question.
//!
//! Candidates are scored, never generated: whatever the question, the winner is one of them. Each [`Signal`] scores every
//! candidate and "no match"; [`RouterSettings::probabilities`] turns the scores into probabilities, of which the winner's is the confidence.
//! Nothing is trained for a single role, so that a new one is routable at once.
//!
//! | signal | score of a candidate | module |
//! |---|---|---|
//! | `rule` | whether its `when` holds; then candidates without such a rule have no chance | here |
//! | `embedding` | the mean cosine of its three nearest texts | [`nearest`] |
//! | `linear` | a ridge regression over the embeddings of all texts, solved in closed form | [`linear`] |
//! | `keyword` | BM25 over its description, examples and keywords | [`keyword`] |
//! | `label` | the log-probability of its name, less that after a content-free question | [`label`] |

mod candidate_index;
mod embedding_cache;
mod keyword;
mod label;
mod linear;
mod nearest;
mod signal_scores;

use std::sync::Arc;
use std::time::Instant;

use artel_roles::{CandidateProfile, Catalog, Model, Role, RouterSettings, routing};
use artel_task::RoleName;
use artel_task::event::{CandidateScore, Decision, Failure, FailureCode, NoMatch, Signal};
use artel_task::graph::RouterNode as Node;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::completion::failure;
use crate::engine_host;
use candidate_index::{CandidateIndex, CandidateSet};

pub(crate) use embedding_cache::EmbeddingCache;
use signal_scores::SignalScores;

/// Characters of a question that are read: about what the context of an embedding model holds.
const MAX_QUESTION_CHARS: usize = 4_000;

/// Decides; each decision runs in a task of its own, so that none waits for another.
pub(crate) struct Router;

pub(crate) struct State {
    index: Arc<CandidateIndex>,
    warmup: Option<AbortOnDropHandle<()>>,
}

/// The messages to the router.
pub(crate) enum Message {
    /// Answers with a decision, made with these engines.
    Decide(Box<RoutingRequest>, RouterEngines, RpcReplyPort<Result<Decision, Failure>>),
    /// Indexes the candidates of these requests while no task is busy, in place of the previous list.
    WarmUp(Vec<(RoutingRequest, RouterEngines)>, watch::Receiver<usize>),
    /// Panics, as a bug would.
    #[cfg(test)]
    Panic,
}

/// The hosts of the engines that a decision needs.
#[derive(Clone)]
pub(crate) struct RouterEngines {
    pub(crate) embedding: ActorRef<engine_host::Message>,
    /// That of [`RoutingRequest::label_model`].
    pub(crate) label: Option<ActorRef<engine_host::Message>>,
}

/// A question, its candidates and how to choose among them.
pub(crate) struct RoutingRequest {
    pub(crate) text: String,
    /// At least one.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) min_confidence: f64,
    /// The role chosen below that confidence.
    pub(crate) fallback: Option<RoleName>,
    /// How many candidates are chosen; 0 means one, without a list in the decision.
    pub(crate) top_k: u32,
    /// The weights of the signals.
    pub(crate) routing: Arc<RouterSettings>,
    /// The signals to use, if not those that `routing` weighs.
    pub(crate) signals: Vec<Signal>,
    pub(crate) embedding_model: Arc<Model>,
    /// The model that scores labels, if that signal is used.
    pub(crate) label_model: Option<Arc<Model>>,
}

/// A role or graph that may be chosen.
#[derive(Debug, Clone)]
pub(crate) enum Candidate {
    Role(Arc<Role>),
    /// A graph, by its name, which has the form of a role's.
    Graph(RoleName, Arc<CandidateProfile>),
}

impl Candidate {
    pub(crate) fn name(&self) -> &RoleName {
        match self {
            Self::Role(role) => &role.name,
            Self::Graph(name, _) => name,
        }
    }

    fn description(&self) -> &String {
        match self {
            Self::Role(role) => &role.description,
            Self::Graph(_, topic) => &topic.description,
        }
    }

    /// The texts that are compared with questions.
    fn texts(&self) -> impl Iterator<Item = &String> {
        let examples = match self {
            Self::Role(role) => &role.examples,
            Self::Graph(_, topic) => &topic.examples,
        };
        std::iter::once(self.description()).chain(examples)
    }

    fn keywords(&self) -> &[String] {
        match self {
            Self::Role(role) => &role.keywords,
            Self::Graph(_, topic) => &topic.keywords,
        }
    }

    /// Whether its own rule matches this text. A rule whose evaluation fails does not match: no task waits until the rule is
    /// repaired.
    fn rule_matches(&self, text: &str) -> bool {
        let Self::Role(role) = self else { return false };
        let Some(when) = &role.when else { return false };
        routing::rule_matches(when, text).unwrap_or_else(|error| {
            tracing::warn!(role = %role.name, %error, "failed to evaluate the rule of a role: it does not match");
            false
        })
    }

    /// Whether both are the same definition of the same catalog, or graphs of equal name and topic.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Role(one), Self::Role(other)) => Arc::ptr_eq(one, other) || one == other,
            (Self::Graph(one, topic), Self::Graph(other, other_topic)) => one == other && topic == other_topic,
            _ => false,
        }
    }
}

impl RoutingRequest {
    /// The request of a router node for a text; `None` if the catalog has no embedding model.
    pub(crate) fn for_node(text: String, candidates: Vec<Candidate>, node: &Node, catalog: &Catalog) -> Option<Self> {
        let routing = catalog.router_settings(node.settings.as_ref());
        let is_label = |signal: &Signal| *signal == Signal::Label;
        let uses_labels = if node.signals.is_empty() {
            routing.signals.keys().any(is_label)
        } else {
            node.signals.iter().any(is_label)
        };
        let label_model = routing.label_model.as_ref().filter(|_| uses_labels);
        Some(Self {
            text,
            candidates,
            min_confidence: node.confidence,
            fallback: node.otherwise.clone(),
            top_k: node.best,
            label_model: label_model.and_then(|name| catalog.model(name.as_str()).cloned()),
            routing,
            signals: node.signals.clone(),
            embedding_model: catalog.embedding_model()?.clone(),
        })
    }

    /// The signals to score, without rules.
    fn scored_signals(&self) -> Vec<Signal> {
        let weighed = || self.routing.signals.keys().copied().collect();
        let signals: Vec<Signal> = if self.signals.is_empty() { weighed() } else { self.signals.clone() };
        let is_scored = |signal: &Signal| match signal {
            Signal::Rule => false,
            Signal::Label => self.label_model.is_some(),
            _ => true,
        };
        signals.into_iter().filter(is_scored).collect()
    }

    /// Whether rules apply: always, unless signals were named and rules were not.
    fn uses_rules(&self) -> bool {
        self.signals.is_empty() || self.signals.contains(&Signal::Rule)
    }
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
            #[cfg(test)]
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
    if request.candidates.is_empty() {
        return Err(failure(FailureCode::Router, "the router has no candidates"));
    }
    let text: String = request.text.chars().take(MAX_QUESTION_CHARS).collect();
    let signals = request.scored_signals();
    let (set, indexing_tokens) = index.prepare(&request, &signals, engines, is_wanted).await?;
    let mut tokens = indexing_tokens;
    let mut scores = score_signals(&set, &text, &signals, engines, &mut tokens).await?;
    if request.uses_rules() {
        let matches = request.candidates.iter().map(|candidate| candidate.rule_matches(&text)).collect();
        scores.insert_rules(matches);
    }
    Ok(Decision { warmup_tokens: indexing_tokens, ..choose(&request, &signals, &scores, tokens, started) })
}

/// The score of every signal for every candidate.
async fn score_signals(
    set: &CandidateSet,
    text: &str,
    signals: &[Signal],
    engines: &RouterEngines,
    tokens: &mut u32,
) -> Result<SignalScores, Failure> {
    let mut scores = SignalScores::new(set.candidates.len());
    if signals.contains(&Signal::Keyword) {
        scores.insert(Signal::Keyword, set.keywords.scores(text), 0.0);
    }
    if let Some(embeddings) = &set.embeddings
        && needs_embeddings(signals)
    {
        let embedded = nearest::embed(&engines.embedding, vec![text.to_owned()]).await?;
        *tokens += embedded.tokens;
        let question = &embedded.vectors[0];
        if signals.contains(&Signal::Embedding) {
            let (candidates, no_match) = embeddings.similarities(question);
            scores.insert(Signal::Embedding, candidates, no_match);
        }
        if signals.contains(&Signal::Linear)
            && let Some(linear) = &embeddings.linear
        {
            let mut candidates = linear.scores(question);
            let no_match = candidates.pop().unwrap_or_default();
            scores.insert(Signal::Linear, candidates, no_match);
        }
    }
    if signals.contains(&Signal::Label)
        && let Some(host) = &engines.label
    {
        let (mut candidates, computed) = set.labels.scores(host, text).await?;
        *tokens += computed;
        let no_match = candidates.pop().unwrap_or_default();
        scores.insert(Signal::Label, candidates, no_match);
    }
    Ok(scores)
}

/// Whether the question must be embedded.
fn needs_embeddings(signals: &[Signal]) -> bool {
    signals.iter().any(|signal| matches!(signal, Signal::Embedding | Signal::Linear))
}

fn choose(
    request: &RoutingRequest,
    signals: &[Signal],
    scores: &SignalScores,
    tokens: u32,
    started: Instant,
) -> Decision {
    let (chances, no_match) = request.routing.probabilities(signals, &scores.candidates, &scores.no_match);
    let name = |at: usize| request.candidates[at].name().clone();
    let mut order: Vec<usize> = (0..chances.len()).collect();
    // The sort is stable: candidates of equal chances keep their order.
    order.sort_by(|a, b| chances[*b].total_cmp(&chances[*a]));
    let ranked: Vec<RoleName> = order.iter().map(|at| name(*at)).collect();
    let ranked_scores = order.iter().map(|at| CandidateScore {
        role: name(*at),
        score: chances[*at],
        signals: scores.candidates[*at].clone(),
    });
    let confidence = chances[order[0]];
    let margin = confidence - order.get(1).map_or(no_match, |second| chances[*second]);
    let (role, otherwise) = match &request.fallback {
        Some(role) if confidence < request.min_confidence => (role.clone(), true),
        _ => (ranked[0].clone(), false),
    };
    let signal = match (scores.matched_rules(), signals) {
        (1, _) => Signal::Rule.to_string(),
        (0, [alone]) => alone.to_string(),
        _ => "combined".to_owned(),
    };
    Decision {
        roles: top_roles(&role, &ranked, request.top_k),
        role,
        graphs: matches!(request.candidates[0], Candidate::Graph(..)),
        confidence,
        margin,
        otherwise,
        signal,
        scores: ranked_scores.collect(),
        no_match: Some(NoMatch { score: no_match, signals: scores.no_match.clone() }),
        elapsed: started.elapsed(),
        tokens,
        warmup_tokens: 0,
    }
}

/// The `top_k` best roles, the chosen one first: always as many as requested, so that every branch has its role.
fn top_roles(first: &RoleName, ranked: &[RoleName], top_k: u32) -> Vec<RoleName> {
    if top_k == 0 {
        return Vec::new();
    }
    let others = ranked.iter().filter(|role| *role != first);
    std::iter::once(first).chain(others).take(top_k as usize).cloned().collect()
}

#[cfg(test)]
mod tests;
