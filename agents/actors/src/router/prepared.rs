//! What is known of a set of candidates before any question is asked.

mod ahead;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use artel_roles::{Model, RouterSettings};
use artel_task::event::{FailureCode, Failure, Signal};
use tokio::sync::watch;

use super::kept::{self, Kept, Owner};
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
/// So many new vectors are worth writing before all are known.
const WORTH_KEEPING: usize = 512;

const SOUND: &str = "nothing panics while it holds the vectors";

/// A set of candidates.
pub(super) struct Prepared {
    pub(super) candidates: Vec<Candidate>,
    routing: Arc<RouterSettings>,
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
pub(crate) struct Memory {
    sets: Mutex<Vec<Arc<Prepared>>>,
    vectors: Arc<Mutex<Known>>,
    learning: tokio::sync::Mutex<()>,
    /// How many questions are being decided: what is learned ahead waits for them.
    asking: watch::Sender<usize>,
    kept: Option<Arc<Kept>>,
}

/// Vectors of texts, by one model: another model's would mean nothing beside them.
#[derive(Default)]
struct Known {
    model: Option<Arc<Model>>,
    /// Whose they are on disk.
    owner: Option<Owner>,
    vectors: HashMap<kept::Text, Vector>,
    /// Those that are not on disk.
    fresh: usize,
}

impl Memory {
    /// A memory that outlives the daemon if there is a place for it.
    pub(super) fn new(kept: Option<Arc<Kept>>) -> Self {
        let (sets, vectors, learning) = (Mutex::default(), Arc::default(), tokio::sync::Mutex::default());
        Self { sets, vectors, learning, asking: watch::Sender::new(0), kept }
    }

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
            prepared.await.map_err(|e| failure(FailureCode::Internal, format!("learning the roles failed: {e}")))?;
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
        self.be_of(&question.model).await?;
        let mut known = self.known(&texts);
        let missing: Vec<&String> = texts.into_iter().filter(|text| !known.contains_key(*text)).collect();
        for texts in missing.chunks(CHUNK) {
            if !wanted() {
                return Err(failure(FailureCode::Timeout, "nobody waits for the decision any more"));
            }
            let (vectors, computed) = self.embed(texts, keepers).await?;
            *tokens += computed;
            known.extend(texts.iter().zip(vectors).map(|(text, vector)| ((*text).clone(), vector)));
        }
        self.keep(1).await;
        Ok(known)
    }

    /// Those of these texts that are known.
    fn known(&self, texts: &BTreeSet<&String>) -> HashMap<String, Vector> {
        let known = self.vectors();
        let found = |text: &&String| Some(((*text).clone(), known.vectors.get(&kept::text(text))?.clone()));
        texts.iter().filter_map(found).collect()
    }

    /// Computes the vectors of texts, remembers them, and says how many tokens that took.
    async fn embed(&self, texts: &[&String], keepers: &Keepers) -> Result<(Vec<Vector>, u32), Failure> {
        let embedded = embed(&keepers.embedding, texts.iter().map(|text| (*text).clone()).collect()).await?;
        let vectors: Vec<Vector> = embedded.vectors.into_iter().map(Into::into).collect();
        {
            let mut known = self.vectors();
            known.vectors.extend(texts.iter().map(|text| kept::text(text)).zip(vectors.iter().cloned()));
            known.fresh += texts.len();
        }
        self.keep(WORTH_KEEPING).await;
        Ok((vectors, embedded.tokens))
    }

    /// Turns to the vectors of a model: forgets what another one said, and everything when it has become too much.
    async fn be_of(&self, model: &Arc<Model>) -> Result<(), Failure> {
        {
            let known = self.vectors();
            if known.model.as_ref() == Some(model) && known.vectors.len() <= MAX_VECTORS {
                return Ok(());
            }
        }
        let (kept, of) = (self.kept.clone(), model.clone());
        // Some megabytes, and the model's own file if nobody has told its hash.
        let read = tokio::task::spawn_blocking(move || {
            let owner = kept.as_ref()?.owner(&of)?;
            Some((owner, kept?.load(&owner)))
        });
        let read = read.await.map_err(|e| failure(FailureCode::Internal, format!("reading kept vectors failed: {e}")))?;
        let mut known = self.vectors();
        let overflowed = known.model.as_ref() == Some(model);
        let (owner, vectors) = read.map_or((None, HashMap::new()), |(owner, vectors)| (Some(owner), vectors));
        let vectors = if overflowed { HashMap::new() } else { vectors };
        *known = Known { model: Some(model.clone()), owner, vectors, fresh: 0 };
        Ok(())
    }

    /// Puts what is known on disk if so many are new.
    async fn keep(&self, worth: usize) {
        let (kept, owner) = {
            let mut known = self.vectors();
            let (Some(kept), Some(owner)) = (self.kept.clone(), known.owner) else { return };
            if known.fresh < worth {
                return;
            }
            known.fresh = 0;
            (kept, owner)
        };
        let vectors = self.vectors.clone();
        let store = move || {
            kept.store(&owner, || {
                let known = vectors.lock().expect(SOUND);
                // Another model's may have taken their place meanwhile.
                if known.owner == Some(owner) { known.vectors.clone() } else { HashMap::new() }
            });
        };
        if let Err(error) = tokio::task::spawn_blocking(store).await {
            tracing::error!(%error, "vectors of texts are not kept on disk");
        }
    }

    fn sets(&self) -> MutexGuard<'_, Vec<Arc<Prepared>>> {
        self.sets.lock().expect("nothing panics while it holds the sets")
    }

    fn vectors(&self) -> MutexGuard<'_, Known> {
        self.vectors.lock().expect(SOUND)
    }
}

fn gather(candidates: &[Candidate], routing: &RouterSettings, known: &HashMap<String, Vector>) -> Vectors {
    let of = |text: &String| known.get(text).cloned();
    let background: Vec<Vector> = routing.background.iter().filter_map(of).collect();
    let candidates: Vec<Vec<Vector>> = candidates.iter().map(|c| c.texts().filter_map(of).collect()).collect();
    let classes: Vec<&[Vector]> = candidates.iter().chain([&background]).map(Vec::as_slice).collect();
    let linear = Linear::fit(&classes);
    Vectors { candidates, background, linear }
}
