//! The sentences of a text.

/// A sentence in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentencePlace<'t> {
    pub(super) first_byte: usize,
    /// With the marks that follow its end.
    pub(super) text: &'t str,
}

/// The sentences of a text: they end at a full stop, at a question or exclamation mark, and at an empty line or an item of a list.
/// Marks behind the end belong to the sentence.
pub(super) fn sentences(text: &str) -> impl Iterator<Item = SentencePlace<'_>> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let begin = rest + text[rest..].find(|c: char| !c.is_whitespace())?;
        let end = begin + end_of_first(&text[begin..]);
        rest = end;
        Some(SentencePlace { first_byte: begin, text: text[begin..end].trim_end() })
    })
}

/// Where the first sentence of a text ends.
fn end_of_first(text: &str) -> usize {
    for (at, c) in text.char_indices() {
        let after = at + c.len_utf8();
        match c {
            '\n' if is_new_item(&text[after..]) => return after,
            '.' | '!' | '?' | '\u{2026}' | '\u{3002}' => {
                let closed = after + closing_len(&text[after..]);
                let marked = closed + marks_len(&text[closed..]);
                if is_end(&text[..at], c, &text[marked..]) {
                    return marked;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// Whether a line begins a paragraph or an item of a list.
fn is_new_item(line: &str) -> bool {
    let line = line.trim_start_matches([' ', '\t']);
    line.starts_with(['\n', '|', '#']) || line.starts_with("- ") || line.starts_with("* ") || {
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && line[digits..].starts_with(". ")
    }
}

/// Quotes and brackets that close behind an end.
fn closing_len(text: &str) -> usize {
    text.len()
        - text.trim_start_matches(['"', '\'', ')', '\u{201d}', '\u{2019}', '\u{bb}', '*', '`', '.', '!', '?']).len()
}

/// Marks of citations behind an end, with the spaces before them.
fn marks_len(text: &str) -> usize {
    let mut len = 0;
    loop {
        let rest = &text[len..];
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        let Some(inside) = rest[spaces..].strip_prefix('[') else { return len };
        let Some(close) = inside.find(']') else { return len };
        let is_mark = close > 0 && inside[..close].chars().all(|c| c.is_ascii_digit() || " ,;-\u{2013}".contains(c));
        if !is_mark {
            return len;
        }
        len += spaces + 1 + close + 1;
    }
}

/// Whether a sentence ends between these: a full stop within a number, a name or an abbreviation does not end it.
fn is_end(before: &str, end: char, after: &str) -> bool {
    let Some(next) = after.chars().next() else { return true };
    if !next.is_whitespace() {
        return end == '\u{3002}';
    }
    let next = after.trim_start().chars().next();
    if next.is_some_and(char::is_lowercase) {
        return false;
    }
    let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    // An initial, and what is usually followed by a capital or a number.
    let is_initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    let is_abbreviation = ["e.g", "i.e", "cf", "vs", "Mr", "Mrs", "Dr", "No", "Nr", "z.B", "т.е", "т.д", "гл", "стр"];
    end != '.' || !(is_initial || is_abbreviation.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        sentences(text).map(|place| place.text).collect()
    }

    #[test]
    fn sentences_end_where_a_reader_ends_them() {
        assert_eq!(split("One. Two! Three? Four"), ["One.", "Two!", "Three?", "Four"]);
        assert_eq!(
            split("It takes 1.5 s, e.g. Tuesdays, i.e. often. Next."),
            ["It takes 1.5 s, e.g. Tuesdays, i.e. often.", "Next."]
        );
        assert_eq!(split("At four [1]. At five. [2] [3, 4] Then."), ["At four [1].", "At five. [2] [3, 4]", "Then."]);
        assert_eq!(split("Say \"no.\" And go."), ["Say \"no.\"", "And go."]);
        assert_eq!(split("A list:\n- one\n- two\n\nNew one"), ["A list:", "- one", "- two", "New one"]);
        assert_eq!(split("file.md is read. J. Doe wrote it."), ["file.md is read.", "J. Doe wrote it."]);
        assert_eq!(split("Да. Нет."), ["Да.", "Нет."]);
        assert_eq!(split(" \n "), Vec::<&str>::new());
    }

    #[test]
    fn every_sentence_is_where_it_says() {
        let text = "  One.\n\nTwo [1].  Three";
        for place in sentences(text) {
            assert_eq!(&text[place.first_byte..place.first_byte + place.text.len()], place.text);
        }
    }
}
