//! Citations that cannot be invented: marks such as `[2]` are checked while a text streams, and those that name no passage never
//! reach the client.
//!
//! A mark is a number, several, or a range in square brackets: `[1]`, `[1, 2]`, `[1-3]`, `[1; 4-6]`. A mark whose numbers are all
//! known passes as it is; unknown numbers are taken out of it; a mark of unknown ones alone is dropped with the space before it. The
//! rule has no exception for code: `a[10]` loses its index unless there is a tenth passage, since a client cannot tell the two apart.

use std::collections::BTreeSet;

/// What is held back of a text at most, while it may become a mark: a mark of dozens of numbers.
const MAX_HELD_BYTES: usize = 256;

/// What passed of a piece of text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckedText {
    /// What reaches the client.
    pub text: String,
    /// The marks in it.
    pub marks: Vec<CitationMark>,
}

/// A mark in a checked text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CitationMark {
    /// Where its bracket opens, in bytes of all the text that has passed.
    pub at: usize,
    /// The passages that it names.
    pub passages: BTreeSet<u32>,
}

/// Checks the marks of one text while it streams.
#[derive(Debug, Clone)]
pub struct CitationFilter {
    /// Passages are numbered from 1 to this.
    passages: u32,
    /// What may become a mark: an optional space, then brackets that opened, digits and separators.
    held: String,
    /// Whether a mark was too long to hold: the rest of it is dropped.
    is_overlong: bool,
    /// The bytes that have passed.
    passed_bytes: usize,
    cited: BTreeSet<u32>,
    dropped: usize,
}

/// What the inside of brackets says.
enum MarkReading {
    /// It is a mark, and these of its numbers are known.
    Mark { known: BTreeSet<u32>, is_all_known: bool },
    /// It is other text.
    Other,
}

impl CitationFilter {
    /// A filter for a text that may cite the passages 1 to `passages`.
    pub fn new(passages: u32) -> Self {
        Self { passages, held: String::new(), is_overlong: false, passed_bytes: 0, cited: BTreeSet::new(), dropped: 0 }
    }

    /// Takes the next piece of the text, and returns what of it and of earlier ones can pass.
    pub fn push(&mut self, piece: &str) -> CheckedText {
        let mut checked = CheckedText::default();
        for c in piece.chars() {
            self.take(c, &mut checked);
        }
        checked
    }

    /// Ends the text: what was held back is no mark.
    pub fn finish(&mut self) -> CheckedText {
        let mut checked = CheckedText::default();
        self.release(&mut checked);
        self.is_overlong = false;
        checked
    }

    /// The passages that were cited so far.
    pub fn cited(&self) -> &BTreeSet<u32> {
        &self.cited
    }

    /// The number of marks that were dropped, or lost a number.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    fn take(&mut self, c: char, checked: &mut CheckedText) {
        if self.is_overlong {
            // What belongs to the mark goes with it.
            self.is_overlong = is_inside(c);
            if c == ']' || self.is_overlong {
                return;
            }
        }
        match c {
            ' ' if !self.held.contains('[') => {
                self.release(checked);
                self.held.push(' ');
            }
            '[' => self.held.push('['),
            ']' if self.held.contains('[') => self.close(checked),
            _ if is_inside(c) && self.held.contains('[') => self.held.push(c),
            _ => {
                self.release(checked);
                self.pass(c.encode_utf8(&mut [0; 4]), checked);
            }
        }
        if self.held.len() > MAX_HELD_BYTES {
            self.held.clear();
            self.is_overlong = true;
            self.dropped += 1;
        }
    }

    /// A bracket closes: what is between it and the last one that opened is a mark, or not.
    fn close(&mut self, checked: &mut CheckedText) {
        let open = self.held.rfind('[').expect("a bracket is open");
        match self.read(&self.held[open + 1..]) {
            MarkReading::Mark { known, .. } if known.is_empty() => {
                self.dropped += 1;
                self.held.truncate(open);
                // The space before a mark belongs to it. What is left may still be the beginning of another one.
                if self.held == " " {
                    self.held.clear();
                }
            }
            MarkReading::Mark { known, is_all_known } => {
                if !is_all_known {
                    self.dropped += 1;
                    let numbers: Vec<_> = known.iter().map(u32::to_string).collect();
                    self.held.truncate(open + 1);
                    self.held.push_str(&numbers.join(", "));
                }
                self.held.push(']');
                self.cited.extend(&known);
                checked.marks.push(CitationMark { at: self.passed_bytes + open, passages: known });
                self.release(checked);
            }
            MarkReading::Other => {
                self.held.push(']');
                self.release(checked);
            }
        }
    }

    fn read(&self, inside: &str) -> MarkReading {
        let mut known = BTreeSet::new();
        let mut is_all_known = true;
        for item in inside.split([',', ';']) {
            let mut bounds = item.split(is_dash).map(str::trim);
            let (Some(first), last, None) = (bounds.next(), bounds.next(), bounds.next()) else {
                return MarkReading::Other;
            };
            let last = last.unwrap_or(first);
            if !is_number(first) || !is_number(last) {
                return MarkReading::Other;
            }
            // A number beyond 32 bits is known as little as any other that is too high.
            let (first, last) = (first.parse().unwrap_or(u32::MAX), last.parse().unwrap_or(u32::MAX));
            is_all_known &= first >= 1 && first <= last && last <= self.passages;
            known.extend(first.max(1)..=last.min(self.passages));
        }
        MarkReading::Mark { known, is_all_known }
    }

    fn release(&mut self, checked: &mut CheckedText) {
        let held = std::mem::take(&mut self.held);
        self.pass(&held, checked);
    }

    fn pass(&mut self, text: &str, checked: &mut CheckedText) {
        self.passed_bytes += text.len();
        checked.text.push_str(text);
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2013}' | '\u{2014}')
}

/// What can stand between the brackets of a mark.
fn is_inside(c: char) -> bool {
    c.is_ascii_digit() || c == ' ' || c == ',' || c == ';' || is_dash(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked(passages: u32, pieces: &[&str]) -> (String, Vec<(usize, Vec<u32>)>, usize) {
        let mut filter = CitationFilter::new(passages);
        let mut parts: Vec<CheckedText> = pieces.iter().map(|piece| filter.push(piece)).collect();
        parts.push(filter.finish());
        let text: String = parts.iter().map(|part| part.text.as_str()).collect();
        let marks = parts.iter().flat_map(|part| &part.marks);
        let marks = marks.map(|mark| (mark.at, mark.passages.iter().copied().collect())).collect();
        (text, marks, filter.dropped())
    }

    fn text(passages: u32, text: &str) -> String {
        checked(passages, &[text]).0
    }

    #[test]
    fn known_marks_pass_and_are_told() {
        let (passed, marks, dropped) = checked(3, &["It is so [1]. And [2, 3][1-2]."]);
        assert_eq!(passed, "It is so [1]. And [2, 3][1-2].");
        assert_eq!(marks, [(9, vec![1]), (18, vec![2, 3]), (24, vec![1, 2])]);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn unknown_marks_are_dropped() {
        assert_eq!(text(2, "It is so [3]."), "It is so.");
        assert_eq!(text(2, "[0] It"), " It");
        assert_eq!(text(2, "a [1, 7] b [7, 8] c [2-9]"), "a [1] b c [2]");
        assert_eq!(text(2, "a[99999999999999999999]"), "a");
        assert_eq!(text(0, "a [1] b"), "a b");
        assert_eq!(text(5, "[4-2]"), "", "a range that goes backwards has none");
        assert_eq!(text(9, "[1\u{2013}3; 5]"), "[1\u{2013}3; 5]");
    }

    #[test]
    fn dropping_one_mark_makes_no_other() {
        assert_eq!(text(2, "[[9]8]"), "");
        assert_eq!(text(2, "[[9]1]"), "[1]");
        assert_eq!(text(2, "[ [9][9]7]"), "");
        assert_eq!(text(2, "[[1]9]"), "[[1]9]");
    }

    #[test]
    fn other_brackets_pass() {
        for passed in [
            "[a]",
            "a [link](https://x)",
            "[1, two]",
            "[]",
            "[ ]",
            "[1-2-3]",
            "[-1]",
            "[,]",
            "]",
            "[",
            "x [1",
            "a  b ",
            "[1",
        ] {
            assert_eq!(text(2, passed), passed);
        }
    }

    #[test]
    fn a_mark_that_never_ends_is_not_held_for_ever() {
        let mut filter = CitationFilter::new(2);
        let mut passed = filter.push("a [9").text;
        for _ in 0..1000 {
            passed += &filter.push(", 9").text;
            assert!(filter.held.len() <= MAX_HELD_BYTES);
        }
        passed += &filter.push("] b [1]").text;
        passed += &filter.finish().text;
        assert_eq!(passed, "a b [1]");
    }

    #[test]
    fn nothing_is_held_back_without_need() {
        let mut filter = CitationFilter::new(2);
        assert_eq!(filter.push("so it is").text, "so it is");
        assert_eq!(filter.push(" [1").text, "");
        assert_eq!(filter.push("]").text, " [1]");
    }

    /// The marks of a text, read independently of the filter.
    fn marks_of(text: &str) -> Vec<Vec<u64>> {
        let mut marks = Vec::new();
        for (open, _) in text.match_indices('[') {
            let rest = &text[open + 1..];
            let Some(close) = rest.find(']') else { continue };
            let numbers = rest[..close].split([',', ';', '-', '\u{2013}', '\u{2014}']).map(|n| n.trim().parse());
            if let Ok(numbers) = numbers.collect::<Result<Vec<u64>, _>>() {
                marks.push(numbers);
            }
        }
        marks
    }

    fn pieces() -> impl Strategy<Value = Vec<String>> {
        let piece = prop_oneof![
            "[\\[\\]0-4,; -]{0,6}",
            Just("[1]".to_owned()),
            Just(" [1, 7]".to_owned()),
            Just("[2-3]".to_owned()),
            "[a-zé \u{2013}]{0,4}",
        ];
        prop::collection::vec(piece, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_cut_gives_the_same_and_no_unknown_mark_passes(pieces in pieces(), passages in 0_u32..4) {
            let whole: String = pieces.concat();
            let expected = checked(passages, &[&whole]);
            let cut: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(&checked(passages, &cut), &expected);
            let chars: Vec<String> = whole.chars().map(String::from).collect();
            let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
            prop_assert_eq!(&checked(passages, &chars), &expected);
            // A range such as 1-2-3 is no mark, but its reading here takes its numbers, so more than two are left out.
            for numbers in marks_of(&expected.0).into_iter().filter(|numbers| numbers.len() == 1) {
                prop_assert!((1..=u64::from(passages)).contains(&numbers[0]), "{} in {}", numbers[0], expected.0);
            }
            for (at, known) in &expected.1 {
                prop_assert!(expected.0[*at..].starts_with('['), "{} in {}", at, expected.0);
                prop_assert!(known.iter().all(|n| (1..=passages).contains(n)));
            }
            prop_assert_eq!(text(passages, &expected.0), expected.0, "what passed passes again");
        }
    }
}
