//! Splits a GGUF file into pieces as `llama-gguf-split` does: all metadata in the first one, and in each what it is.

use std::ops::Range;

/// The alignment of tensor data in files that state none.
const ALIGNMENT_BYTES: usize = 32;
/// The types of values that are no fixed number of bytes.
const TEXT_TYPE: u32 = 8;
const ARRAY_TYPE: u32 = 9;
const U16_TYPE: u32 = 2;
const I32_TYPE: u32 = 5;

/// A piece of a model.
pub struct GgufPiece {
    /// The name of its file.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The pieces of a valid GGUF file, with as many tensors each as possible. Their names begin with `name`.
pub fn split_gguf(file: &[u8], name: &str, count: usize) -> Vec<GgufPiece> {
    let mut reader = GgufCursor { file, at: 8 };
    let (tensor_count, entries) = (reader.u64() as usize, reader.u64());
    let metadata_start = reader.at;
    for _ in 0..entries {
        reader.text();
        let kind = reader.u32();
        reader.value(kind);
    }
    let metadata = &file[metadata_start..reader.at];
    let mut tensors: Vec<(Range<usize>, usize)> = Vec::new();
    for _ in 0..tensor_count {
        let start = reader.at;
        reader.text();
        let dimensions = reader.u32() as usize;
        reader.at += dimensions * 8 + 4;
        let description = start..reader.at;
        tensors.push((description, reader.u64() as usize));
    }
    let data = &file[reader.at.next_multiple_of(ALIGNMENT_BYTES)..];
    let mut ends: Vec<usize> = tensors.iter().map(|(_, offset)| *offset).chain([data.len()]).collect();
    ends.sort_unstable();
    let bytes_of = |offset: usize| &data[offset..ends[ends.partition_point(|end| *end <= offset)]];

    let piece = |at: usize| {
        let own = &tensors[tensor_count * at / count..tensor_count * (at + 1) / count];
        let entry = |key: &str, kind: u32, value: &[u8]| {
            [&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &kind.to_le_bytes(), value].concat()
        };
        let mut bytes = file[..8].to_vec();
        bytes.extend((own.len() as u64).to_le_bytes());
        bytes.extend((3 + if at == 0 { entries } else { 0 }).to_le_bytes());
        bytes.extend(if at == 0 { metadata } else { &[] });
        bytes.extend(entry("split.no", U16_TYPE, &(at as u16).to_le_bytes()));
        bytes.extend(entry("split.count", U16_TYPE, &(count as u16).to_le_bytes()));
        bytes.extend(entry("split.tensors.count", I32_TYPE, &(tensor_count as i32).to_le_bytes()));
        let mut tensor_data = Vec::new();
        for (description, offset) in own {
            bytes.extend(&file[description.clone()]);
            bytes.extend((tensor_data.len() as u64).to_le_bytes());
            tensor_data.extend(bytes_of(*offset));
            tensor_data.resize(tensor_data.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        bytes.extend(tensor_data);
        GgufPiece { name: format!("{name}-{:05}-of-{count:05}.gguf", at + 1), bytes }
    };
    (0..count).map(piece).collect()
}

/// Reads a valid file.
struct GgufCursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl GgufCursor<'_> {
    fn u32(&mut self) -> u32 {
        self.at += 4;
        u32::from_le_bytes(self.file[self.at - 4..self.at].try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        self.at += 8;
        u64::from_le_bytes(self.file[self.at - 8..self.at].try_into().unwrap())
    }

    /// Passes over a text.
    fn text(&mut self) {
        self.at += self.u64() as usize;
    }

    /// Passes over a value.
    fn value(&mut self, kind: u32) {
        match kind {
            TEXT_TYPE => self.text(),
            ARRAY_TYPE => {
                let kind = self.u32();
                let length = self.u64();
                (0..length).for_each(|_| self.value(kind));
            }
            0 | 1 | 7 => self.at += 1,
            2 | 3 => self.at += 2,
            4..=6 => self.at += 4,
            _ => self.at += 8,
        }
    }
}
