//! The two ways to score chunks for a query: by words (BM25), and by vectors. Both look at every chunk of a committed state.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::segment::{EntryFilter, GenerationView, LiveSegment};
use crate::vectors::PreparedQuery;
use artel_terms::{QueryWord, TermId};

/// The constants of BM25 as Robertson and Zaragoza (2009) recommend them: how soon repeats of a word stop counting, and how much
/// long chunks are held back.
const SATURATION_FACTOR: f32 = 1.2;
const LENGTH_FACTOR: f32 = 0.75;

/// How many candidates of the first pass over vectors the second one compares, for each that is asked for, and at least.
const RESCORED_FACTOR: usize = 4;
const MIN_RESCORED_CHUNKS: usize = 200;

/// A chunk with its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ScoredChunk {
    pub(crate) id: i64,
    pub(crate) score: f32,
}

impl Eq for ScoredChunk {}

impl Ord for ScoredChunk {
    /// The better one is less, and the older one of equals, so that a heap has the worst on top.
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for ScoredChunk {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best chunks so far.
struct BestChunks {
    limit: usize,
    heap: BinaryHeap<ScoredChunk>,
}

impl BestChunks {
    fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::with_capacity(limit + 1) }
    }

    fn is_candidate(&self, score: f32) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|worst| worst.score < score)
    }

    fn push(&mut self, chunk: ScoredChunk) {
        self.heap.push(chunk);
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }

    fn into_sorted(self) -> Vec<ScoredChunk> {
        self.heap.into_sorted_vec()
    }
}

/// The scores of all chunks by words.
#[derive(Debug)]
pub(crate) struct KeywordScores {
    /// The best ones, in order.
    pub(crate) best: Vec<ScoredChunk>,
    /// For each segment, the score of each slot; empty if no word is in it.
    by_slot: Vec<Vec<f32>>,
}

impl KeywordScores {
    /// The score of a chunk that has one of the words.
    pub(crate) fn of(&self, view: &GenerationView, id: i64) -> Option<f32> {
        let (segment, slot) = view.locate(id)?;
        self.by_slot.get(segment)?.get(slot).copied().filter(|score| *score > 0.0)
    }
}

/// A term with how much it tells.
struct WeightedTerm {
    term: TermId,
    weight: f32,
}

/// Scores all chunks by BM25. A word counts by that form of it which scores best in the chunk.
pub(crate) fn keyword(view: &GenerationView, words: &[QueryWord], filter: &EntryFilter, limit: usize) -> KeywordScores {
    let chunks: usize = view.segments.iter().map(|segment| segment.segment.ids.len()).sum();
    let lengths: u64 =
        view.segments.iter().flat_map(|segment| &segment.segment.words).map(|words| u64::from(*words)).sum();
    let mean_length = (lengths as f32 / chunks.max(1) as f32).max(1.0);
    let words: Vec<Vec<WeightedTerm>> = words.iter().map(|word| weigh(view, word, chunks)).collect();
    let mut best = BestChunks::new(limit);
    let mut by_slot = Vec::with_capacity(view.segments.len());
    for segment in &view.segments {
        let scores = score_segment(segment, &words, mean_length);
        for (slot, score) in scores.iter().enumerate().filter(|(_, score)| **score > 0.0) {
            let (id, entry) = (segment.segment.ids[slot], segment.segment.entries[slot]);
            if best.is_candidate(*score) && !segment.is_removed(slot) && filter.allows(entry) {
                best.push(ScoredChunk { id, score: *score });
            }
        }
        by_slot.push(scores);
    }
    KeywordScores { best: best.into_sorted(), by_slot }
}

/// The weight of each term of a word by how few chunks have it. Removed chunks count until their segment is merged.
fn weigh(view: &GenerationView, word: &QueryWord, chunks: usize) -> Vec<WeightedTerm> {
    let frequency = |term: TermId| -> u32 { view.segments.iter().map(|s| s.segment.postings.frequency(term)).sum() };
    let weighted = word.terms.iter().map(|term| (*term, frequency(*term))).filter(|(_, frequency)| *frequency > 0);
    weighted
        .map(|(term, frequency)| {
            let (chunks, with) = (chunks as f32, frequency as f32);
            WeightedTerm { term, weight: ((chunks - with + 0.5) / (with + 0.5)).ln_1p() }
        })
        .collect()
}

fn score_segment(segment: &LiveSegment, words: &[Vec<WeightedTerm>], mean_length: f32) -> Vec<f32> {
    let segment = &segment.segment;
    let has_term = |term: &WeightedTerm| segment.postings.frequency(term.term) > 0;
    if !words.iter().flatten().any(has_term) {
        return Vec::new();
    }
    let mut totals = vec![0.0_f32; segment.ids.len()];
    let mut of_word = vec![0.0_f32; segment.ids.len()];
    for word in words {
        let mut only = word.iter().filter(|term| has_term(term));
        match (only.next(), only.next()) {
            (None, _) => {}
            (Some(term), None) => {
                for (slot, score) in term_scores(segment, term, mean_length) {
                    totals[slot] += score;
                }
            }
            _ => {
                for term in word {
                    for (slot, score) in term_scores(segment, term, mean_length) {
                        of_word[slot] = of_word[slot].max(score);
                    }
                }
                for (total, score) in totals.iter_mut().zip(&mut of_word) {
                    *total += std::mem::take(score);
                }
            }
        }
    }
    totals
}

fn term_scores<'a>(
    segment: &'a crate::segment::Segment,
    term: &WeightedTerm,
    mean_length: f32,
) -> impl Iterator<Item = (usize, f32)> + use<'a> {
    let weight = term.weight * (SATURATION_FACTOR + 1.0);
    let fixed = SATURATION_FACTOR * (1.0 - LENGTH_FACTOR);
    let by_length = SATURATION_FACTOR * LENGTH_FACTOR / mean_length;
    segment.postings.of_term(term.term).map(move |(slot, count)| {
        let slot = usize::from(slot);
        let count = f32::from(count);
        (slot, weight * count / (count + fixed + by_length * segment.words[slot] as f32))
    })
}

/// The chunks whose vectors are the most like the query's, with their cosines.
pub(crate) fn vector(
    view: &GenerationView,
    query: &PreparedQuery,
    filter: &EntryFilter,
    limit: usize,
) -> Vec<ScoredChunk> {
    let mut coarse = BestChunks::new((limit * RESCORED_FACTOR).max(MIN_RESCORED_CHUNKS));
    for segment in &view.segments {
        segment.segment.vectors.scan(query, |slot, score| {
            if coarse.is_candidate(score) && !segment.is_removed(slot) && filter.allows(segment.segment.entries[slot]) {
                coarse.push(ScoredChunk { id: segment.segment.ids[slot], score });
            }
        });
    }
    exact(view, query, coarse.into_sorted().into_iter().map(|chunk| chunk.id), limit)
}

/// The same where the candidates are given: those that are still there and pass the filter.
pub(crate) fn rescored(
    view: &GenerationView,
    query: &PreparedQuery,
    filter: &EntryFilter,
    candidates: &[i64],
    limit: usize,
) -> Vec<ScoredChunk> {
    let is_allowed = |id: &i64| {
        view.locate(*id).is_some_and(|(segment, slot)| {
            let segment = &view.segments[segment];
            !segment.is_removed(slot) && filter.allows(segment.segment.entries[slot])
        })
    };
    exact(view, query, candidates.iter().copied().filter(is_allowed), limit)
}

/// The best of these by their cosines.
fn exact(
    view: &GenerationView,
    query: &PreparedQuery,
    candidates: impl Iterator<Item = i64>,
    limit: usize,
) -> Vec<ScoredChunk> {
    let mut best = BestChunks::new(limit);
    for id in candidates {
        if let Some(score) = cosine(view, query, id) {
            best.push(ScoredChunk { id, score });
        }
    }
    best.into_sorted()
}

/// The cosine of a chunk's vector with the query's; `None` if it has none.
pub(crate) fn cosine(view: &GenerationView, query: &PreparedQuery, id: i64) -> Option<f32> {
    let (segment, slot) = view.locate(id)?;
    view.segments[segment].segment.vectors.cosine(slot, query)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::IndexedChunk;
    use crate::vectors::StoredVector;
    use artel_terms::Language;
    use artel_terms::{ChunkTerms, query_words};

    fn view(texts: &[&str]) -> GenerationView {
        let mut view = GenerationView::new(2, &Language::ALL);
        for (id, text) in (1..).zip(texts) {
            let vector = StoredVector::of(&[1.0, id as f32]);
            let terms = ChunkTerms::of(text, &Language::ALL);
            view.append(&[IndexedChunk { id, entry: id, terms, vector: Some(vector) }]);
        }
        view
    }

    fn search(view: &GenerationView, text: &str) -> Vec<i64> {
        let words = query_words(text, &Language::ALL, 64);
        keyword(view, &words, &EntryFilter::All, 10).best.iter().map(|chunk| chunk.id).collect()
    }

    #[test]
    fn rare_words_and_short_chunks_count_more() {
        let view = view(&[
            "the cat sat on the mat",
            "the dog sat on the mat with another dog",
            "the unicorn",
            "the dogs of the town were all asleep in the warm afternoon sun of June",
        ]);
        assert_eq!(search(&view, "unicorn sat"), [3, 1, 2]);
        assert_eq!(search(&view, "dog"), [2, 4], "repeats count, and other forms are found");
        assert_eq!(search(&view, "zebra"), [] as [i64; 0]);
        assert_eq!(search(&view, ""), [] as [i64; 0]);
    }

    #[test]
    fn removed_and_filtered_chunks_are_not_found() {
        let mut view = view(&["a cat", "a cat", "a cat", "a cat", "a cat"]);
        view.remove(&[2]);
        let filter = EntryFilter::Only([1, 2, 5].into());
        let found = keyword(&view, &query_words("cat", &Language::ALL, 64), &filter, 10);
        assert_eq!(found.best.iter().map(|chunk| chunk.id).collect::<Vec<_>>(), [1, 5]);
        assert!(found.of(&view, 3).is_some(), "the score of any chunk can be asked for");
        let query = PreparedQuery::of(&[0.0, 1.0]);
        let found = vector(&view, &query, &filter, 10);
        assert_eq!(found.iter().map(|chunk| chunk.id).collect::<Vec<_>>(), [5, 1]);
    }
}
