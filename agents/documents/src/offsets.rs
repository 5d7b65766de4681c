//! Where a position of the extracted text stands in the file.

use encoding_rs::Encoding;

/// How positions of the text, in bytes of UTF-8, become positions of the file.
#[derive(Debug, Clone)]
pub(crate) enum FileOffsets {
    /// Positions are those of the extracted text.
    Extracted,
    /// UTF-8 after a byte order mark. `replaced` has, behind each broken character, the position in the text and in the file.
    Utf8 { mark_bytes: u64, replaced: Vec<(usize, u64)> },
    /// Two or four bytes for each character, after a byte order mark.
    Utf16 { mark_bytes: u64, file_bytes: u64 },
    /// One byte for each character.
    SingleByte,
    /// Some bytes for each character; a broken one counts as one byte.
    MultiByte(&'static Encoding),
}

/// A position in both; it moves forward.
#[derive(Debug, Clone)]
pub(crate) struct OffsetCursor<'d> {
    text: &'d str,
    offsets: &'d FileOffsets,
    at_text: usize,
    at_file: u64,
}

impl<'d> OffsetCursor<'d> {
    pub(crate) fn new(text: &'d str, offsets: &'d FileOffsets) -> Self {
        let at_file = match offsets {
            FileOffsets::Utf8 { mark_bytes, .. } | FileOffsets::Utf16 { mark_bytes, .. } => *mark_bytes,
            FileOffsets::Extracted | FileOffsets::SingleByte | FileOffsets::MultiByte(_) => 0,
        };
        Self { text, offsets, at_text: 0, at_file }
    }

    /// Where the position `to` of the text stands in the file; `to` is not before the position of the last call.
    pub(crate) fn advance(&mut self, to: usize) -> u64 {
        let passed = &self.text[self.at_text..to];
        self.at_file = match self.offsets {
            FileOffsets::Extracted => to as u64,
            FileOffsets::Utf8 { mark_bytes, replaced } => {
                let behind = replaced.partition_point(|(text, _)| *text <= to);
                let (text, file) = if behind == 0 { (0, *mark_bytes) } else { replaced[behind - 1] };
                file + (to - text) as u64
            }
            FileOffsets::Utf16 { file_bytes, .. } => {
                let units: usize = passed.chars().map(char::len_utf16).sum();
                // The last character of a file that was cut has one byte.
                (self.at_file + 2 * units as u64).min(*file_bytes)
            }
            FileOffsets::SingleByte => self.at_file + passed.chars().count() as u64,
            FileOffsets::MultiByte(encoding) => {
                let bytes: usize = passed.chars().map(|c| encoded_bytes(encoding, c)).sum();
                self.at_file + bytes as u64
            }
        };
        self.at_text = to;
        self.at_file
    }
}

fn encoded_bytes(encoding: &'static Encoding, c: char) -> usize {
    if c.is_ascii() || c == char::REPLACEMENT_CHARACTER {
        return 1;
    }
    encoding.encode(c.encode_utf8(&mut [0; 4])).0.len()
}
