//! Embeddings: the vectors of texts, and how near a question is to them.

use std::sync::Arc;

use artel_engine::Embeddings;
use artel_task::event::{FailureCode, Failure};
use ractor::{ActorRef, call};

use super::linear::Linear;
use crate::keeper;
use crate::report::failure;

/// The texts whose mean similarity counts: one near text is a hint, three are a pattern.
const NEAREST: usize = 3;

/// A unit vector.
pub(super) type Vector = Arc<[f32]>;

/// The vectors of a set of candidates.
pub(super) struct Vectors {
    /// By candidate.
    pub(super) candidates: Vec<Vec<Vector>>,
    pub(super) background: Vec<Vector>,
    pub(super) linear: Option<Linear>,
}

impl Vectors {
    /// How near a question is to each candidate, and to the background.
    pub(super) fn nearest(&self, question: &[f32]) -> (Vec<f64>, f64) {
        let near = |vectors: &Vec<Vector>| near(vectors.iter().map(|vector| cosine(question, vector)));
        (self.candidates.iter().map(near).collect(), near(&self.background))
    }
}

/// The vectors of these texts, in their order.
pub(super) async fn embed(keeper: &ActorRef<keeper::Message>, texts: Vec<String>) -> Result<Embeddings, Failure> {
    let engine = keeper::unwrap(call!(keeper, keeper::Message::Engine))?;
    engine.embed(texts).await.map_err(|e| failure(FailureCode::ModelUnavailable, format!("embedding failed: {e}")))
}

/// The mean of the greatest similarities.
fn near(similarities: impl Iterator<Item = f64>) -> f64 {
    let mut best = [0.0f64; NEAREST];
    let mut count = 0usize;
    for s in similarities.map(|s| s.clamp(0.0, 1.0)) {
        count += 1;
        if s > best[NEAREST - 1] {
            best[NEAREST - 1] = s;
            best.sort_by(|a, b| b.total_cmp(a));
        }
    }
    match count.min(NEAREST) {
        0 => 0.0,
        count => best[..count].iter().sum::<f64>() / count as f64,
    }
}

/// Both are unit vectors.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    f64::from(a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_near_texts_beat_one() {
        assert!(near([0.1, 0.7, 0.6, 0.6].into_iter()) > near([0.9, 0.1, 0.2].into_iter()));
        assert!((near([0.5].into_iter()) - 0.5).abs() < 1e-9);
        assert!((near([0.4, 0.6].into_iter()) - 0.5).abs() < 1e-9);
        assert!(near([f64::NAN, -1.0].into_iter()).abs() < 1e-9);
        assert!(near(std::iter::empty()).abs() < 1e-9);
    }
}
