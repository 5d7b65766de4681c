//! The embedding signal: how near a question is to the nearest texts of each candidate.

use crate::embedding::{Embedding, cosine};

/// The texts whose mean similarity counts: one near text may be chance, three are a pattern.
const NEAREST_TEXTS: usize = 3;

/// The embeddings of a set of candidates, and of questions that belong to none of them.
pub(crate) struct CandidateEmbeddings {
    /// By candidate.
    pub(crate) candidates: Vec<Vec<Embedding>>,
    pub(crate) background: Vec<Embedding>,
}

impl CandidateEmbeddings {
    /// The similarity of a question to each candidate, and to the background.
    pub(crate) fn similarities(&self, question: &[f32]) -> (Vec<f64>, f64) {
        let similarity = |texts: &Vec<Embedding>| mean_of_nearest(texts.iter().map(|text| cosine(question, text)));
        (self.candidates.iter().map(similarity).collect(), similarity(&self.background))
    }
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

    #[test]
    fn a_question_is_near_the_candidate_whose_texts_it_resembles() {
        let text = |x: f32, y: f32| -> Embedding { [x, y].into() };
        let candidates = vec![vec![text(1.0, 0.0), text(0.8, 0.6)], vec![text(0.0, 1.0)], Vec::new()];
        let embeddings = CandidateEmbeddings { candidates, background: vec![text(-1.0, 0.0)] };
        let (candidates, background) = embeddings.similarities(&[1.0, 0.0]);
        assert!((candidates[0] - 0.9).abs() < 1e-6, "{candidates:?}");
        assert!(candidates[1].abs() < 1e-6 && candidates[2].abs() < 1e-6 && background.abs() < 1e-6);
    }
}
