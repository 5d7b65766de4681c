//! Which of the old Cyrillic encodings a text is in, if any.
//!
//! Each byte above 127 is read in each encoding. Russian has lowercase words, seldom a capital after a small letter, and its
//! letters have known frequencies; CP1251 and KOI8-R have capitals where the other one has small letters, so a wrong reading
//! is visible in a single word.

use encoding_rs::{Encoding, IBM866, ISO_8859_5, KOI8_U, WINDOWS_1251};

/// KOI8-U is KOI8-R with eight more letters in place of box drawings.
const CANDIDATES: [&Encoding; 4] = [WINDOWS_1251, KOI8_U, IBM866, ISO_8859_5];
/// Letters of Russian in thousandths of a text, from `а` to `я`; `ё` counts as `е`.
const LETTERS_RATIO: [i64; 32] = [
    80, 16, 45, 17, 30, 85, 9, 16, 74, 12, 35, 44, 32, 67, 110, 28, 47, 55, 63, 26, 3, 10, 5, 14, 7, 4, 1, 19, 17, 3,
    6, 20,
];
/// A letter that stands where no text has one: a capital after a small letter, a symbol inside a word.
const MISPLACED_SCORE: i64 = -120;
/// Below it the letters are of no Cyrillic text: Russian has some 50 for each letter, other readings are negative.
const LEAST_SCORE: i64 = 20;

/// The encoding in which the bytes read as Russian, Ukrainian or Bulgarian.
pub(super) fn encoding(sample: &[u8]) -> Option<&'static Encoding> {
    if !has_whole_words(sample) {
        return None;
    }
    let scored = CANDIDATES.into_iter().map(|encoding| (score(encoding, sample), encoding));
    let (best, encoding) = scored.max_by_key(|(score, _)| *score)?;
    (best >= LEAST_SCORE).then_some(encoding)
}

/// Whether the bytes above 127 stand in words of their own, and not as single accents in words of ASCII letters.
fn has_whole_words(sample: &[u8]) -> bool {
    let is_high = |byte: &u8| *byte >= 0x80;
    let (mut words, mut mixed, mut bytes) = (0, 0, 0);
    for word in sample.split(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric()) {
        let high = word.iter().filter(|byte| is_high(byte)).count();
        if high > 0 {
            words += 1;
            bytes += high;
            mixed += usize::from(word.iter().any(u8::is_ascii_alphabetic));
        }
    }
    // Words of a single letter are frequent in Russian, and never all of a text.
    words > 0 && mixed * 4 <= words && bytes * 2 >= words * 4
}

/// The mean score of a byte above 127.
fn score(encoding: &'static Encoding, sample: &[u8]) -> i64 {
    let (text, _) = encoding.decode_without_bom_handling(sample);
    let (mut sum, mut letters, mut previous) = (0, 0, ' ');
    for c in text.chars() {
        if !c.is_ascii() {
            letters += 1;
            sum += letter_score(previous, c);
        }
        previous = c;
    }
    if letters == 0 { i64::MIN } else { sum / letters }
}

fn letter_score(previous: char, c: char) -> i64 {
    let small = c.to_lowercase().next().unwrap_or(c);
    let value = match small {
        'а'..='я' => LETTERS_RATIO[(u32::from(small) - u32::from('а')) as usize],
        'ё' | 'і' | 'ї' | 'є' => 20,
        'ґ' | 'ў' | 'ј' | 'њ' | 'љ' | 'ђ' | 'ћ' | 'џ' | 'ѓ' | 'ќ' | 'ѕ' => -20,
        // Quotes, dashes, the number sign and the like are part of any text.
        '«' | '»' | '—' | '–' | '„' | '“' | '”' | '…' | '№' | '§' | '°' | '\u{a0}' if !previous.is_alphabetic() => {
            0
        }
        '«' | '»' | '—' | '–' | '„' | '“' | '”' | '…' | '№' | '§' | '°' | '\u{a0}' => -5,
        _ => return MISPLACED_SCORE,
    };
    if c.is_uppercase() && previous.is_lowercase() { MISPLACED_SCORE } else { value }
}
