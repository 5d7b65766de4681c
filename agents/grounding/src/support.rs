//! Whether the sentences of an answer are supported by the passages that they cite.
//!
//! It is a check of the surface: numbers with their units, names, negations and opposites must be those of a passage, and enough of
//! the words must occur there, most of them close together. It finds what a small model invents, not what only a reader would
//! notice: a sentence that passes may still be false. The thresholds were chosen on half of `tests/knowledge/sentences.jsonl`.

mod contrast;
mod figures;
mod sentences;

use std::collections::BTreeSet;
use std::fmt;

use crate::citations::CitationFilter;
use artel_terms::{ChunkTerms, Language, QueryWord, query_words};
use contrast::{Contrast, contrast};
use figures::Figures;
use sentences::{SentencePlace, sentences};

/// The share of the words of a sentence that a passage must have.
const MIN_WORDS_RATIO: f64 = 0.4;
/// The share that neighbouring sentences of the passage must have.
const MIN_NEAR_RATIO: f64 = 0.3;
/// How much of a sentence must be about the same as one of the passage for their negations to be compared.
const MIN_SAME_SUBJECT_RATIO: f64 = 0.5;
/// The sentences of a passage that are read together: a fact is often told in two or three.
const NEAR_SENTENCES: usize = 3;
/// Words of a sentence that are looked at.
const MAX_SENTENCE_WORDS: usize = 200;
/// The letters of the beginning of a long word.
const BEGINNING_CHARS: usize = 5;
/// Letters of a word from which it counts: shorter ones are in every text.
const MIN_WORD_CHARS: usize = 4;

/// A sentence of an answer, and what speaks against it.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedSentence {
    /// Its text with its marks, as in the answer.
    pub text: String,
    /// Its first byte in the answer.
    pub first_byte: usize,
    /// The passages that it cites.
    pub cited: BTreeSet<u32>,
    /// Why it is not supported; `None` if nothing was found against it.
    pub doubt: Option<Doubt>,
}

/// Why a sentence is not supported.
#[derive(Debug, Clone, PartialEq)]
pub enum Doubt {
    /// There is no passage at all.
    NoPassage,
    /// A number, with its unit, that is in no passage.
    Number(String),
    /// A name or identifier that is in no passage.
    Name(String),
    /// The passage says the opposite: one of both has a negation.
    Negation,
    /// A word whose opposite is in the passage.
    Opposite {
        /// The word of the sentence.
        said: String,
        /// The word of the passage.
        found: String,
    },
    /// What stands on both sides of a word such as `than` is swapped.
    Swapped {
        /// The word.
        by: String,
    },
    /// Too few of its words are in the passage, or not together.
    Words {
        /// The percentage that is.
        percent: u32,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPassage => f.write_str("there is no passage that could say it"),
            Self::Number(number) => write!(f, "`{number}` is in no passage that it could be from"),
            Self::Name(name) => write!(f, "`{name}` is in no passage that it could be from"),
            Self::Negation => f.write_str("the passage says the opposite"),
            Self::Opposite { said, found } => write!(f, "it says `{said}` where the passage says `{found}`"),
            Self::Swapped { by } => write!(f, "the passage has the two sides of `{by}` the other way round"),
            Self::Words { percent } => write!(f, "only {percent} % of its words are in a passage together"),
        }
    }
}

/// A passage, prepared for the check of several sentences.
struct EvidencePassage {
    number: u32,
    words: KnownWords,
    /// Its letters and digits in lower case, without what is between them.
    folded: String,
    sentences: Vec<EvidenceSentence>,
}

struct EvidenceSentence {
    text: String,
    words: KnownWords,
}

/// What a sentence states, without its marks.
struct StatedSentence {
    text: String,
    words: Vec<ContentWord>,
    figures: Figures,
    /// Those that the question does not have.
    names: Vec<String>,
}

impl StatedSentence {
    fn of(text: String, asked: &str) -> Self {
        let (words, figures, mut names) = (content_words(&text), Figures::of(&text), names(&text));
        names.retain(|name| !asked.contains(&folded(name)));
        Self { text, words, figures, names }
    }
}

/// The words of a passage or of a part of it.
struct KnownWords {
    terms: ChunkTerms,
    /// The beginnings of its long words: stems do not lead from `deliver` to `delivery`.
    beginnings: BTreeSet<String>,
}

/// A word of a sentence that says what it is about.
struct ContentWord {
    word: QueryWord,
    beginning: Option<String>,
}

/// Checks each sentence of an answer against the passages that it cites, or against all of them if it cites none. Passages have the
/// numbers of their marks. What names of the question occur in an answer need not be in a passage. Sentences that state nothing,
/// such as a question or a word of courtesy, are left out.
pub fn check(question: &str, answer: &str, passages: &[(u32, &str)]) -> Vec<CheckedSentence> {
    let passages: Vec<EvidencePassage> = passages.iter().map(|(number, text)| prepared(*number, text)).collect();
    let highest = passages.iter().map(|passage| passage.number).max().unwrap_or(0);
    let asked = folded(question);
    let mut checked = Vec::new();
    for SentencePlace { first_byte, text } in sentences(answer) {
        let mut marks = CitationFilter::new(highest);
        marks.push(text);
        let cited = marks.cited().clone();
        let stated = StatedSentence::of(without_marks(text), &asked);
        if stated.words.is_empty() || stated.text.trim_end().ends_with('?') {
            continue;
        }
        let mut evidence =
            passages.iter().filter(|passage| cited.is_empty() || cited.contains(&passage.number)).peekable();
        let doubt = match evidence.peek() {
            None => Some(Doubt::NoPassage),
            // One passage that supports it is enough; otherwise the nearest one tells why not.
            Some(_) => {
                let doubts = evidence.map(|passage| doubt(&stated, passage));
                doubts.min_by(|(one, _), (other, _)| one.total_cmp(other)).and_then(|(_, doubt)| doubt)
            }
        };
        checked.push(CheckedSentence { text: text.to_owned(), first_byte, cited, doubt });
    }
    checked
}

/// How far a passage is from supporting a sentence, from 0, and what speaks against it.
fn doubt(stated: &StatedSentence, passage: &EvidencePassage) -> (f64, Option<Doubt>) {
    let StatedSentence { text, words, figures, names } = stated;
    let whole = ratio(words, &passage.words);
    let (near_ratio, near) = nearest(words, &passage.sentences);
    let distance = 2.0 - whole - near_ratio;
    let found = |doubt| (1.0 + distance, Some(doubt));
    if let Some(number) = figures.missing_in(&Figures::of(&near)) {
        return found(Doubt::Number(number));
    }
    if let Some(name) = names.iter().find(|name| !passage.folded.contains(&folded(name))) {
        return found(Doubt::Name(name.clone()));
    }
    if near_ratio < MIN_NEAR_RATIO || whole < MIN_WORDS_RATIO {
        let percent = (near_ratio.min(whole) * 100.0).round() as u32;
        return found(Doubt::Words { percent });
    }
    if let Some((single_ratio, single)) = nearest_single(words, &passage.sentences) {
        match contrast(text, single, &near) {
            Some(Contrast::Negation) if single_ratio >= MIN_SAME_SUBJECT_RATIO => return found(Doubt::Negation),
            Some(Contrast::Opposite { said, found: there }) => return found(Doubt::Opposite { said, found: there }),
            Some(Contrast::Swapped { by }) if single_ratio >= MIN_SAME_SUBJECT_RATIO => {
                return found(Doubt::Swapped { by });
            }
            _ => {}
        }
    }
    (distance, None)
}

fn prepared(number: u32, text: &str) -> EvidencePassage {
    let sentence =
        |place: SentencePlace<'_>| EvidenceSentence { text: place.text.to_owned(), words: KnownWords::of(place.text) };
    EvidencePassage {
        number,
        words: KnownWords::of(text),
        folded: folded(text),
        sentences: sentences(text).map(sentence).collect(),
    }
}

impl KnownWords {
    fn of(text: &str) -> Self {
        let terms = ChunkTerms::of(text, &Language::ALL);
        Self { terms, beginnings: words(text).filter_map(beginning).collect() }
    }

    fn has(&self, word: &ContentWord) -> bool {
        let counts = &self.terms.counts;
        word.word.terms.iter().any(|term| counts.binary_search_by_key(term, |(known, _)| *known).is_ok())
            || word.beginning.as_ref().is_some_and(|beginning| self.beginnings.contains(beginning))
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The beginning of a word that is longer than it.
fn beginning(word: &str) -> Option<String> {
    let is_long = word.chars().count() > BEGINNING_CHARS;
    is_long.then(|| word.chars().take(BEGINNING_CHARS).flat_map(char::to_lowercase).collect())
}

/// The share of the words that occur.
fn ratio(words: &[ContentWord], known: &KnownWords) -> f64 {
    words.iter().filter(|word| known.has(word)).count() as f64 / words.len().max(1) as f64
}

/// The largest share of the words that neighbouring sentences have, and their text.
fn nearest(words: &[ContentWord], sentences: &[EvidenceSentence]) -> (f64, String) {
    let windows = (0..sentences.len()).map(|begin| &sentences[begin..(begin + NEAR_SENTENCES).min(sentences.len())]);
    let together = |window: &[EvidenceSentence]| {
        let has = |word: &&ContentWord| window.iter().any(|sentence| sentence.words.has(word));
        words.iter().filter(has).count() as f64 / words.len().max(1) as f64
    };
    let text = |window: &[EvidenceSentence]| {
        window.iter().map(|sentence| sentence.text.as_str()).collect::<Vec<_>>().join(" ")
    };
    let best = windows.map(|window| (together(window), window)).max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.map_or((0.0, String::new()), |(share, window)| (share, text(window)))
}

fn nearest_single<'s>(words: &[ContentWord], sentences: &'s [EvidenceSentence]) -> Option<(f64, &'s str)> {
    let shares = sentences.iter().map(|sentence| (ratio(words, &sentence.words), sentence.text.as_str()));
    shares.max_by(|(one, _), (other, _)| one.total_cmp(other))
}

/// The words of a sentence that say what it is about.
fn content_words(text: &str) -> Vec<ContentWord> {
    let is_content = |word: &&str| word.chars().count() >= MIN_WORD_CHARS && !contrast::is_function_word(word);
    let mut found: Vec<&str> = Vec::new();
    for word in words(text).filter(is_content).take(MAX_SENTENCE_WORDS) {
        if !found.contains(&word) {
            found.push(word);
        }
    }
    let content = |word: &str| {
        // A word in camel case is one word here.
        let whole = query_words(word, &Language::ALL, 1).into_iter().next()?;
        Some(ContentWord { word: whole, beginning: beginning(word) })
    };
    found.into_iter().filter_map(content).collect()
}

/// Words with a capital within the sentence, and identifiers: what a model must not make up.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_first = true;
    for word in text.split_whitespace() {
        let inside = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '`' && c != '_');
        let is_code = word.contains('`');
        let inside = inside.trim_matches('`');
        let is_identifier = inside.contains('_') || is_code;
        let letters = inside.chars().filter(|c| c.is_alphabetic()).count();
        let has_capital =
            inside.chars().next().is_some_and(char::is_uppercase) || inside.chars().skip(1).any(char::is_uppercase);
        // The first word of a sentence has a capital in any case, unless it has another one inside.
        let is_name = has_capital && (!is_first || inside.chars().skip(1).any(char::is_uppercase));
        if letters > 1 && (is_identifier || is_name) {
            names.extend(inside.split(['\'', '\u{2019}', '-', '/']).next().map(str::to_owned));
        }
        is_first = word.ends_with([':', '.']);
    }
    names.retain(|name| name.chars().count() > 1);
    names
}

/// Letters and digits in lower case.
fn folded(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A sentence without its marks.
fn without_marks(text: &str) -> String {
    let mut marks = CitationFilter::new(0);
    let mut kept = marks.push(text).text;
    kept.push_str(&marks.finish().text);
    kept
}

/// An answer without the sentences that are doubted. What is between sentences stays with the one before it.
pub fn supported_text(answer: &str, checked: &[CheckedSentence]) -> String {
    let mut kept = String::new();
    let mut from = 0;
    for sentence in checked.iter().filter(|sentence| sentence.doubt.is_some()) {
        kept.push_str(&answer[from..sentence.first_byte]);
        from = sentence.first_byte + sentence.text.len();
    }
    kept.push_str(&answer[from..]);
    kept.trim().to_owned()
}

#[cfg(test)]
mod tests;
