//! How many tokens a text has, told without its tokenizer.
//!
//! The worker that cuts a file is another process than the engine that embeds it. So the engine's side measures its tokenizer
//! once, on a text of each script, and the worker counts characters by those rates.

use serde::{Deserialize, Serialize};

/// Thousandths of a token for each character of a class. The default is at or above what the tokenizers of MiniLM,
/// multilingual-e5 and SmolLM2 give for prose and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRates {
    /// Latin letters.
    pub latin: u32,
    /// Cyrillic letters.
    pub cyrillic: u32,
    /// Han, Kana and Hangul.
    pub cjk: u32,
    /// Letters of other scripts.
    pub other: u32,
    /// Digits.
    pub digit: u32,
    /// Punctuation and symbols.
    pub symbol: u32,
    /// Spaces and line ends, for each run of them.
    pub space: u32,
}

impl Default for TokenRates {
    fn default() -> Self {
        Self { latin: 350, cyrillic: 1000, cjk: 2200, other: 2000, digit: 1000, symbol: 1000, space: 300 }
    }
}

/// What rates are multiplied by when they are measured: texts differ from the samples.
const MARGIN_PERCENT: usize = 135;
const PER_TOKEN_RATIO: u64 = 1000;

const LATIN_SAMPLE: &str = "The committee published its report on Thursday, nearly three months after the first hearing. Several members \
    had asked for a longer period of consultation, since the proposed regulation concerns manufacturers, laboratories and \
    universities alike. Questions about responsibility remained unanswered; nevertheless everybody agreed that the present \
    arrangement could not continue.";
const CYRILLIC_SAMPLE: &str = "Комиссия опубликовала свой отчёт в четверг, почти через три месяца после первого заседания. \
    Некоторые участники просили продлить обсуждение, поскольку предлагаемые правила касаются производителей, лабораторий и \
    университетов. Вопросы об ответственности остались без ответа; тем не менее все согласились, что нынешний порядок сохранять \
    нельзя.";
const CJK_SAMPLE: &str = "委员会于星期四公布了报告，距离第一次听证会已经过去将近三个月。部分成员要求延长协商时间，因为拟议的规定涉及制造商、实验室和大学。\
    关于责任的问题仍然没有答案；尽管如此，大家一致认为目前的安排不能继续下去。";
const OTHER_SAMPLE: &str = "Η επιτροπή δημοσίευσε την έκθεσή της την Πέμπτη, σχεδόν τρεις μήνες μετά την πρώτη ακρόαση. \
    नियम निर्माताओं और विश्वविद्यालयों से संबंधित है। نشرت اللجنة تقريرها يوم الخميس بعد ثلاثة أشهر تقريبا.";
const DIGIT_SAMPLE: &str =
    "1789 2026 31415926 1000000 48151623 42 7 1999 365 86400 4294967296 0 65535 18446744073709551615";
const SYMBOL_SAMPLE: &str =
    "{}[]();:=<>+-*/&|!?.,\"'#$%^@~`\\_ -> => :: && || != == <= >= += // /* */ \"\" '' $% (){}; [[]]";

impl TokenRates {
    /// The rates of a tokenizer, with a margin; `count` gives the tokens of a text, without those that begin and end one.
    pub fn measured(count: &dyn Fn(&str) -> usize) -> Self {
        // Words alone give the rate of letters: what spaces and punctuation take is in it.
        let rate = |sample: &str, class: CharClass| {
            let chars = sample.chars().filter(|c| CharClass::of(*c) == class).count().max(1);
            let rate = (count(sample) * MARGIN_PERCENT * 10).div_ceil(chars);
            u32::try_from(rate).unwrap_or(u32::MAX)
        };
        Self {
            latin: rate(LATIN_SAMPLE, CharClass::Latin),
            cyrillic: rate(CYRILLIC_SAMPLE, CharClass::Cyrillic),
            cjk: rate(CJK_SAMPLE, CharClass::Cjk),
            other: rate(OTHER_SAMPLE, CharClass::Other),
            digit: rate(DIGIT_SAMPLE, CharClass::Digit),
            symbol: rate(SYMBOL_SAMPLE, CharClass::Symbol),
            space: Self::default().space,
        }
    }

    /// How many tokens a text has, at most, as a rule.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        let (mut sum, mut in_space) = (0u64, false);
        for c in text.chars() {
            let class = CharClass::of(c);
            let rate = match class {
                CharClass::Latin => self.latin,
                CharClass::Cyrillic => self.cyrillic,
                CharClass::Cjk => self.cjk,
                CharClass::Other => self.other,
                CharClass::Digit => self.digit,
                CharClass::Symbol => self.symbol,
                CharClass::Space if in_space => 0,
                CharClass::Space => self.space,
            };
            in_space = class == CharClass::Space;
            sum += u64::from(rate);
        }
        usize::try_from(sum.div_ceil(PER_TOKEN_RATIO)).unwrap_or(usize::MAX)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CharClass {
    Latin,
    Cyrillic,
    Cjk,
    Other,
    Digit,
    Symbol,
    Space,
}

impl CharClass {
    fn of(c: char) -> Self {
        match c {
            'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' => Self::Latin,
            '0'..='9' => Self::Digit,
            '\u{400}'..='\u{52f}' => Self::Cyrillic,
            '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{20000}'..='\u{3ffff}' => {
                Self::Cjk
            }
            _ if c.is_whitespace() => Self::Space,
            _ if c.is_alphabetic() => Self::Other,
            _ => Self::Symbol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_have_rates_of_their_own() {
        let rates = TokenRates::default();
        assert_eq!(rates.count(""), 0);
        assert!(rates.count("Hello world") < rates.count("Привет мир!"));
        assert_eq!(rates.count("a\n\n\n   \n a"), rates.count("a a"));
    }

    #[test]
    fn measured_rates_count_at_least_what_was_measured() {
        // A tokenizer of words and single symbols.
        let words = |text: &str| {
            text.split_whitespace().map(|word| 1 + word.chars().filter(|c| !c.is_alphanumeric()).count()).sum::<usize>()
        };
        let rates = TokenRates::measured(&words);
        for sample in [LATIN_SAMPLE, CYRILLIC_SAMPLE, DIGIT_SAMPLE, SYMBOL_SAMPLE] {
            assert!(rates.count(sample) >= words(sample), "{sample}");
        }
        assert!(rates.cyrillic < TokenRates::default().cyrillic);
    }
}
