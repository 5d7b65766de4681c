//! Text as words: what counts as one, and how different spellings of a word become the same.

use unicode_normalization::UnicodeNormalization as _;

/// How the words of a piece of text are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WritingSystem {
    /// With spaces between words; accents are folded.
    Latin,
    /// With spaces between words.
    Cyrillic,
    /// With spaces between words; accents are folded.
    Greek,
    /// With spaces between words.
    Arabic,
    /// Without spaces between words: each pair of neighbouring characters is a word.
    Unspaced,
    /// Any other, with spaces.
    Other,
}

impl WritingSystem {
    /// That of a character which is part of a word.
    pub fn of(c: char) -> Self {
        match u32::from(c) {
            0x41..=0x5a | 0x61..=0x7a | 0xaa..=0x24f | 0x1e00..=0x1eff => Self::Latin,
            0x370..=0x3ff | 0x1f00..=0x1fff => Self::Greek,
            0x400..=0x52f | 0x1c80..=0x1c8f | 0x2de0..=0x2dff | 0xa640..=0xa69f => Self::Cyrillic,
            0x600..=0x6ff | 0x750..=0x77f | 0x8a0..=0x8ff => Self::Arabic,
            // Thai, Lao, Myanmar, Khmer, kana, Han and its extensions.
            0xe00..=0xeff
            | 0x1000..=0x109f
            | 0x1780..=0x17ff
            | 0x3005..=0x30ff
            | 0x3400..=0x4dbf
            | 0x4e00..=0x9fff
            | 0xf900..=0xfaff
            | 0x20000..=0x3ffff => Self::Unspaced,
            _ => Self::Other,
        }
    }
}

/// A word in lower case, without accents where its writing system has them as an ornament.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoldedWord {
    pub(crate) text: String,
    pub(crate) system: WritingSystem,
}

/// The longest word that is kept whole. What is longer is data, such as a key in base64, of which the beginning is enough.
const MAX_WORD_CHARS: usize = 64;

/// Calls `take` with each word of a text, in order. The parts of a word in camel case follow it.
pub(crate) fn for_each_word(text: &str, mut take: impl FnMut(FoldedWord)) {
    let mut rest = text;
    while let Some(begin) = rest.find(char::is_alphanumeric) {
        let run = &rest[begin..];
        let first = run.chars().next().expect("a character was found");
        let system = WritingSystem::of(first);
        let is_inside = |c: char| {
            (c.is_alphanumeric()
                && (WritingSystem::of(c) == WritingSystem::Unspaced) == (system == WritingSystem::Unspaced))
                || is_mark(c)
        };
        let end = run.find(|c| !is_inside(c)).unwrap_or(run.len());
        let (word, after) = run.split_at(end);
        if system == WritingSystem::Unspaced {
            pairs(word, &mut take);
        } else {
            whole_and_parts(word, system, &mut take);
        }
        rest = after;
    }
}

/// Marks that belong to the letter before them.
fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}

/// Each pair of neighbouring characters, or the only one.
fn pairs(run: &str, take: &mut impl FnMut(FoldedWord)) {
    let folded: Vec<char> = run.nfkc().collect();
    if folded.len() == 1 {
        take(FoldedWord { text: folded.iter().collect(), system: WritingSystem::Unspaced });
    }
    for pair in folded.windows(2) {
        take(FoldedWord { text: pair.iter().collect(), system: WritingSystem::Unspaced });
    }
}

fn whole_and_parts(word: &str, system: WritingSystem, take: &mut impl FnMut(FoldedWord)) {
    let word = word.char_indices().nth(MAX_WORD_CHARS).map_or(word, |(end, _)| &word[..end]);
    take(FoldedWord { text: fold(word, system), system });
    let humps = humps(word);
    if humps.len() > 1 {
        for hump in humps {
            take(FoldedWord { text: fold(hump, system), system });
        }
    }
}

/// `maxOutputBytes` as `max`, `Output`, `Bytes`; a word without an inner capital after a small letter as itself.
fn humps(word: &str) -> Vec<&str> {
    let mut humps = Vec::new();
    let (mut begin, mut was_small) = (0, false);
    for (at, c) in word.char_indices() {
        if c.is_uppercase() && was_small {
            humps.push(&word[begin..at]);
            begin = at;
        }
        was_small = c.is_lowercase();
    }
    humps.push(&word[begin..]);
    humps
}

fn fold(word: &str, system: WritingSystem) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    let composed = word.nfkc().flat_map(char::to_lowercase);
    match system {
        WritingSystem::Latin | WritingSystem::Greek => {
            composed.nfd().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).collect()
        }
        // The dots are left out by most writers.
        WritingSystem::Cyrillic => composed.map(|c| if c == 'ё' { 'е' } else { c }).collect(),
        _ => composed.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        for_each_word(text, |word| words.push(word.text));
        words
    }

    #[test]
    fn words_are_folded() {
        assert_eq!(words("The naïve Café, 24-bit; ЁЛКА «Ёж»"), ["the", "naive", "cafe", "24", "bit", "елка", "еж"]);
        assert_eq!(words("й и\u{306}"), ["й", "й"], "both spellings of one letter, which is not и");
        assert_eq!(words(""), Vec::<String>::new());
    }

    #[test]
    fn names_in_code_are_found_whole_and_in_parts() {
        assert_eq!(words("maxOutputBytes"), ["maxoutputbytes", "max", "output", "bytes"]);
        assert_eq!(words("max_output"), ["max", "output"]);
        assert_eq!(words("HTTP"), ["http"]);
    }

    #[test]
    fn scripts_without_spaces_are_words_of_two_characters() {
        assert_eq!(words("東京都へABC"), ["東京", "京都", "都へ", "abc"]);
        assert_eq!(words("水"), ["水"]);
    }
}
