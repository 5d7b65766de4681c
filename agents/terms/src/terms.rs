//! The terms of a chunk and of a query: its words as they are, and their stems.
//!
//! A term is kept as a hash. Both forms of a word are terms, so that a word is found when its language is told wrong; a query
//! counts only the better one of them for each chunk.

use std::collections::BTreeMap;

use crate::language::{self, Language};
use crate::words::{FoldedWord, for_each_word};

/// The version of the analysis. Another one indexes everything anew.
pub const ANALYSIS_VERSION: u32 = 1;

/// A term: 48 bits of the FNV-1a hash of a word or stem. Of a million terms, two are alike once in 500 indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TermId(pub u64);

const TERM_BYTES: usize = 6;

impl TermId {
    fn of(word: &str) -> Self {
        let hash = word
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        // The high bits of this hash depend on all bytes, the low ones less so.
        Self((hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16)
    }
}

/// The terms of a chunk, sorted, each with how often it occurs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChunkTerms {
    /// How many words the chunk has.
    pub words: u32,
    /// Sorted by term; 255 stands for all higher counts.
    pub counts: Vec<(TermId, u8)>,
}

impl ChunkTerms {
    /// The terms of a text in some of these languages.
    pub fn of(text: &str, languages: &[Language]) -> Self {
        let mut words = Vec::new();
        for_each_word(text, |word| words.push(word));
        let latin = language::latin_language(&words, languages);
        let mut counts = BTreeMap::new();
        let mut add = |term: TermId| {
            let count: &mut u8 = counts.entry(term).or_default();
            *count = count.saturating_add(1);
        };
        for word in &words {
            add(TermId::of(&word.text));
            let language = language::language_of(word, latin, languages);
            if let Some(stem) = language.and_then(|language| language::stem(word, language)) {
                add(TermId::of(&stem));
            }
        }
        Self { words: u32::try_from(words.len()).unwrap_or(u32::MAX), counts: counts.into_iter().collect() }
    }

    /// As it is stored: the number of words, then six bytes of each term and one of its count.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.counts.len() * (TERM_BYTES + 1));
        bytes.extend(self.words.to_le_bytes());
        for (term, count) in &self.counts {
            bytes.extend(&term.0.to_le_bytes()[..TERM_BYTES]);
            bytes.push(*count);
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` if it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.split_first_chunk::<4>()?;
        let (rows, []) = rest.as_chunks::<{ TERM_BYTES + 1 }>() else { return None };
        let counts = rows
            .iter()
            .map(|[a, b, c, d, e, f, count]| (TermId(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, 0, 0])), *count));
        Some(Self { words: u32::from_le_bytes(*words), counts: counts.collect() })
    }
}

/// A word of a query with the terms by which it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryWord {
    /// The word as it is, and its stems; a chunk counts the one that scores best.
    pub terms: Vec<TermId>,
}

/// The distinct words of a query, in order, at most `limit`.
pub fn query_words(text: &str, languages: &[Language], limit: usize) -> Vec<QueryWord> {
    let mut words: Vec<FoldedWord> = Vec::new();
    for_each_word(text, |word| {
        if words.len() < limit && !words.contains(&word) {
            words.push(word);
        }
    });
    words.iter().map(|word| query_word(word, languages)).collect()
}

/// A query is short, so its language is not told: the stems of all languages are looked for.
fn query_word(word: &FoldedWord, languages: &[Language]) -> QueryWord {
    let mut terms = vec![TermId::of(&word.text)];
    for language in languages {
        if let Some(stem) = language::stem(word, *language) {
            terms.push(TermId::of(&stem));
        }
    }
    // The word may be the stem of others already; duplicates would only cost time.
    terms.sort_unstable();
    terms.dedup();
    QueryWord { terms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_back_as_written() {
        let terms = ChunkTerms::of("the connections of connected things, 24 of them: соединения", &Language::ALL);
        assert_eq!(terms.words, 9);
        assert_eq!(ChunkTerms::decode(&terms.encode()), Some(terms));
        assert_eq!(ChunkTerms::decode(&[1, 0, 0, 0, 9]), None);
        assert_eq!(ChunkTerms::decode(&[]), None);
    }

    #[test]
    fn a_query_finds_other_forms_and_words_of_a_mistaken_language() {
        let found = |query: &str, text: &str| {
            let chunk = ChunkTerms::of(text, &Language::ALL);
            let has = |term: &TermId| chunk.counts.iter().any(|(of_chunk, _)| of_chunk == term);
            query_words(query, &Language::ALL, 64).iter().all(|word| word.terms.iter().any(has))
        };
        assert!(found("connection", "all of the connections that are open"));
        assert!(found("соединениями", "каждое соединение"));
        assert!(found("Fenster", "das Fenster und die Türen der Häuser"));
        assert!(found("Türen", "of the Türen"), "the chunk is taken for English");
        assert!(!found("door", "the window"));
    }

    #[test]
    fn a_query_has_each_word_once_and_not_too_many() {
        assert_eq!(query_words("a b A b c", &Language::ALL, 64).len(), 3);
        assert_eq!(query_words("a b c d", &Language::ALL, 2).len(), 2);
        assert!(query_words("\"( NEAR:* ^-' \0", &Language::ALL, 64).len() <= 1);
    }
}
