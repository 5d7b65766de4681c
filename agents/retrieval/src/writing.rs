//! Whether an embedding model knows the writing of a knowledge: the vocabulary of one that was trained on English has no words in
//! Cyrillic, so that it tells Russian texts from each other by their letters.

use std::collections::BTreeMap;

use artel_knowledge::GenerationId;
use artel_terms::WritingSystem;

/// Words and parts of words in a writing system that the vocabulary of a model has at least if it was trained on it: those of English
/// models have a few dozen of others, those of multilingual ones tens of thousands.
const MIN_KNOWN_TOKENS: u64 = 500;
/// Letters of a token that is more than a part of an alphabet.
const MIN_TOKEN_CHARS: usize = 3;
/// The part of a knowledge's letters that is worth a warning, of 1.
const MIN_UNKNOWN_RATIO: f64 = 0.05;

/// What was found of the writing of a knowledge, and of which state of it.
pub(crate) struct WritingCheck {
    pub(crate) generation: GenerationId,
    pub(crate) passages: u64,
    pub(crate) model: String,
    pub(crate) warning: Option<String>,
}

/// How many tokens of a vocabulary, or letters of texts, are of each writing system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WritingCounts(BTreeMap<WritingSystem, u64>);

impl WritingCounts {
    /// Counts a token of a vocabulary if it is a word or a part of one, as it stands or by the bytes that its characters stand for.
    pub fn add_token(&mut self, token: &str) {
        let of_bytes = of_bytes(token);
        for reading in [Some(token), of_bytes.as_deref()].into_iter().flatten() {
            if let Some(system) = system_of(reading) {
                *self.0.entry(system).or_default() += 1;
            }
        }
    }

    /// Counts the letters of a text.
    pub(crate) fn add_text(&mut self, text: &str) {
        for letter in text.chars().filter(|c| c.is_alphabetic()) {
            *self.0.entry(WritingSystem::of(letter)).or_default() += 1;
        }
    }

    fn of(&self, system: WritingSystem) -> u64 {
        self.0.get(&system).copied().unwrap_or(0)
    }
}

/// What the owner of a knowledge with these letters should know of a model with this vocabulary, which is empty where it is not known.
pub(crate) fn warning(letters: &WritingCounts, vocabulary: &WritingCounts, model: &str) -> Option<String> {
    if vocabulary.0.is_empty() {
        return None;
    }
    let unknown = letters.0.iter().filter(|(system, _)| vocabulary.of(**system) < MIN_KNOWN_TOKENS);
    let named = unknown.filter_map(|(system, count)| Some((script(*system)?, *count)));
    let (script, count) = named.max_by_key(|(_, count)| *count)?;
    let part = count as f64 / letters.0.values().sum::<u64>().max(1) as f64;
    (part >= MIN_UNKNOWN_RATIO).then(|| {
        format!(
            "{:.0} % of the letters are {script}, of which the embedding model `{model}` knows no words: searches by meaning miss such \
             texts. Name a multilingual model as `embedding`, or take `search: {{mode: keyword}}`",
            100.0 * part
        )
    })
}

/// A writing system in words; several share the last one, so that a vocabulary says nothing of each.
fn script(system: WritingSystem) -> Option<&'static str> {
    match system {
        WritingSystem::Latin => Some("Latin"),
        WritingSystem::Cyrillic => Some("Cyrillic"),
        WritingSystem::Greek => Some("Greek"),
        WritingSystem::Arabic => Some("Arabic"),
        WritingSystem::Unspaced => Some("Chinese, Japanese or another writing without spaces"),
        WritingSystem::Other => None,
    }
}

/// The writing system of a token that is a word or a part of one.
fn system_of(token: &str) -> Option<WritingSystem> {
    let mut letters = token.chars().filter(|c| c.is_alphabetic());
    let system = WritingSystem::of(letters.next()?);
    let is_same = letters.clone().all(|letter| WritingSystem::of(letter) == system);
    // A character is a word there, or most of one.
    let is_word = system == WritingSystem::Unspaced || letters.count() + 1 >= MIN_TOKEN_CHARS;
    (is_same && is_word).then_some(system)
}

/// A token of a vocabulary of bytes, as GPT-2 has it: each byte is a character, those that cannot be printed are some above 255.
fn of_bytes(token: &str) -> Option<String> {
    let byte = |c: char| match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    };
    let bytes = token.chars().map(byte).collect::<Option<Vec<u8>>>()?;
    String::from_utf8(bytes).ok().filter(|text| text != token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(words: &[&str]) -> WritingCounts {
        let mut counts = WritingCounts::default();
        words.iter().cycle().take(words.len() * 600).for_each(|word| counts.add_token(word));
        counts
    }

    fn letters(text: &str) -> WritingCounts {
        let mut counts = WritingCounts::default();
        counts.add_text(text);
        counts
    }

    #[test]
    fn tokens_count_as_they_stand_and_as_bytes() {
        let counts =
            vocabulary(&["\u{2581}house", "##ing", "\u{434}\u{43e}\u{43c}", "\u{44f}", "\u{6f22}", "12", "<unk>"]);
        assert_eq!(counts.of(WritingSystem::Cyrillic), 600, "a letter is no word");
        assert_eq!((counts.of(WritingSystem::Unspaced), counts.of(WritingSystem::Latin)), (600, 1800));
        // " the" and a Russian word, as GPT-2 writes their bytes.
        let word = "\u{120}\u{434}\u{43e}\u{43c}";
        assert_eq!(of_bytes(word), None, "these are no bytes");
        let bytes: String = " \u{434}\u{43e}\u{43c}".bytes().map(of_byte).collect();
        assert_eq!(of_bytes(&bytes).as_deref(), Some(" \u{434}\u{43e}\u{43c}"));
        assert_eq!(vocabulary(&[&bytes]).of(WritingSystem::Cyrillic), 600);
    }

    /// The character of a byte by GPT-2's rule: the printable ones stand for themselves, the others are counted from 256.
    fn of_byte(byte: u8) -> char {
        let is_printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        match is_printable(byte) {
            true => char::from(byte),
            false => {
                let before = (0..byte).filter(|other| !is_printable(*other)).count() as u32;
                char::from_u32(0x100 + before).unwrap()
            }
        }
    }

    #[test]
    fn every_byte_is_read_back() {
        for byte in 0..=0x7f_u8 {
            let shown = of_byte(byte).to_string();
            let read = of_bytes(&shown).unwrap_or(shown);
            assert_eq!(read.as_bytes(), [byte], "{byte:#x}");
        }
    }

    #[test]
    fn letters_that_a_model_has_no_words_of_are_told() {
        let english = vocabulary(&["house", "\u{44f}"]);
        let both = vocabulary(&["house", "\u{434}\u{43e}\u{43c}"]);
        let russian = "\u{434}\u{43e}\u{43c} \u{438} \u{441}\u{430}\u{434} and";
        let told = warning(&letters(russian), &english, "minilm").unwrap();
        assert!(told.starts_with("70 % of the letters are Cyrillic") && told.contains("`minilm`"), "{told}");
        assert_eq!(warning(&letters(russian), &both, "e5"), None);
        assert_eq!(warning(&letters("a house"), &both, "e5"), None);
        assert_eq!(warning(&letters(&format!("{}\u{44f}", "house ".repeat(20))), &english, "minilm"), None, "a letter");
        assert_eq!(warning(&letters(russian), &WritingCounts::default(), "unknown"), None);
    }
}
