//! What is known of a set of candidates before any question is asked.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use artel_roles::{Model, Routing};
use artel_task::event::{Code, Failure, Signal};

use super::keyword::Keywords;
use super::label::Labels;
use super::linear::Linear;
use super::nearest::{Vector, Vectors, embed};
use super::{Candidate, Keepers, Question, needs_vectors};
use crate::report::failure;

/// Embedded texts that are kept: all examples of some hundred roles.
const MAX_VECTORS: usize = 32_768;
/// Sets of candidates that are kept: the routers of a catalog, and those of one before it.
const MAX_SETS: usize = 16;
/// Texts that are embedded at once: between two chunks a decision that nobody waits for is given up, and others go on.
const CHUNK: usize = 16;

/// A set of candidates.
pub(super) struct Prepared {
    pub(super) candidates: Vec<Candidate>,
    routing: Arc<Routing>,
    model: Arc<Model>,
    pub(super) keywords: Keywords,
    /// If they are needed.
    pub(super) vectors: Option<Vectors>,
    pub(super) labels: Labels,
}

impl Prepared {
    fn fits(&self, question: &Question, embedded: bool) -> bool {
        let same = |(one, other): (&Candidate, &Candidate)| one.is(other);
        self.candidates.len() == question.candidates.len()
            && (self.vectors.is_some() || !embedded)
            && self.model == question.model
            && self.labels.model() == question.label.as_ref()
            && (Arc::ptr_eq(&self.routing, &question.routing) || self.routing.background == question.routing.background)
            && self.candidates.iter().zip(&question.candidates).all(same)
    }
}

/// What a router has learned.
#[derive(Default)]
pub(crate) struct Memory {
    sets: Mutex<Vec<Arc<Prepared>>>,
    vectors: Mutex<Known>,
    learning: tokio::sync::Mutex<()>,
}

/// Vectors of texts, by one model: another model's would mean nothing beside them.
#[derive(Default)]
struct Known {
    model: Option<Arc<Model>>,
    vectors: HashMap<String, Vector>,
}

impl Memory {
    /// What is known of the candidates, and the tokens that it took to learn what was not. One question learns at a time:
    /// those that come meanwhile find what it learned.
    pub(super) async fn prepare(
        &self,
        question: &Question,
        asked: &[Signal],
        keepers: &Keepers,
        wanted: impl Fn() -> bool,
    ) -> Result<(Arc<Prepared>, u32), Failure> {
        let embedded = needs_vectors(asked);
        if let Some(found) = self.find(question, embedded) {
            return Ok((found, 0));
        }
        let _learning = self.learning.lock().await;
        if let Some(found) = self.find(question, embedded) {
            return Ok((found, 0));
        }
        let mut tokens = 0;
        let known = match embedded {
            true => Some(self.learn(question, keepers, wanted, &mut tokens).await?),
            false => None,
        };
        let (candidates, routing) = (question.candidates.clone(), question.routing.clone());
        let (model, label) = (question.model.clone(), question.label.clone());
        // Some ten milliseconds of arithmetic, which would hold up the others on this thread.
        let prepared = tokio::task::spawn_blocking(move || {
            let vectors = known.map(|known| gather(&candidates, &routing, &known));
            let (keywords, labels) = (Keywords::of(&candidates), Labels::of(&candidates, label));
            Arc::new(Prepared { candidates, routing, model, keywords, vectors, labels })
        });
        let prepared =
            prepared.await.map_err(|e| failure(Code::Internal, format!("learning the roles failed: {e}")))?;
        let mut sets = self.sets();
        if sets.len() >= MAX_SETS {
            sets.remove(0);
        }
        sets.push(prepared.clone());
        Ok((prepared, tokens))
    }

    /// What was used last goes last.
    fn find(&self, question: &Question, embedded: bool) -> Option<Arc<Prepared>> {
        let mut sets = self.sets();
        let at = sets.iter().position(|prepared| prepared.fits(question, embedded))?;
        let found = sets.remove(at);
        sets.push(found.clone());
        Some(found)
    }

    /// The vectors of all texts of the candidates and of the background.
    async fn learn(
        &self,
        question: &Question,
        keepers: &Keepers,
        wanted: impl Fn() -> bool,
        tokens: &mut u32,
    ) -> Result<HashMap<String, Vector>, Failure> {
        let texts = question.candidates.iter().flat_map(Candidate::texts).chain(&question.routing.background);
        let texts: BTreeSet<&String> = texts.collect();
        let mut known: HashMap<String, Vector> = {
            let mut vectors = self.vectors();
            vectors.be_of(&question.model);
            texts.iter().filter_map(|text| Some(((*text).clone(), vectors.vectors.get(*text)?.clone()))).collect()
        };
        let missing: Vec<&String> = texts.into_iter().filter(|text| !known.contains_key(*text)).collect();
        for texts in missing.chunks(CHUNK) {
            if !wanted() {
                return Err(failure(Code::Timeout, "nobody waits for the decision any more"));
            }
            let embedded = embed(&keepers.embedding, texts.iter().map(|text| (*text).clone()).collect()).await?;
            *tokens += embedded.tokens;
            let mut vectors = self.vectors();
            for (text, vector) in texts.iter().zip(embedded.vectors) {
                let vector: Vector = vector.into();
                known.insert((*text).clone(), vector.clone());
                vectors.vectors.insert((*text).clone(), vector);
            }
        }
        Ok(known)
    }

    fn sets(&self) -> MutexGuard<'_, Vec<Arc<Prepared>>> {
        self.sets.lock().expect("nothing panics while it holds the sets")
    }

    fn vectors(&self) -> MutexGuard<'_, Known> {
        self.vectors.lock().expect("nothing panics while it holds the vectors")
    }
}

impl Known {
    /// Forgets what another model said, and everything when it has become too much.
    fn be_of(&mut self, model: &Arc<Model>) {
        if self.model.as_ref() != Some(model) || self.vectors.len() > MAX_VECTORS {
            *self = Self { model: Some(model.clone()), vectors: HashMap::new() };
        }
    }
}

fn gather(candidates: &[Candidate], routing: &Routing, known: &HashMap<String, Vector>) -> Vectors {
    let of = |text: &String| known.get(text).cloned();
    let background: Vec<Vector> = routing.background.iter().filter_map(of).collect();
    let candidates: Vec<Vec<Vector>> = candidates.iter().map(|c| c.texts().filter_map(of).collect()).collect();
    let classes: Vec<&[Vector]> = candidates.iter().chain([&background]).map(Vec::as_slice).collect();
    let linear = Linear::fit(&classes);
    Vectors { candidates, background, linear }
}
