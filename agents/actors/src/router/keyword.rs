//! Words that a question and a candidate have in common, by BM25 (Robertson and Zaragoza, 2009). Each candidate is one
//! document: its description, its examples and its keywords.

use std::collections::{BTreeSet, HashMap};

use super::Candidate;

/// How fast further mentions of a word stop to count.
const SATURATION: f64 = 1.2;
/// How much long documents are held back.
const LENGTH: f64 = 0.75;
/// Words are cut to so many characters, which joins `adapter` and `adapters`, `квантизация` and `квантизацию`; words with a
/// digit are names, and stay whole.
const STEM: usize = 5;
/// The highest score: a question of many words is not surer for it.
const MOST: f64 = 20.0;

/// The words of all candidates.
#[derive(Default)]
pub(super) struct Keywords {
    candidates: usize,
    words: HashMap<String, Word>,
}

#[derive(Default)]
struct Word {
    /// What the word is worth in each candidate that has it.
    worth: Vec<(usize, f64)>,
}

impl Keywords {
    pub(super) fn of(candidates: &[Candidate]) -> Self {
        let mut lengths = Vec::new();
        let mut counts: HashMap<String, Vec<(usize, f64)>> = HashMap::new();
        for (at, candidate) in candidates.iter().enumerate() {
            let mut length = 0.0;
            for word in candidate.texts().chain(candidate.keywords()).flat_map(|text| words(text)) {
                length += 1.0;
                let places = counts.entry(word).or_default();
                match places.last_mut() {
                    Some((last, count)) if *last == at => *count += 1.0,
                    _ => places.push((at, 1.0)),
                }
            }
            lengths.push(length);
        }
        let all = candidates.len() as f64;
        let mean = lengths.iter().sum::<f64>().max(1.0) / all.max(1.0);
        let word = |(word, places): (String, Vec<(usize, f64)>)| {
            let found = places.len() as f64;
            let rarity = (1.0 + (all - found + 0.5) / (found + 0.5)).ln();
            let worth = |(at, count): (usize, f64)| {
                let held = SATURATION * (1.0 - LENGTH + LENGTH * lengths[at] / mean);
                (at, rarity * count * (SATURATION + 1.0) / (count + held))
            };
            (word, Word { worth: places.into_iter().map(worth).collect() })
        };
        Self { candidates: candidates.len(), words: counts.into_iter().map(word).collect() }
    }

    /// The score of each candidate, from 0.
    pub(super) fn scores(&self, question: &str) -> Vec<f64> {
        let mut scores = vec![0.0; self.candidates];
        let asked: BTreeSet<String> = words(question).collect();
        for word in asked.iter().filter_map(|word| self.words.get(word)) {
            word.worth.iter().for_each(|(at, worth)| scores[*at] += worth);
        }
        scores.iter_mut().for_each(|score| *score = score.min(MOST));
        scores
    }
}

/// The words of a text, cut to their stems.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let parts = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    parts.map(|word| {
        let whole = word.contains(|c: char| c.is_ascii_digit());
        let kept = if whole { usize::MAX } else { STEM };
        word.chars().flat_map(char::to_lowercase).take(kept).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::candidate;

    #[test]
    fn rare_words_speak_louder_than_common_ones() {
        let boats = candidate("sailor", "Sails the boat", &["Which knot holds the boat?"]);
        let rivers = candidate("writer", "Writes about the river", &["Where does the river flow?"]);
        let keywords = Keywords::of(&[boats, rivers]);
        let scores = keywords.scores("The rivers and THE boat and a knot");
        assert!(scores[0] > scores[1] && scores[1] > 0.0, "{scores:?}");
        assert_eq!(keywords.scores("nothing of that"), [0.0, 0.0]);
        assert_eq!(keywords.scores(""), [0.0, 0.0]);
    }

    #[test]
    fn words_are_cut_and_names_are_not() {
        let found: Vec<String> = words("Квантизацию Q4_K_M, adapters!").collect();
        assert_eq!(found, ["квант", "q4_k_m", "adapt"]);
    }
}
