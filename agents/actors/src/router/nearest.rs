//! The embeddings of texts, and their similarity to a question.

use std::sync::Arc;

use artel_engine::Embeddings;
use artel_task::event::{Failure, FailureCode};
use ractor::{ActorRef, call};

use super::linear::LinearClassifier;
use crate::completion::failure;
use crate::engine_host;

/// The texts whose mean similarity counts: one near text may be chance, three are a pattern.
const NEAREST_TEXTS: usize = 3;

/// A unit vector.
pub(super) type Embedding = Arc<[f32]>;

/// The embeddings of a set of candidates.
pub(super) struct CandidateEmbeddings {
    /// By candidate.
    pub(super) candidates: Vec<Vec<Embedding>>,
    pub(super) background: Vec<Embedding>,
    pub(super) linear: Option<LinearClassifier>,
}

impl CandidateEmbeddings {
    /// The similarity of a question to each candidate, and to the background.
    pub(super) fn similarities(&self, question: &[f32]) -> (Vec<f64>, f64) {
        let similarity = |texts: &Vec<Embedding>| mean_of_nearest(texts.iter().map(|text| cosine(question, text)));
        (self.candidates.iter().map(similarity).collect(), similarity(&self.background))
    }
}

/// The embeddings of these texts, in their order.
pub(super) async fn embed(host: &ActorRef<engine_host::Message>, texts: Vec<String>) -> Result<Embeddings, Failure> {
    let engine = engine_host::lease_or_failure(call!(host, engine_host::Message::Acquire))?;
    let embedded = engine.embed(texts).await;
    embedded.map_err(|e| failure(FailureCode::ModelUnavailable, format!("failed to embed texts for the router: {e}")))
}

/// The mean of the greatest similarities.
fn mean_of_nearest(similarities: impl Iterator<Item = f64>) -> f64 {
    let mut best = [0.0f64; NEAREST_TEXTS];
    let mut count = 0usize;
    for s in similarities.map(|s| s.clamp(0.0, 1.0)) {
        count += 1;
        if s > best[NEAREST_TEXTS - 1] {
            best[NEAREST_TEXTS - 1] = s;
            best.sort_by(|a, b| b.total_cmp(a));
        }
    }
    match count.min(NEAREST_TEXTS) {
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
        assert!(mean_of_nearest([0.1, 0.7, 0.6, 0.6].into_iter()) > mean_of_nearest([0.9, 0.1, 0.2].into_iter()));
        assert!((mean_of_nearest([0.5].into_iter()) - 0.5).abs() < 1e-9);
        assert!((mean_of_nearest([0.4, 0.6].into_iter()) - 0.5).abs() < 1e-9);
        assert!(mean_of_nearest([f64::NAN, -1.0].into_iter()).abs() < 1e-9);
        assert!(mean_of_nearest(std::iter::empty()).abs() < 1e-9);
    }
}
