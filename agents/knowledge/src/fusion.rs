//! The two scores of a chunk as one.
//!
//! Each arm's scores are stretched to 0..1 between its worst and its best candidate, and added with a weight (the convex
//! combination of Bruch, Gai and Ingber, 2023). The rule by ranks (Cormack et al., 2009) is left for an arm that has too little to
//! stretch: one or two candidates, or all with one score.

use crate::arms::ScoredChunk;

/// How much the vectors count, of 1; the rest is left to the words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusionWeight(f32);

impl FusionWeight {
    /// A weight from 0, words alone, to 1, vectors alone; what is outside is taken to the nearer end.
    pub fn new(vector: f32) -> Self {
        Self(if vector.is_nan() { 0.5 } else { vector.clamp(0.0, 1.0) })
    }

    /// That of the vectors.
    pub fn vector(self) -> f32 {
        self.0
    }
}

impl Default for FusionWeight {
    /// Both count the same until a weight is fitted.
    fn default() -> Self {
        Self(0.5)
    }
}

/// How the scores of both arms became one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FusionRule {
    /// One arm alone has candidates.
    Single,
    /// Both, stretched and added with the weight.
    MinMax,
    /// By their ranks, since an arm has too little to stretch.
    Ranks,
}

/// A chunk with what each arm says of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FusedChunk {
    pub(crate) id: i64,
    pub(crate) score: f32,
    pub(crate) keyword: Option<f32>,
    pub(crate) vector: Option<f32>,
}

/// Fewer candidates than these have no spread that means something.
const MIN_STRETCHED_CANDIDATES: usize = 3;

/// The constant of the rule by ranks, from its paper.
const RANK_FACTOR: f32 = 60.0;

/// The range of an arm's candidates.
struct ScoreSpan {
    worst: f32,
    best: f32,
}

impl ScoreSpan {
    fn of(sorted: &[ScoredChunk]) -> Option<Self> {
        let (best, worst) = (sorted.first()?.score, sorted.last()?.score);
        (sorted.len() >= MIN_STRETCHED_CANDIDATES && best - worst > 1e-6).then_some(Self { worst, best })
    }

    fn stretch(&self, score: f32) -> f32 {
        ((score - self.worst) / (self.best - self.worst)).clamp(0.0, 1.0)
    }
}

/// Fuses the sorted candidates of both arms; `scores` gives what each arm says of any chunk.
pub(crate) fn fuse(
    keyword: &[ScoredChunk],
    vector: &[ScoredChunk],
    weight: FusionWeight,
    scores: impl Fn(i64) -> (Option<f32>, Option<f32>),
) -> (Vec<FusedChunk>, FusionRule) {
    let mut ids: Vec<i64> = keyword.iter().chain(vector).map(|chunk| chunk.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let spans = (ScoreSpan::of(keyword), ScoreSpan::of(vector));
    let rule = match spans {
        _ if keyword.is_empty() || vector.is_empty() => FusionRule::Single,
        (Some(_), Some(_)) => FusionRule::MinMax,
        _ => FusionRule::Ranks,
    };
    let score = |id: i64, of_keyword: Option<f32>, of_vector: Option<f32>| match (&rule, &spans) {
        (FusionRule::MinMax, (Some(words), Some(vectors))) => {
            let stretched = |span: &ScoreSpan, score: Option<f32>| score.map_or(0.0, |score| span.stretch(score));
            (1.0 - weight.0) * stretched(words, of_keyword) + weight.0 * stretched(vectors, of_vector)
        }
        (FusionRule::Single, _) if vector.is_empty() => of_keyword.unwrap_or(0.0),
        (FusionRule::Single, _) => of_vector.unwrap_or(0.0),
        _ => {
            let of = |sorted: &[ScoredChunk]| {
                let rank = sorted.iter().position(|chunk| chunk.id == id);
                rank.map_or(0.0, |rank| 1.0 / (RANK_FACTOR + rank as f32 + 1.0))
            };
            of(keyword) + of(vector)
        }
    };
    let mut fused: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let (keyword, vector) = scores(id);
            FusedChunk { id, score: score(id, keyword, vector), keyword, vector }
        })
        .collect();
    fused.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    (fused, rule)
}

/// What both arms say of a passage for a question, and how relevant a person finds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedPassage {
    /// The score by words, if it has one.
    pub keyword: Option<f32>,
    /// The cosine, if it has one.
    pub vector: Option<f32>,
    /// How relevant it is: 0 for not at all.
    pub relevance: f32,
}

/// The steps in which weights are tried: finer ones do not differ on a few hundred questions.
const FIT_STEPS: u16 = 20;

/// The ranks that the fitted measure, nDCG@10, looks at.
const MEASURED_PASSAGES: usize = 10;

/// The weight with the highest mean nDCG@10 over questions, each with its candidates; of equals the nearest to the middle.
pub fn fit(questions: &[Vec<JudgedPassage>]) -> FusionWeight {
    let weights = (0..=FIT_STEPS).map(|step| FusionWeight(f32::from(step) / f32::from(FIT_STEPS)));
    let scored = weights.map(|weight| {
        let total: f32 = questions.iter().map(|question| ndcg(question, weight)).sum();
        (total, weight)
    });
    let better = |a: &(f32, FusionWeight), b: &(f32, FusionWeight)| {
        let from_middle = |weight: FusionWeight| (weight.0 - 0.5).abs();
        a.0.total_cmp(&b.0).then(from_middle(b.1).total_cmp(&from_middle(a.1)))
    };
    scored.max_by(better).map_or(FusionWeight::default(), |(_, weight)| weight)
}

fn ndcg(question: &[JudgedPassage], weight: FusionWeight) -> f32 {
    let arm = |of: fn(&JudgedPassage) -> Option<f32>| {
        let scores = (0..).zip(question).filter_map(|(id, passage)| Some(ScoredChunk { id, score: of(passage)? }));
        let mut scores: Vec<_> = scores.collect();
        scores.sort_unstable();
        scores
    };
    let of = |id: i64| question[usize::try_from(id).expect("ids are places in the list")];
    let (fused, _) = fuse(&arm(|p| p.keyword), &arm(|p| p.vector), weight, |id| (of(id).keyword, of(id).vector));
    let gain = |relevances: &mut dyn Iterator<Item = f32>| -> f32 {
        let discounted = |(rank, relevance): (usize, f32)| (relevance.exp2() - 1.0) / ((rank + 2) as f32).log2();
        relevances.take(MEASURED_PASSAGES).enumerate().map(discounted).sum()
    };
    let mut ideal: Vec<f32> = question.iter().map(|passage| passage.relevance).collect();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let best = gain(&mut ideal.into_iter());
    if best == 0.0 { 0.0 } else { gain(&mut fused.iter().map(|chunk| of(chunk.id).relevance)) / best }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(scores: &[(i64, f32)]) -> Vec<ScoredChunk> {
        scores.iter().map(|(id, score)| ScoredChunk { id: *id, score: *score }).collect()
    }

    fn fused(keyword: &[(i64, f32)], vector: &[(i64, f32)], weight: f32) -> (Vec<i64>, FusionRule) {
        let find = |scores: &[(i64, f32)], id: i64| scores.iter().find(|(of, _)| *of == id).map(|(_, score)| *score);
        let scores = |id| (find(keyword, id), find(vector, id));
        let (fused, rule) = fuse(&arm(keyword), &arm(vector), FusionWeight::new(weight), scores);
        (fused.iter().map(|chunk| chunk.id).collect(), rule)
    }

    #[test]
    fn both_arms_are_stretched_before_they_are_added() {
        let words = [(1, 20.0), (2, 11.0), (3, 2.0)];
        let vectors = [(4, 0.90), (2, 0.89), (1, 0.80)];
        assert_eq!(fused(&words, &vectors, 0.5), (vec![2, 1, 4, 3], FusionRule::MinMax));
        assert_eq!(fused(&words, &vectors, 0.0).0[..2], [1, 2]);
        assert_eq!(fused(&words, &vectors, 1.0).0[..2], [4, 2]);
    }

    #[test]
    fn ranks_decide_where_there_is_nothing_to_stretch() {
        assert_eq!(fused(&[(1, 3.0)], &[(4, 0.9), (1, 0.8), (2, 0.7)], 0.5), (vec![1, 4, 2], FusionRule::Ranks));
        assert_eq!(fused(&[], &[(4, 0.9), (1, 0.8)], 0.5), (vec![4, 1], FusionRule::Single));
        assert_eq!(fused(&[(7, 2.0)], &[], 0.5), (vec![7], FusionRule::Single));
        assert_eq!(fused(&[], &[], 0.5).0, [] as [i64; 0]);
    }

    #[test]
    fn the_fitted_weight_follows_the_arm_that_is_right() {
        let question = |right: fn(f32, f32) -> JudgedPassage| -> Vec<JudgedPassage> {
            (0..12_u8).map(|n| right(f32::from(n), f32::from(n * 7 % 12))).collect()
        };
        let by_vector = question(|good, noise| JudgedPassage {
            keyword: Some(noise),
            vector: Some(good / 12.0),
            relevance: f32::from(u8::from(good > 9.0)),
        });
        let by_words = question(|good, noise| JudgedPassage {
            keyword: Some(good),
            vector: Some(noise / 12.0),
            relevance: f32::from(u8::from(good > 9.0)),
        });
        assert!(fit(&[by_vector]).vector() > 0.5);
        assert!(fit(&[by_words]).vector() < 0.5);
        assert_eq!(fit(&[]), FusionWeight::default());
    }
}
