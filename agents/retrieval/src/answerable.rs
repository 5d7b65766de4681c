//! Whether what was found is likely to answer.
//!
//! Scores have no scale of their own: a cosine of 0.8 is high for one model and low for another, and BM25 grows with the words of a
//! question. So questions that no knowledge is about are asked of each: what answers should score better than these do.

use artel_knowledge::AnswerThresholds;

/// The share of off-topic questions that may score as high as the threshold.
const MAX_FALSE_RATIO: f32 = 0.1;

/// The thresholds above which a search is likely to have an answer, from the best scores of off-topic questions: by words, and by
/// vectors. Without any, everything answers.
pub(crate) fn thresholds(keyword: Vec<f32>, vector: Vec<f32>) -> AnswerThresholds {
    AnswerThresholds { keyword: upper(keyword), vector: upper(vector) }
}

/// The score that only a few of these exceed.
fn upper(mut scores: Vec<f32>) -> f32 {
    scores.sort_by(f32::total_cmp);
    let place = ((1.0 - MAX_FALSE_RATIO) * scores.len() as f32) as usize;
    scores.get(place.min(scores.len().saturating_sub(1))).copied().unwrap_or(f32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_off_topic_questions_score_as_high_as_the_threshold() {
        let scores: Vec<f32> = (0..20u8).map(f32::from).collect();
        let AnswerThresholds { keyword, vector } = thresholds(scores.clone(), Vec::new());
        assert_eq!(scores.iter().filter(|score| **score >= keyword).count(), 2);
        assert_eq!(vector, f32::MIN);
    }
}
