//! Writes a GGUF file: the header from what is known before, and then the numbers of each tensor as they come.
//!
//! Source: the GGUF specification, version 3.

use std::collections::VecDeque;
use std::io::{self, Write};

use crate::ggml_types;

/// The version that is written.
const VERSION: u32 = 3;
/// The alignment of tensor data in files that state none.
const ALIGNMENT_BYTES: u64 = 32;
/// The type of a text in the metadata, and of an array.
const TEXT_TYPE: u32 = 8;
const ARRAY_TYPE: u32 = 9;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// A text.
    Text(String),
    /// A `UINT16`.
    U16(u16),
    /// A `UINT32`.
    U32(u32),
    /// An `INT32`.
    I32(i32),
    /// A `FLOAT32`.
    F32(f32),
    /// An array of `UINT32`.
    U32s(Vec<u32>),
}

impl MetadataValue {
    /// Its type in the file, and its bytes.
    fn encode(&self) -> (u32, Vec<u8>) {
        match self {
            Self::Text(value) => (TEXT_TYPE, text(value)),
            Self::U16(value) => (2, value.to_le_bytes().to_vec()),
            Self::U32(value) => (4, value.to_le_bytes().to_vec()),
            Self::I32(value) => (5, value.to_le_bytes().to_vec()),
            Self::F32(value) => (6, value.to_le_bytes().to_vec()),
            Self::U32s(values) => {
                let mut bytes = [&4u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                (ARRAY_TYPE, bytes)
            }
        }
    }
}

/// What the header says of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorLayout {
    /// Its name.
    pub name: String,
    /// Elements per dimension; the row length comes first.
    pub dimensions: Vec<u64>,
    /// Its `enum ggml_type` value.
    pub ggml_type: u32,
}

impl TensorLayout {
    /// The bytes of its numbers; 0 for a type of unknown size, as in [`crate::inspect`].
    pub fn data_bytes(&self) -> u64 {
        let (elements, block_bytes) = ggml_types::block_layout(self.ggml_type).unwrap_or((1, 0));
        self.dimensions.iter().product::<u64>() / elements * block_bytes
    }
}

/// Writes one file into `W`; the tensors follow the header in its order.
pub struct GgufWriter<W> {
    out: W,
    /// The bytes of the tensors that are not written yet.
    pending: VecDeque<u64>,
}

impl<W: Write> GgufWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn new(mut out: W, metadata: &[(&str, MetadataValue)], tensors: &[TensorLayout]) -> io::Result<Self> {
        let mut header = [&b"GGUF"[..], &VERSION.to_le_bytes()].concat();
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            let (kind, bytes) = value.encode();
            header.extend([&text(key)[..], &kind.to_le_bytes(), &bytes].concat());
        }
        let mut offset = 0u64;
        for tensor in tensors {
            header.extend([text(&tensor.name), (tensor.dimensions.len() as u32).to_le_bytes().to_vec()].concat());
            header.extend(tensor.dimensions.iter().flat_map(|length| length.to_le_bytes()));
            header.extend([&tensor.ggml_type.to_le_bytes()[..], &offset.to_le_bytes()].concat());
            offset += tensor.data_bytes().next_multiple_of(ALIGNMENT_BYTES);
        }
        if !tensors.is_empty() {
            header.resize(header.len().next_multiple_of(ALIGNMENT_BYTES as usize), 0);
        }
        out.write_all(&header)?;
        Ok(Self { out, pending: tensors.iter().map(TensorLayout::data_bytes).collect() })
    }

    /// Writes the numbers of the next tensor.
    ///
    /// # Errors
    /// If `out` cannot be written, or these are not the bytes that the header promises.
    pub fn write_tensor(&mut self, data: &[u8]) -> io::Result<()> {
        let bytes = data.len() as u64;
        if self.pending.pop_front() != Some(bytes) {
            let reason = format!("{bytes} bytes are not those of the next tensor in the header");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        self.out.write_all(data)?;
        let padding = bytes.next_multiple_of(ALIGNMENT_BYTES) - bytes;
        self.out.write_all(&[0; ALIGNMENT_BYTES as usize][..padding as usize])
    }

    /// Ends the file, whose tensors are all written.
    ///
    /// # Errors
    /// If some tensors of the header are missing.
    pub fn finish(self) -> io::Result<W> {
        match self.pending.len() {
            0 => Ok(self.out),
            count => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{count} tensors are not written"))),
        }
    }
}

/// A text with its length before it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::inspect::{inspect, inspect_adapter_tensors, inspect_any_adapter};

    fn layout(name: &str, dimensions: &[u64], ggml_type: u32) -> TensorLayout {
        TensorLayout { name: name.to_owned(), dimensions: dimensions.to_vec(), ggml_type }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let metadata = [
            ("general.architecture", MetadataValue::Text("llama".to_owned())),
            ("general.type", MetadataValue::Text("adapter".to_owned())),
            ("adapter.lora.alpha", MetadataValue::F32(0.1)),
            ("a.u16", MetadataValue::U16(7)),
            ("a.i32", MetadataValue::I32(-7)),
            ("a.heads", MetadataValue::U32s(vec![3, 1])),
        ];
        let layouts = [layout("x.lora_a", &[3, 5], 0), layout("x.lora_b", &[5, 2], 1)];
        let mut writer = GgufWriter::new(Vec::new(), &metadata, &layouts).unwrap();
        writer.write_tensor(&[1; 60]).unwrap();
        writer.write_tensor(&[2; 20]).unwrap();
        fs::write(&path, writer.finish().unwrap()).unwrap();
        let (header, tensors) = inspect_adapter_tensors(&path, "llama").unwrap();
        assert_eq!(header, inspect_any_adapter(&path).unwrap());
        assert_eq!(header.metadata["adapter.lora.alpha"].parse(), Ok(0.1f32));
        assert_eq!((header.metadata["a.u16"].as_str(), header.metadata["a.i32"].as_str()), ("7", "-7"));
        assert_eq!(header.integers("a.heads"), Some(&[3, 1][..]));
        let bytes = fs::read(&path).unwrap();
        for (at, tensor) in tensors.iter().enumerate() {
            assert_eq!((&tensor.name, &tensor.dimensions), (&layouts[at].name, &layouts[at].dimensions));
            let start = (header.data_offset() + tensor.offset) as usize;
            let data = &bytes[start..start + tensor.bytes as usize];
            assert!(start.is_multiple_of(32) && data.iter().all(|byte| *byte == at as u8 + 1), "{}", tensor.name);
        }
        assert!(inspect(&path).unwrap_err().to_string().contains("this is an adapter"));
    }

    #[test]
    fn other_bytes_than_the_header_promises_are_refused() {
        let mut writer = GgufWriter::new(Vec::new(), &[], &[layout("x", &[3], 0)]).unwrap();
        assert_eq!(writer.write_tensor(&[0; 11]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let writer = GgufWriter::new(Vec::new(), &[], &[layout("x", &[3], 0)]).unwrap();
        assert_eq!(writer.finish().unwrap_err().to_string(), "1 tensors are not written");
    }
}
