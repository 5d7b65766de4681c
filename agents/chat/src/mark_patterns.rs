//! Marks as the bytes of an output, in which control tokens are told from text.

use crate::reasoning_marks::ReasoningMarks;

/// Stands before the text of a control token. It occurs in no UTF-8.
const CONTROL_START_CODE: u8 = 0xFF;
/// Stands behind the text of a control token.
const CONTROL_END_CODE: u8 = 0xFE;
/// Replaces both where a model writes them as text: as invalid as they are.
const INVALID_CODE: u8 = 0xC0;

/// Appends the text of a control token to the bytes of an output.
pub fn append_control(text: &[u8], out: &mut Vec<u8>) {
    out.push(CONTROL_START_CODE);
    out.extend_from_slice(text);
    out.push(CONTROL_END_CODE);
}

/// Appends what is not a control token.
pub fn append_text(text: &[u8], out: &mut Vec<u8>) {
    let plain = |byte: &u8| if *byte >= CONTROL_END_CODE { INVALID_CODE } else { *byte };
    out.extend(text.iter().map(plain));
}

/// The bytes without control tokens.
pub(crate) fn text_of(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut is_control = false;
    bytes.iter().copied().filter(move |byte| {
        let was_control = is_control;
        match *byte {
            CONTROL_START_CODE => is_control = true,
            CONTROL_END_CODE => is_control = false,
            _ => return !was_control,
        }
        false
    })
}

/// Bytes in pieces: each is text, or the text of a control token, which is told with it.
pub fn marked_pieces(bytes: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = control_length(rest).unwrap_or(rest.len());
        if length > 0 {
            let (control, behind) = rest.split_at(length);
            rest = behind;
            let text = control.strip_prefix(&[CONTROL_START_CODE]).unwrap_or(control);
            return Some((text.strip_suffix(&[CONTROL_END_CODE]).unwrap_or(text), true));
        }
        let end = rest.iter().position(|byte| *byte == CONTROL_START_CODE).unwrap_or(rest.len());
        let (text, behind) = rest.split_at(end);
        rest = behind;
        (!text.is_empty()).then_some((text, false))
    })
}

/// The length of the control token that bytes begin with; 0 if they begin with none, and `None` if it is not complete.
pub(crate) fn control_length(bytes: &[u8]) -> Option<usize> {
    match bytes.first() {
        Some(&CONTROL_START_CODE) => bytes.iter().position(|byte| *byte == CONTROL_END_CODE).map(|end| end + 1),
        _ => Some(0),
    }
}

/// Marks in the bytes of outputs of one vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkPatterns {
    pub(crate) open: Vec<u8>,
    pub(crate) close: Vec<u8>,
    pub(crate) answer_open: Vec<Vec<u8>>,
    pub(crate) answer_close: Vec<Vec<u8>>,
    /// Whether another turn of the model follows a reasoning, with a header of its own.
    pub(crate) repeats_turn: bool,
}

impl MarkPatterns {
    /// The patterns of these marks. `encode` appends a text, with the control tokens in it, by [`append_text`] and [`append_control`].
    pub fn new(marks: &ReasoningMarks, encode: impl Fn(&str, &mut Vec<u8>)) -> Self {
        let pattern = |text: &str| {
            let mut bytes = Vec::new();
            encode(text, &mut bytes);
            bytes
        };
        Self {
            open: pattern(&marks.open),
            close: pattern(&marks.close),
            answer_open: marks.answer_open.iter().map(|text| pattern(text)).collect(),
            answer_close: marks.answer_close.iter().map(|text| pattern(text)).collect(),
            repeats_turn: marks.repeats_turn,
        }
    }

    /// Whether an answer can have marks of its own.
    pub fn marks_answers(&self) -> bool {
        !self.answer_open.is_empty() || !self.answer_close.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_tokens_are_told_from_text() {
        let mut bytes = Vec::new();
        append_text(b"a\xFFb", &mut bytes);
        append_control(b"<|end|>", &mut bytes);
        append_text(b"c", &mut bytes);
        assert_eq!(text_of(&bytes).collect::<Vec<u8>>(), b"a\xC0bc");
        let pieces: Vec<(&[u8], bool)> = marked_pieces(&bytes).collect();
        assert_eq!(pieces, [(&b"a\xC0b"[..], false), (b"<|end|>", true), (b"c", false)]);
        assert_eq!(control_length(&bytes), Some(0));
        assert_eq!(control_length(&bytes[3..]), Some(9));
        assert_eq!(control_length(&bytes[3..6]), None);
    }
}
