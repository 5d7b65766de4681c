//! The encoding of a text file: by its byte order mark, by the pattern of UTF-16, by being UTF-8, else by its letters.
//!
//! `chardetng` is made for web pages and takes short Russian texts for other things; [`cyrillic`] settles those first.

mod cyrillic;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::error::DocumentError;
use crate::offsets::FileOffsets;

/// A text in UTF-8, and where its characters stand in the file.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) text: String,
    pub(crate) offsets: FileOffsets,
}

/// As much as the letters of a language need to be told, and no more than takes a few milliseconds.
const DETECTION_BYTES: usize = 256 << 10;
/// A UTF-8 text with a few broken characters stays UTF-8: at least so many good ones for each broken one.
const GOOD_FOR_EACH_BROKEN_RATIO: usize = 20;

/// Makes a text file UTF-8. What cannot be decoded becomes U+FFFD; nothing is left out but the byte order mark.
///
/// # Errors
/// [`DocumentError::Binary`] if it holds a 0 and is not UTF-16.
pub(crate) fn decode(bytes: &[u8]) -> Result<Decoded, DocumentError> {
    let (encoding, mark_bytes) = detect(bytes)?;
    Ok(decode_as(bytes, encoding, mark_bytes))
}

/// Makes a text file UTF-8 whose encoding something else has told, unless a byte order mark says otherwise.
pub(crate) fn decode_labelled(bytes: &[u8], label: Option<&'static Encoding>) -> Result<Decoded, DocumentError> {
    match (Encoding::for_bom(bytes), label) {
        (None, Some(encoding)) if std::str::from_utf8(bytes).is_err() => Ok(decode_as(bytes, encoding, 0)),
        _ => decode(bytes),
    }
}

fn decode_as(bytes: &[u8], encoding: &'static Encoding, mark_bytes: usize) -> Decoded {
    if encoding == UTF_8 {
        return decode_utf8(bytes, mark_bytes);
    }
    let (text, _) = encoding.decode_without_bom_handling(&bytes[mark_bytes..]);
    let mark_bytes = mark_bytes as u64;
    let offsets = if encoding == UTF_16LE || encoding == UTF_16BE {
        FileOffsets::Utf16 { mark_bytes, file_bytes: bytes.len() as u64 }
    } else if encoding.is_single_byte() {
        FileOffsets::SingleByte
    } else {
        FileOffsets::MultiByte(encoding)
    };
    Decoded { text: text.into_owned(), offsets }
}

fn decode_utf8(bytes: &[u8], mark_bytes: usize) -> Decoded {
    let mut text = String::with_capacity(bytes.len());
    let mut replaced = Vec::new();
    let mut file = mark_bytes as u64;
    for piece in bytes[mark_bytes..].utf8_chunks() {
        text.push_str(piece.valid());
        file += piece.valid().len() as u64;
        if !piece.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            file += piece.invalid().len() as u64;
            replaced.push((text.len(), file));
        }
    }
    Decoded { text, offsets: FileOffsets::Utf8 { mark_bytes: mark_bytes as u64, replaced } }
}

/// Whether the first bytes of a file are of no text.
pub(crate) fn is_binary(head: &[u8]) -> bool {
    detect(head).is_err()
}

/// The encoding, and the length of the byte order mark.
fn detect(bytes: &[u8]) -> Result<(&'static Encoding, usize), DocumentError> {
    if let Some(marked) = Encoding::for_bom(bytes) {
        return Ok(marked);
    }
    let sample = &bytes[..bytes.len().min(DETECTION_BYTES)];
    if let Some(encoding) = utf16_without_mark(sample) {
        return Ok((encoding, 0));
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(DocumentError::Binary { offset: offset as u64 });
    }
    if is_utf8(bytes) {
        return Ok((UTF_8, 0));
    }
    if let Some(encoding) = cyrillic::encoding(sample) {
        return Ok((encoding, 0));
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(sample, sample.len() == bytes.len());
    let guess = detector.guess(None, Utf8Detection::Deny);
    Ok((if guess == UTF_8 { WINDOWS_1252 } else { guess }, 0))
}

/// Whether it is UTF-8 but for a few characters: a file that was cut, or one foreign line.
fn is_utf8(bytes: &[u8]) -> bool {
    let (mut good, mut broken) = (0, 0);
    for piece in bytes.utf8_chunks() {
        good += piece.valid().chars().filter(|c| !c.is_ascii()).count();
        broken += usize::from(!piece.invalid().is_empty());
    }
    broken == 0 || good >= broken * GOOD_FOR_EACH_BROKEN_RATIO
}

/// UTF-16 whose high bytes are all of one or two alphabets; a mark is usual, and programs that write none write Latin or
/// Cyrillic text.
fn utf16_without_mark(sample: &[u8]) -> Option<&'static Encoding> {
    let pairs = sample.len() / 2;
    if pairs < 2 {
        return None;
    }
    // The blocks Latin, Cyrillic and general punctuation.
    let high = |byte: u8| matches!(byte, 0x00 | 0x04 | 0x20);
    let count = |at: usize, test: &dyn Fn(u8) -> bool| sample.iter().skip(at).step_by(2).filter(|b| test(**b)).count();
    let most = |number: usize| number * 10 >= pairs * 9;
    // Text has line ends and spaces, which have a zero in their high byte, and never one in their low byte.
    let fits = |high_at: usize| {
        most(count(high_at, &high)) && count(high_at, &|b| b == 0) > 0 && count(1 - high_at, &|b| b == 0) == 0
    };
    if fits(1) {
        Some(UTF_16LE)
    } else if fits(0) {
        Some(UTF_16BE)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
