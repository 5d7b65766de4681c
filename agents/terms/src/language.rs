//! The languages whose words are reduced to stems, and which of them a text is in.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};
use serde::{Deserialize, Serialize};

use crate::words::{FoldedWord, WritingSystem, for_each_word};

/// A language whose words are reduced to stems. A text in another one is found by its words as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Language {
    English,
    Russian,
    German,
    French,
    Spanish,
    Italian,
    Portuguese,
    Dutch,
    Swedish,
    Greek,
    Arabic,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::English,
        Self::Russian,
        Self::German,
        Self::French,
        Self::Spanish,
        Self::Italian,
        Self::Portuguese,
        Self::Dutch,
        Self::Swedish,
        Self::Greek,
        Self::Arabic,
    ];

    /// The language of most words of a text; `None` if that is none of these, or the text has no words.
    pub fn of_text(text: &str) -> Option<Self> {
        let mut words = Vec::new();
        for_each_word(text, |word| words.push(word));
        let mut counts: BTreeMap<WritingSystem, usize> = BTreeMap::new();
        words.iter().for_each(|word| *counts.entry(word.system).or_default() += 1);
        let (system, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        match system {
            WritingSystem::Latin => latin_language(&words, &Self::ALL),
            system => Self::ALL.into_iter().find(|language| language.system() == system),
        }
    }

    /// The language of an ISO 639-1 code, if its words are reduced to stems here.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.code() == code)
    }

    /// Its ISO 639-1 code.
    pub fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Russian => "ru",
            Self::German => "de",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::Italian => "it",
            Self::Portuguese => "pt",
            Self::Dutch => "nl",
            Self::Swedish => "sv",
            Self::Greek => "el",
            Self::Arabic => "ar",
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::English => Algorithm::English,
            Self::Russian => Algorithm::Russian,
            Self::German => Algorithm::German,
            Self::French => Algorithm::French,
            Self::Spanish => Algorithm::Spanish,
            Self::Italian => Algorithm::Italian,
            Self::Portuguese => Algorithm::Portuguese,
            Self::Dutch => Algorithm::Dutch,
            Self::Swedish => Algorithm::Swedish,
            Self::Greek => Algorithm::Greek,
            Self::Arabic => Algorithm::Arabic,
        }
    }

    fn system(self) -> WritingSystem {
        match self {
            Self::Russian => WritingSystem::Cyrillic,
            Self::Greek => WritingSystem::Greek,
            Self::Arabic => WritingSystem::Arabic,
            _ => WritingSystem::Latin,
        }
    }

    /// Frequent short words, folded, by which the languages of the Latin script are told apart.
    fn stop_words(self) -> &'static [&'static str] {
        match self {
            Self::English => &[
                "the", "of", "and", "to", "is", "that", "it", "for", "was", "with", "as", "by", "are", "this", "be",
                "at", "from", "or", "which", "not", "have", "you", "what", "how", "when", "does", "do", "can", "if",
            ],
            Self::German => &[
                "der", "die", "das", "und", "ist", "nicht", "ein", "eine", "zu", "den", "mit", "von", "auf", "fur",
                "im", "dem", "sich", "des", "auch", "wie", "wird", "oder", "werden", "was", "wenn", "bei", "kann",
            ],
            Self::French => &[
                "le", "la", "les", "des", "et", "est", "une", "un", "du", "que", "dans", "pour", "qui", "pas", "sur",
                "au", "avec", "par", "ce", "sont", "plus", "ne", "il", "cette", "ou", "comment", "quel",
            ],
            Self::Spanish => &[
                "el", "la", "los", "las", "y", "es", "una", "un", "del", "que", "en", "para", "por", "no", "con", "se",
                "como", "su", "lo", "al", "mas", "este", "esta", "son", "cual", "cuando",
            ],
            Self::Italian => &[
                "il", "la", "gli", "le", "e", "una", "un", "di", "che", "in", "per", "non", "con", "si", "come", "del",
                "della", "sono", "piu", "questo", "anche", "nel", "alla", "dei", "quale", "quando",
            ],
            Self::Portuguese => &[
                "o", "a", "os", "as", "e", "uma", "um", "do", "da", "que", "em", "para", "por", "nao", "com", "se",
                "como", "dos", "das", "no", "na", "mais", "este", "sao", "qual", "quando", "ao",
            ],
            Self::Dutch => &[
                "de", "het", "een", "en", "van", "is", "dat", "op", "te", "zijn", "met", "voor", "niet", "aan", "er",
                "om", "ook", "als", "bij", "door", "wordt", "naar", "hoe", "wat", "of",
            ],
            Self::Swedish => &[
                "och", "att", "det", "som", "en", "pa", "ar", "av", "for", "med", "den", "till", "inte", "om", "ett",
                "har", "de", "kan", "var", "fran", "eller", "hur", "vad", "nar",
            ],
            Self::Russian | Self::Greek | Self::Arabic => &[],
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::English => "english",
            Self::Russian => "russian",
            Self::German => "german",
            Self::French => "french",
            Self::Spanish => "spanish",
            Self::Italian => "italian",
            Self::Portuguese => "portuguese",
            Self::Dutch => "dutch",
            Self::Swedish => "swedish",
            Self::Greek => "greek",
            Self::Arabic => "arabic",
        })
    }
}

/// The languages of a stop word.
static STOP_WORDS: LazyLock<HashMap<&'static str, Vec<Language>>> = LazyLock::new(|| {
    let mut words: HashMap<_, Vec<_>> = HashMap::new();
    for language in Language::ALL {
        for word in language.stop_words() {
            words.entry(*word).or_default().push(language);
        }
    }
    words
});

/// The stemmers, in the order of [`Language::ALL`].
static STEMMERS: LazyLock<Vec<Stemmer>> =
    LazyLock::new(|| Language::ALL.map(|language| Stemmer::create(language.algorithm())).into());

/// Ukrainian and Belarusian letters: the Russian stemmer would cut such words in the wrong places.
const NOT_RUSSIAN: [char; 5] = ['і', 'ї', 'є', 'ґ', 'ў'];

/// The stem of a word; `None` if the language is not written so, or the stem is the word itself.
pub(crate) fn stem(word: &FoldedWord, language: Language) -> Option<String> {
    let is_foreign = language.system() != word.system
        || word.text.contains(|c: char| c.is_ascii_digit())
        || (language == Language::Russian && word.text.contains(NOT_RUSSIAN));
    if is_foreign {
        return None;
    }
    let stem = STEMMERS[language as usize].stem(&word.text);
    (*stem != *word.text && !stem.is_empty()).then(|| stem.into_owned())
}

/// The language whose stop words are the most frequent among these words of Latin script; English if there are none. Words of
/// other scripts have one language each.
pub(crate) fn latin_language(words: &[FoldedWord], among: &[Language]) -> Option<Language> {
    let latin: Vec<_> = among.iter().copied().filter(|language| language.system() == WritingSystem::Latin).collect();
    let mut counts = [0_u32; Language::ALL.len()];
    for word in words.iter().filter(|word| word.system == WritingSystem::Latin) {
        for language in STOP_WORDS.get(word.text.as_str()).into_iter().flatten() {
            counts[*language as usize] += 1;
        }
    }
    // The first of equals: English leads the list.
    latin.into_iter().rev().max_by_key(|language| counts[*language as usize])
}

/// The language in which a word of this script is reduced to its stem.
pub(crate) fn language_of(word: &FoldedWord, latin: Option<Language>, among: &[Language]) -> Option<Language> {
    match word.system {
        WritingSystem::Latin => latin,
        system => among.iter().copied().find(|language| language.system() == system),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<FoldedWord> {
        let mut words = Vec::new();
        for_each_word(text, |word| words.push(word));
        words
    }

    #[test]
    fn a_text_is_in_the_language_of_most_of_its_words() {
        let told = |text| Language::of_text(text).map(Language::code);
        assert_eq!(told("Когда вы открываетесь? Shop"), Some("ru"));
        assert_eq!(told("wo ist die Lampe, und was ist mit der Kette?"), Some("de"));
        assert_eq!((told("店はいつ開きますか"), told("17 + 4"), told("")), (None, None, None));
    }

    fn stems(text: &str) -> Vec<String> {
        let words = words(text);
        let latin = latin_language(&words, &Language::ALL);
        let stem_of = |word: &FoldedWord| {
            let language = language_of(word, latin, &Language::ALL);
            language.and_then(|language| stem(word, language)).unwrap_or_else(|| word.text.clone())
        };
        words.iter().map(stem_of).collect()
    }

    #[test]
    fn languages_are_told_by_their_stop_words() {
        let told = |text| latin_language(&words(text), &Language::ALL);
        assert_eq!(told("the size of the window and what it is for"), Some(Language::English));
        assert_eq!(told("die Größe des Fensters und wie sie eingestellt wird"), Some(Language::German));
        assert_eq!(told("la taille de la fenêtre et les options qui sont dans le menu"), Some(Language::French));
        assert_eq!(told("el tamaño de los archivos y como se cambia"), Some(Language::Spanish));
        assert_eq!(told("window size"), Some(Language::English), "without a sign, the most frequent");
        assert_eq!(latin_language(&words("window size"), &[Language::Russian]), None);
    }

    #[test]
    fn forms_of_a_word_have_one_stem() {
        assert_eq!(stems("документы документами документ")[0], stems("документам")[0]);
        assert_eq!(stems("the connections connected")[1..], ["connect", "connect"]);
        assert_eq!(stems("Пакеты for the packages")[0], stems("пакет")[0], "each word by its script");
        assert_eq!(stems("книгі"), ["книгі"], "not Russian");
        assert_eq!(stems("v2s 1990s"), ["v2s", "1990s"], "names and numbers stay");
    }

    #[test]
    fn the_stemmers_are_in_the_order_of_the_languages() {
        for (at, language) in Language::ALL.into_iter().enumerate() {
            assert_eq!(language as usize, at);
        }
    }
}
