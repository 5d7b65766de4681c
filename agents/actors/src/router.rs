//! The router: which role a question belongs to.
//!
//! One signal so far: the cosine similarity between the embedding of the question and those of each candidate's description
//! and examples, from the catalog's embedding model. A role's score is the mean of its two best similarities: one close
//! example is a hint, two are a pattern. The confidence is the winner's score.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use artel_engine::Embedded;
use artel_roles::{Model, Role};
use artel_task::RoleName;
use artel_task::event::{Code, Decision, Failure, Score};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call};

use crate::keeper;
use crate::report::failure;

/// Embedded texts that are kept: all examples of some hundred roles.
const MAX_VECTORS: usize = 16_384;
/// Texts that are embedded at once: between two chunks a decision that nobody waits for is given up, and others go on.
const CHUNK: usize = 8;
/// Characters of a question that are embedded: about what an embedding model's context holds.
const MAX_QUESTION: usize = 4_000;

/// Decides; each decision runs in a task of its own, so that none waits for another.
pub(crate) struct Router;

/// What a router is asked.
pub(crate) enum Message {
    /// Answers with a decision, made with the embedding engine of this keeper.
    Decide(Box<Question>, ActorRef<keeper::Message>, RpcReplyPort<Result<Decision, Failure>>),
    /// Panic, as a fault of ours would.
    #[cfg(test)]
    Panic,
}

/// A question and who may take it.
pub(crate) struct Question {
    pub(crate) text: String,
    /// At least one.
    pub(crate) candidates: Vec<Arc<Role>>,
    pub(crate) confidence: f64,
    pub(crate) otherwise: Option<RoleName>,
    /// What compares them.
    pub(crate) model: Arc<Model>,
}

/// What a router has learned.
#[derive(Default)]
pub(crate) struct Memory {
    vectors: Mutex<Vectors>,
    learning: tokio::sync::Mutex<()>,
}

impl Memory {
    fn vectors(&self) -> MutexGuard<'_, Vectors> {
        self.vectors.lock().expect("nothing panics while it holds the vectors")
    }
}

/// Vectors of texts, by one model: another model's would mean nothing beside them.
#[derive(Default)]
struct Vectors {
    model: Option<Arc<Model>>,
    known: HashMap<String, Arc<[f32]>>,
}

impl Actor for Router {
    type Msg = Message;
    type State = Arc<Memory>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(Self::State::default())
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        memory: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Decide(question, keeper, reply) => {
                let memory = memory.clone();
                tokio::spawn(async move {
                    let decision = decide(*question, &keeper, &memory, || !reply.is_closed()).await;
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(decision);
                });
            }
            #[cfg(test)]
            Message::Panic => panic!("as the test asked"),
        }
        Ok(())
    }
}

async fn decide(
    question: Question,
    keeper: &ActorRef<keeper::Message>,
    memory: &Memory,
    wanted: impl Fn() -> bool,
) -> Result<Decision, Failure> {
    let began = Instant::now();
    let engine = keeper::unwrap(call!(keeper, keeper::Message::Engine))?;
    let (near, learned) = learn(&engine, &question, memory, wanted).await?;
    let asked: String = question.text.chars().take(MAX_QUESTION).collect();
    let embedded = embed(&engine, vec![asked]).await?;
    let scores = rank(&embedded.vectors[0], &question.candidates, &near);
    let best = scores.first().ok_or_else(|| failure(Code::Router, "there is no candidate"))?;
    let unsure = best.score < question.confidence;
    let (role, otherwise) = match &question.otherwise {
        Some(role) if unsure => (role.clone(), true),
        _ => (best.role.clone(), false),
    };
    let (confidence, took, tokens) = (best.score, began.elapsed(), learned + embedded.tokens);
    Ok(Decision { role, confidence, otherwise, signal: "embedding".to_owned(), scores, took, tokens })
}

/// What a role is known by.
fn texts(role: &Role) -> impl Iterator<Item = &String> {
    std::iter::once(&role.description).chain(&role.examples)
}

/// The vectors of each candidate's texts, and the tokens that it took to embed those that were not known. One question
/// learns at a time: those that come meanwhile find what it learned.
async fn learn(
    engine: &artel_engine::Handle,
    question: &Question,
    memory: &Memory,
    wanted: impl Fn() -> bool,
) -> Result<(Vec<Vec<Arc<[f32]>>>, u32), Failure> {
    let _learning = memory.learning.lock().await;
    let all: BTreeSet<&String> = question.candidates.iter().flat_map(|role| texts(role)).collect();
    let mut known: HashMap<&str, Arc<[f32]>> = {
        let mut vectors = memory.vectors();
        vectors.be_of(&question.model);
        all.iter().filter_map(|text| Some((text.as_str(), vectors.known.get(*text)?.clone()))).collect()
    };
    let missing: Vec<&String> = all.into_iter().filter(|text| !known.contains_key(text.as_str())).collect();
    let mut tokens = 0;
    for texts in missing.chunks(CHUNK) {
        if !wanted() {
            return Err(failure(Code::Timeout, "nobody waits for the decision any more"));
        }
        let embedded = embed(engine, texts.iter().map(|text| (*text).clone()).collect()).await?;
        tokens += embedded.tokens;
        let mut vectors = memory.vectors();
        for (text, vector) in texts.iter().zip(embedded.vectors) {
            let vector: Arc<[f32]> = vector.into();
            known.insert(text, vector.clone());
            vectors.known.insert((*text).clone(), vector);
        }
    }
    let of = |role: &Arc<Role>| texts(role).filter_map(|text| known.get(text.as_str()).cloned()).collect();
    Ok((question.candidates.iter().map(of).collect(), tokens))
}

impl Vectors {
    /// Forgets what another model said, and everything when it has become too much.
    fn be_of(&mut self, model: &Arc<Model>) {
        if self.model.as_ref() != Some(model) || self.known.len() > MAX_VECTORS {
            *self = Self { model: Some(model.clone()), known: HashMap::new() };
        }
    }
}

async fn embed(engine: &artel_engine::Handle, texts: Vec<String>) -> Result<Embedded, Failure> {
    engine.embed(texts).await.map_err(|e| failure(Code::ModelUnavailable, format!("embedding failed: {e}")))
}

/// Best first; candidates of equal score keep their order.
fn rank(question: &[f32], roles: &[Arc<Role>], near: &[Vec<Arc<[f32]>>]) -> Vec<Score> {
    let score = |(role, near): (&Arc<Role>, &Vec<Arc<[f32]>>)| Score {
        role: role.name.clone(),
        score: best_two(near.iter().map(|vector| cosine(question, vector))),
    };
    let mut scores: Vec<Score> = roles.iter().zip(near).map(score).collect();
    scores.sort_by(|a, b| b.score.total_cmp(&a.score));
    scores
}

fn best_two(similarities: impl Iterator<Item = f64>) -> f64 {
    let (mut first, mut second) = (0.0f64, None);
    for (at, s) in similarities.map(|s| s.clamp(0.0, 1.0)).enumerate() {
        if at == 0 {
            first = s;
        } else if s > first {
            second = Some(first);
            first = s;
        } else if second.is_none_or(|second| s > second) {
            second = Some(s);
        }
    }
    second.map_or(first, |second| (first + second) / 2.0)
}

/// Both are unit vectors.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_close_examples_beat_one() {
        assert!(best_two([0.1, 0.7, 0.6].into_iter()) > best_two([0.8, 0.1, 0.2].into_iter()));
        assert!((best_two([0.5].into_iter()) - 0.5).abs() < 1e-9);
        assert!(best_two(std::iter::empty()).abs() < 1e-9);
    }
}
