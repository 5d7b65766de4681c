//! The router: which role, or which graph, a question belongs to.
//!
//! Candidates are scored, never generated: whatever a question says, the winner is one of them. Each [`Signal`] gives every
//! candidate a number, and "none of them" too; [`RouterSettings::probabilities`] turns the numbers into probabilities, of which the winner's is
//! the confidence. Nothing is learned for a single role, so that a new one is routable at once.
//!
//! | signal | what it says of a candidate | module |
//! |---|---|---|
//! | `rule` | whether its `when` holds; those for which it does leave the others no chance | here |
//! | `embedding` | the mean cosine of its three nearest texts | [`nearest`] |
//! | `linear` | a ridge regression over the embeddings of all texts, solved in closed form | [`linear`] |
//! | `keyword` | BM25 over its description, examples and keywords | [`keyword`] |
//! | `label` | the log-probability of its name, without that after a question that says nothing | [`label`] |

mod kept;
mod keyword;
mod label;
mod linear;
mod nearest;
mod prepared;
mod said;

use std::sync::Arc;
use std::time::Instant;

use artel_roles::{Catalog, Model, Role, RouterSettings, CandidateProfile, routing};
use artel_task::RoleName;
use artel_task::event::{FailureCode, Decision, Failure, NoMatch, CandidateScore, Signal};
use artel_task::graph::RouterNode as Node;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::keeper;
use crate::report::failure;
use prepared::{Memory, Prepared};

pub(crate) use kept::Kept;
use said::Said;

/// Characters of a question that are looked at: about what an embedding model's context holds.
const MAX_QUESTION: usize = 4_000;

/// Decides; each decision runs in a task of its own, so that none waits for another.
pub(crate) struct Router;

pub(crate) struct State {
    memory: Arc<Memory>,
    /// What is learned before anybody asks.
    ahead: Option<AbortOnDropHandle<()>>,
}

/// What a router is asked.
pub(crate) enum Message {
    /// Answers with a decision, made with the engines of these keepers.
    Decide(Box<Question>, Keepers, RpcReplyPort<Result<Decision, Failure>>),
    /// Learns the candidates of these questions before anybody asks, in place of those it was told before, while no task is
    /// busy.
    Learn(Vec<(Question, Keepers)>, watch::Receiver<usize>),
    /// Panic, as a fault of ours would.
    #[cfg(test)]
    Panic,
}

/// Who keeps the engines that a decision needs.
#[derive(Clone)]
pub(crate) struct Keepers {
    pub(crate) embedding: ActorRef<keeper::Message>,
    /// That of the model which [`Question::label`] names.
    pub(crate) label: Option<ActorRef<keeper::Message>>,
}

/// A question and who may take it.
pub(crate) struct Question {
    pub(crate) text: String,
    /// At least one.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) confidence: f64,
    pub(crate) otherwise: Option<RoleName>,
    /// How many are chosen; 0 means one, of which no list is made.
    pub(crate) best: u32,
    /// What the signals are worth.
    pub(crate) routing: Arc<RouterSettings>,
    /// The signals to ask, if not those that `routing` weighs.
    pub(crate) signals: Vec<Signal>,
    /// What compares texts.
    pub(crate) model: Arc<Model>,
    /// What scores labels, if that signal is asked.
    pub(crate) label: Option<Arc<Model>>,
}

/// Who may take a question.
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

    /// What is compared with questions.
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

    /// Whether its own rule gives it this text. A rule that fails on the text does not hold: nobody waits for a person
    /// to mend it.
    fn claims(&self, text: &str) -> bool {
        let Self::Role(role) = self else { return false };
        let Some(when) = &role.when else { return false };
        routing::rule_matches(when, text).unwrap_or_else(|error| {
            tracing::warn!(role = %role.name, %error, "a rule was passed over");
            false
        })
    }

    /// Whether both are the same definition of the same catalog, or graphs that say the same.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Role(one), Self::Role(other)) => Arc::ptr_eq(one, other) || one == other,
            (Self::Graph(one, about), Self::Graph(other, same)) => one == other && about == same,
            _ => false,
        }
    }
}

impl Question {
    /// What a router node asks about a text; `None` if the catalog has no model that compares texts.
    pub(crate) fn of(text: String, candidates: Vec<Candidate>, node: &Node, catalog: &Catalog) -> Option<Self> {
        let routing = catalog.router_settings(node.settings.as_ref());
        let listens = |signal: &Signal| *signal == Signal::Label;
        let labels = if node.signals.is_empty() {
            routing.signals.keys().any(listens)
        } else {
            node.signals.iter().any(listens)
        };
        let label = routing.label_model.as_ref().filter(|_| labels);
        Some(Self {
            text,
            candidates,
            confidence: node.confidence,
            otherwise: node.otherwise.clone(),
            best: node.best,
            label: label.and_then(|name| catalog.model(name.as_str()).cloned()),
            routing,
            signals: node.signals.clone(),
            model: catalog.embedding_model()?.clone(),
        })
    }

    /// The signals that are asked, rules aside.
    fn asked(&self) -> Vec<Signal> {
        let own = || self.routing.signals.keys().copied().collect();
        let asked: Vec<Signal> = if self.signals.is_empty() { own() } else { self.signals.clone() };
        let can = |signal: &Signal| match signal {
            Signal::Rule => false,
            Signal::Label => self.label.is_some(),
            _ => true,
        };
        asked.into_iter().filter(can).collect()
    }

    /// Whether rules are listened to: always, unless signals were named and rules were not.
    fn has_rules(&self) -> bool {
        self.signals.is_empty() || self.signals.contains(&Signal::Rule)
    }
}

impl Actor for Router {
    type Msg = Message;
    type State = State;
    type Arguments = Option<Arc<Kept>>;

    async fn pre_start(&self, _: ActorRef<Message>, kept: Self::Arguments) -> Result<State, ActorProcessingErr> {
        Ok(State { memory: Arc::new(Memory::new(kept)), ahead: None })
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Decide(question, keepers, reply) => {
                let memory = state.memory.clone();
                let asking = memory.asking();
                tokio::spawn(async move {
                    let _asking = asking;
                    let decision = decide(*question, &keepers, &memory, || !reply.is_closed()).await;
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(decision);
                });
            }
            Message::Learn(questions, busy) => {
                let learning = tokio::spawn(state.memory.clone().learn_ahead(questions, busy));
                state.ahead = Some(AbortOnDropHandle::new(learning));
            }
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

async fn decide(
    question: Question,
    keepers: &Keepers,
    memory: &Memory,
    wanted: impl Fn() -> bool,
) -> Result<Decision, Failure> {
    let began = Instant::now();
    if question.candidates.is_empty() {
        return Err(failure(FailureCode::Router, "there is no candidate"));
    }
    let text: String = question.text.chars().take(MAX_QUESTION).collect();
    let asked = question.asked();
    let (prepared, learned) = memory.prepare(&question, &asked, keepers, wanted).await?;
    let mut tokens = learned;
    let mut said = listen(&prepared, &text, &asked, keepers, &mut tokens).await?;
    if question.has_rules() {
        let claims = question.candidates.iter().map(|candidate| candidate.claims(&text)).collect();
        said.claim(claims);
    }
    Ok(Decision { warmup_tokens: learned, ..conclude(&question, &asked, &said, tokens, began) })
}

/// What every signal that is asked says of every candidate.
async fn listen(
    prepared: &Prepared,
    text: &str,
    asked: &[Signal],
    keepers: &Keepers,
    tokens: &mut u32,
) -> Result<Said, Failure> {
    let mut said = Said::of(prepared.candidates.len());
    if asked.contains(&Signal::Keyword) {
        said.add(Signal::Keyword, prepared.keywords.scores(text), 0.0);
    }
    if let Some(vectors) = &prepared.vectors
        && needs_vectors(asked)
    {
        let embedded = nearest::embed(&keepers.embedding, vec![text.to_owned()]).await?;
        *tokens += embedded.tokens;
        let vector = &embedded.vectors[0];
        if asked.contains(&Signal::Embedding) {
            let (candidates, nobody) = vectors.nearest(vector);
            said.add(Signal::Embedding, candidates, nobody);
        }
        if asked.contains(&Signal::Linear)
            && let Some(linear) = &vectors.linear
        {
            let mut scores = linear.scores(vector);
            let nobody = scores.pop().unwrap_or_default();
            said.add(Signal::Linear, scores, nobody);
        }
    }
    if asked.contains(&Signal::Label)
        && let Some(keeper) = &keepers.label
    {
        let (mut scores, computed) = prepared.labels.scores(keeper, text).await?;
        *tokens += computed;
        let nobody = scores.pop().unwrap_or_default();
        said.add(Signal::Label, scores, nobody);
    }
    Ok(said)
}

/// Whether the question must be embedded.
fn needs_vectors(asked: &[Signal]) -> bool {
    asked.iter().any(|signal| matches!(signal, Signal::Embedding | Signal::Linear))
}

fn conclude(question: &Question, asked: &[Signal], said: &Said, tokens: u32, began: Instant) -> Decision {
    let (chances, nobody) = question.routing.probabilities(asked, &said.candidates, &said.nobody);
    let name = |at: usize| question.candidates[at].name().clone();
    let mut order: Vec<usize> = (0..chances.len()).collect();
    // Candidates of equal chances keep their order.
    order.sort_by(|a, b| chances[*b].total_cmp(&chances[*a]));
    let ranked: Vec<RoleName> = order.iter().map(|at| name(*at)).collect();
    let scores =
        order.iter().map(|at| CandidateScore { role: name(*at), score: chances[*at], signals: said.candidates[*at].clone() });
    let best = chances[order[0]];
    let margin = best - order.get(1).map_or(nobody, |second| chances[*second]);
    let (role, otherwise) = match &question.otherwise {
        Some(role) if best < question.confidence => (role.clone(), true),
        _ => (ranked[0].clone(), false),
    };
    let signal = match (said.claimed(), asked) {
        (1, _) => Signal::Rule.to_string(),
        (0, [alone]) => alone.to_string(),
        _ => "combined".to_owned(),
    };
    Decision {
        roles: several(&role, &ranked, question.best),
        role,
        graphs: matches!(question.candidates[0], Candidate::Graph(..)),
        confidence: best,
        margin,
        otherwise,
        signal,
        scores: scores.collect(),
        no_match: Some(NoMatch { score: nobody, signals: said.nobody.clone() }),
        elapsed: began.elapsed(),
        tokens,
        warmup_tokens: 0,
    }
}

/// The several best, whoever was chosen first: always as many as were asked for, so that every branch has its role.
fn several(first: &RoleName, ranked: &[RoleName], best: u32) -> Vec<RoleName> {
    if best == 0 {
        return Vec::new();
    }
    let others = ranked.iter().filter(|role| *role != first);
    std::iter::once(first).chain(others).take(best as usize).cloned().collect()
}

#[cfg(test)]
mod tests;
