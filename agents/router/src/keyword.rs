//! The keyword signal: BM25 (Robertson and Zaragoza, 2009) over candidates as documents. A document is a candidate's
//! description, its examples and its keywords.

use std::collections::{BTreeSet, HashMap};

use crate::candidate::CandidateDocument;

/// BM25's k1: how fast repeated terms stop adding to the score. The usual value.
const SATURATION_FACTOR: f64 = 1.2;
/// BM25's b: how much long documents are discounted. The usual value.
const LENGTH_FACTOR: f64 = 0.75;
/// Terms are words cut to this many characters, which joins `adapter` and `adapters`, `квантизация` and `квантизацию`; words
/// with a digit are names, and are not cut.
const STEM_CHARS: usize = 5;
/// The highest score: a question of many words is not more certain for that.
const MAX_SCORE: f64 = 20.0;

/// The inverted index of all candidates.
#[derive(Default)]
pub(crate) struct KeywordIndex {
    candidates: usize,
    terms: HashMap<String, Term>,
}

#[derive(Default)]
struct Term {
    /// The term's score for each candidate that has it.
    scores: Vec<(usize, f64)>,
}

impl KeywordIndex {
    pub(crate) fn new(candidates: &[CandidateDocument<'_>]) -> Self {
        let mut lengths = Vec::new();
        let mut counts: HashMap<String, Vec<(usize, f64)>> = HashMap::new();
        for (at, candidate) in candidates.iter().enumerate() {
            let mut length = 0.0;
            let keywords = candidate.keywords.iter().map(String::as_str);
            for term in candidate.texts().chain(keywords).flat_map(terms) {
                length += 1.0;
                let postings = counts.entry(term).or_default();
                match postings.last_mut() {
                    Some((last, count)) if *last == at => *count += 1.0,
                    _ => postings.push((at, 1.0)),
                }
            }
            lengths.push(length);
        }
        let all = candidates.len() as f64;
        let mean = lengths.iter().sum::<f64>().max(1.0) / all.max(1.0);
        let term = |(term, postings): (String, Vec<(usize, f64)>)| {
            let found = postings.len() as f64;
            let idf = (1.0 + (all - found + 0.5) / (found + 0.5)).ln();
            let score = |(at, count): (usize, f64)| {
                let norm = SATURATION_FACTOR * (1.0 - LENGTH_FACTOR + LENGTH_FACTOR * lengths[at] / mean);
                (at, idf * count * (SATURATION_FACTOR + 1.0) / (count + norm))
            };
            (term, Term { scores: postings.into_iter().map(score).collect() })
        };
        Self { candidates: candidates.len(), terms: counts.into_iter().map(term).collect() }
    }

    /// The score of each candidate, from 0 to [`MAX_SCORE`].
    pub(crate) fn scores(&self, question: &str) -> Vec<f64> {
        let mut scores = vec![0.0; self.candidates];
        let asked: BTreeSet<String> = terms(question).collect();
        for term in asked.iter().filter_map(|term| self.terms.get(term)) {
            term.scores.iter().for_each(|(at, score)| scores[*at] += score);
        }
        scores.iter_mut().for_each(|score| *score = score.min(MAX_SCORE));
        scores
    }
}

/// The words of a text, cut to their stems.
fn terms(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.map(|word| {
        let is_name = word.contains(|c: char| c.is_ascii_digit());
        let chars = if is_name { usize::MAX } else { STEM_CHARS };
        word.chars().flat_map(char::to_lowercase).take(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use artel_task::RoleName;

    use super::*;
    use crate::candidate::CandidateProfile;

    /// The index of candidates with these descriptions, examples and keywords.
    fn index(candidates: &[(&str, &str, &str)]) -> KeywordIndex {
        let profile = |(description, example, keyword): &(&str, &str, &str)| CandidateProfile {
            description: (*description).to_owned(),
            examples: vec![(*example).to_owned()],
            keywords: vec![(*keyword).to_owned()],
        };
        let profiles: Vec<CandidateProfile> = candidates.iter().map(profile).collect();
        let name = RoleName::parse("any").unwrap();
        let documents: Vec<_> = profiles.iter().map(|profile| CandidateDocument::of_profile(&name, profile)).collect();
        KeywordIndex::new(&documents)
    }

    #[test]
    fn rare_words_weigh_more_than_common_ones() {
        let boats = ("Sails the boat", "Which knot holds the boat?", "");
        let rivers = ("Writes about the river", "Where does the river flow?", "");
        let keywords = index(&[boats, rivers]);
        let scores = keywords.scores("The rivers and THE boat and a knot");
        assert!(scores[0] > scores[1] && scores[1] > 0.0, "{scores:?}");
        assert_eq!(keywords.scores("nothing of that"), [0.0, 0.0]);
        assert_eq!(keywords.scores(""), [0.0, 0.0]);
    }

    #[test]
    fn keywords_count_and_no_score_exceeds_the_limit() {
        let keywords = index(&[("Sails.", "", "mast"), ("Writes.", "", "pen")]);
        let scores = keywords.scores("Which mast?");
        assert!(scores[0] > 0.0 && scores[1].abs() < 1e-9, "{scores:?}");
        let words = (0..100).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
        let keywords = index(&[(words.as_str(), "", ""), ("Nothing.", "", "")]);
        assert_eq!(keywords.scores(&words), [MAX_SCORE, 0.0]);
        assert!(index(&[]).scores("mast").is_empty());
    }

    #[test]
    fn words_are_cut_and_names_are_not() {
        let found: Vec<String> = terms("Квантизацию Q4_K_M, adapters!").collect();
        assert_eq!(found, ["квант", "q4_k_m", "adapt"]);
    }
}
