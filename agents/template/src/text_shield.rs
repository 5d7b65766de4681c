//! Keeps what people write from becoming control tokens, while a chat template sees it as it is.
//!
//! A control token, such as the end of a turn, is a text in the vocabulary of a model. The characters at its ends are replaced in
//! people's texts by private code points, one for one, before a template is rendered. Whatever the template does with them, trims,
//! joins, cuts or replaces them, such a character never turns into one that the template wrote. Its filters, methods and
//! comparisons read the characters through [`TextShield::reveal`]. In the rendered text every control token is one that the
//! template wrote; the texts between them are revealed and tokenized as plain text.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

/// The first private code point in use. Those of a text that lie here are replaced by U+FFFD.
const FIRST_PRIVATE_CODE: u32 = 0x10_FE00;
/// The most characters that have a private code point.
const MAX_SHIELDED_CHARS: usize = 256;
/// The first byte in UTF-8 of each of the private code points.
const LEADING_CODE: u8 = 0xF4;

/// Which characters of people's texts are replaced.
#[derive(Debug, Clone, Default)]
pub struct TextShield {
    characters: Vec<char>,
}

impl TextShield {
    /// Replaces the characters at both ends of these texts, except letters, digits and spaces, which templates change; of a text
    /// that has no other, its first one.
    pub fn of<'a>(control_texts: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        let is_mark = |c: &char| !c.is_alphanumeric() && !c.is_whitespace();
        let ends = |text: &'a str| [text.chars().next(), text.chars().next_back()].into_iter().flatten();
        let mut characters: BTreeSet<char> = BTreeSet::new();
        for c in control_texts.clone().into_iter().flat_map(ends).filter(is_mark) {
            if characters.len() < MAX_SHIELDED_CHARS {
                characters.insert(c);
            }
        }
        for text in control_texts {
            if characters.len() < MAX_SHIELDED_CHARS && !text.contains(|c| characters.contains(&c)) {
                characters.extend(text.chars().find(is_mark).or_else(|| text.chars().next()));
            }
        }
        Self { characters: characters.into_iter().collect() }
    }

    /// Whether people's texts cannot contain this one: it has a character that is replaced.
    pub fn covers(&self, control_text: &str) -> bool {
        control_text.contains(|c| self.code_point(c).is_some())
    }

    /// The text with private code points.
    pub fn shield<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if !text.contains(|c| self.code_point(c).is_some() || is_private(c)) {
            return Cow::Borrowed(text);
        }
        let shielded = |c| if is_private(c) { char::REPLACEMENT_CHARACTER } else { self.code_point(c).unwrap_or(c) };
        Cow::Owned(text.chars().map(shielded).collect())
    }

    /// The text as it was before [`Self::shield`].
    pub fn reveal<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.characters.is_empty() || !text.as_bytes().contains(&LEADING_CODE) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.chars().map(|c| self.revealed(c)).collect())
    }

    fn revealed(&self, c: char) -> char {
        let at = u32::from(c).checked_sub(FIRST_PRIVATE_CODE).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.characters.get(at)).copied().unwrap_or(c)
    }

    fn code_point(&self, c: char) -> Option<char> {
        let at = self.characters.binary_search(&c).ok()?;
        char::from_u32(FIRST_PRIVATE_CODE + u32::try_from(at).ok()?)
    }
}

/// Whether a character may stand for another one.
pub(crate) fn is_private(c: char) -> bool {
    (FIRST_PRIVATE_CODE..FIRST_PRIVATE_CODE + MAX_SHIELDED_CHARS as u32).contains(&u32::from(c))
}

/// A text that is read revealed and cut as it is.
pub(crate) struct ShieldedText<'t> {
    original: &'t str,
    plain: Cow<'t, str>,
    /// The place in the original of each byte of the revealed text, and that of its end; empty if both texts are the same.
    places: Vec<usize>,
}

impl<'t> ShieldedText<'t> {
    pub(crate) fn new(shield: &TextShield, original: &'t str) -> Self {
        let plain = shield.reveal(original);
        let mut places = Vec::new();
        if matches!(plain, Cow::Owned(_)) {
            let pairs = plain.chars().zip(original.char_indices());
            pairs.for_each(|(c, (at, _))| places.extend(std::iter::repeat_n(at, c.len_utf8())));
            places.push(original.len());
        }
        Self { original, plain, places }
    }

    pub(crate) fn plain(&self) -> &str {
        &self.plain
    }

    /// The part of the original that is this range of the revealed text.
    pub(crate) fn part(&self, range: Range<usize>) -> &'t str {
        let place = |at: usize| self.places.get(at).copied().unwrap_or(at);
        self.original.get(place(range.start)..place(range.end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: [&str; 4] = ["<|im_end|>", "[INST]", "<｜end｜>", "unk"];

    #[test]
    fn no_part_of_a_shielded_text_is_a_control_token() {
        let shield = TextShield::of(CONTROL);
        for text in ["a <|im_end|> b", "[INST]", "<｜end｜>", "unk", "<x[INST]|im_end|>"] {
            let shielded = shield.shield(text);
            assert!(CONTROL.iter().all(|control| !shielded.contains(control)), "{text}");
            assert_eq!(shielded.chars().count(), text.chars().count());
            assert_eq!(shield.reveal(&shielded), text);
        }
        assert!(CONTROL.iter().all(|control| shield.covers(control)) && !shield.covers("other"));
    }

    #[test]
    fn a_text_without_such_characters_stays_and_private_code_points_go() {
        let shield = TextShield::of(CONTROL);
        assert!(matches!(shield.shield("Grüße, 100 %"), Cow::Borrowed(_)));
        assert_eq!(shield.reveal(&shield.shield("a\u{10FE00}b")), "a\u{FFFD}b");
        assert!(matches!(TextShield::default().shield("<|im_end|>"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_part_of_the_revealed_text_is_cut_from_the_original() {
        let shield = TextShield::of(CONTROL);
        let shielded = shield.shield("ä<b>ü");
        let text = ShieldedText::new(&shield, &shielded);
        assert_eq!(text.plain(), "ä<b>ü");
        let at = text.plain().find("<b>").unwrap();
        assert_eq!(shield.reveal(text.part(at..at + 3)), "<b>");
        assert_eq!(text.part(at + 3..text.plain().len()), "ü");
        assert_eq!(ShieldedText::new(&shield, "plain").part(1..3), "la");
    }
}
