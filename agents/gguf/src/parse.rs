//! The parser of GGUF headers.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use crate::error::Error;
use crate::ggml_types;
use crate::header::GgufHeader;
use crate::tensor::{MAX_LAYERS, TensorInfo, WeightTotals};

/// Metadata entries; current models have about fifty.
const MAX_ENTRIES: u64 = 65_536;
/// Tensors; the largest mixtures of experts have about ten thousand.
const MAX_TENSORS: u64 = 1_000_000;
/// Bytes of one string; chat templates reach a few hundred kilobytes.
const MAX_STRING_BYTES: u64 = 16 << 20;
/// Elements of one array; vocabularies reach about 300,000.
const MAX_ARRAY_ELEMENTS: u64 = 16 << 20;
/// Integers kept over all arrays; arrays with more than one element per layer are skipped anyway.
const MAX_KEPT_INTEGERS: usize = 64 * MAX_LAYERS;

pub(crate) enum HeaderFault {
    NotGguf(Vec<u8>),
    Version(u32),
    Damaged(String),
    Read(io::Error),
}

impl HeaderFault {
    pub(crate) fn into_error(self, path: &Path, size: u64) -> Error {
        let path = path.to_owned();
        match self {
            Self::NotGguf(bytes) => Error::NotGguf { path, found: format!("`{}`", bytes.escape_ascii()) },
            Self::Version(version) => Error::Version { path, version },
            Self::Damaged(reason) => Error::Damaged { path, reason },
            Self::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Error::Truncated { path, required_bytes: size.saturating_add(1), actual_bytes: size }
            }
            Self::Read(source) => Error::of_read(&path, source),
        }
    }
}

impl From<io::Error> for HeaderFault {
    fn from(e: io::Error) -> Self {
        Self::Read(e)
    }
}

/// Tracks the offset, because tensor data begins at the next aligned byte after the header.
struct HeaderReader<R> {
    inner: R,
    offset: u64,
    size: u64,
}

impl<R: Read> HeaderReader<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], HeaderFault> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.offset += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, HeaderFault> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, HeaderFault> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn count(&mut self, max: u64, what: &str) -> Result<u64, HeaderFault> {
        match self.u64()? {
            count if count <= max => Ok(count),
            count => Err(HeaderFault::Damaged(format!("{count} {what} exceed the limit of {max}"))),
        }
    }

    fn string(&mut self) -> Result<String, HeaderFault> {
        let length = self.count(MAX_STRING_BYTES, "bytes of a string")?;
        // Avoids a large allocation for a string that the file cannot hold.
        if length > self.size.saturating_sub(self.offset) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut bytes = vec![0; length as usize];
        self.inner.read_exact(&mut bytes)?;
        self.offset += length;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A scalar or string of the metadata.
    fn scalar(&mut self, kind: u32) -> Result<MetadataValue, HeaderFault> {
        Ok(match kind {
            0 => MetadataValue::Integer(u8::from_le_bytes(self.bytes()?).into()),
            1 => MetadataValue::Integer(i8::from_le_bytes(self.bytes()?).into()),
            2 => MetadataValue::Integer(u16::from_le_bytes(self.bytes()?).into()),
            3 => MetadataValue::Integer(i16::from_le_bytes(self.bytes()?).into()),
            4 => MetadataValue::Integer(self.u32()?.into()),
            5 => MetadataValue::Integer(i32::from_le_bytes(self.bytes()?).into()),
            6 => MetadataValue::Text(f32::from_le_bytes(self.bytes()?).to_string()),
            7 => MetadataValue::Text((self.bytes::<1>()?[0] != 0).to_string()),
            8 => MetadataValue::Text(self.string()?),
            10 => MetadataValue::Text(self.u64()?.to_string()),
            11 => MetadataValue::Integer(i64::from_le_bytes(self.bytes()?)),
            12 => MetadataValue::Text(f64::from_le_bytes(self.bytes()?).to_string()),
            9 => return Err(HeaderFault::Damaged("nested arrays are not supported".to_owned())),
            other => return Err(HeaderFault::Damaged(format!("unknown value type {other}"))),
        })
    }

    /// An array: its elements if they are at most `max` integers, otherwise none.
    fn array(&mut self, max: usize) -> Result<Vec<i64>, HeaderFault> {
        let kind = self.u32()?;
        let count = self.count(MAX_ARRAY_ELEMENTS, "elements of an array")?;
        let mut numbers = Vec::new();
        for _ in 0..count {
            if let MetadataValue::Integer(number) = self.scalar(kind)?
                && count <= max as u64
            {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }
}

enum MetadataValue {
    Integer(i64),
    Text(String),
}

/// Reads a header; `on_tensor` takes the tensors, in order.
pub(crate) fn parse(
    inner: impl Read,
    size: u64,
    on_tensor: &mut dyn FnMut(TensorInfo),
) -> Result<GgufHeader, HeaderFault> {
    let mut reader = HeaderReader { inner, offset: 0, size };
    let mut magic = Vec::new();
    reader.inner.by_ref().take(4).read_to_end(&mut magic)?;
    reader.offset = 4;
    if magic != b"GGUF" {
        return Err(HeaderFault::NotGguf(magic));
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(HeaderFault::Version(version));
    }
    let tensor_count = reader.count(MAX_TENSORS, "tensors")?;
    let entries = reader.count(MAX_ENTRIES, "metadata entries")?;
    let (metadata, integer_arrays) = metadata(&mut reader, entries)?;
    let tensor_info_offset = reader.offset;
    let (end, weights) = tensor_infos(&mut reader, tensor_count, on_tensor)?;
    let alignment = metadata.get("general.alignment").and_then(|a| a.parse().ok()).unwrap_or(32u64);
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(HeaderFault::Damaged(format!("invalid alignment {alignment}")));
    }
    let data_offset = reader.offset.next_multiple_of(alignment);
    let required_bytes =
        data_offset.checked_add(end).ok_or_else(|| HeaderFault::Damaged("tensor sizes overflow".to_owned()))?;
    let architecture = metadata.get("general.architecture").cloned();
    let architecture =
        architecture.ok_or_else(|| HeaderFault::Damaged("`general.architecture` is missing".to_owned()))?;
    let required_bytes = if tensor_count > 0 { required_bytes } else { reader.offset };
    Ok(GgufHeader {
        architecture,
        metadata,
        tensor_count,
        required_bytes,
        file_bytes: size,
        tensor_info_offset,
        data_offset,
        alignment,
        integer_arrays,
        weights,
    })
}

type Metadata = (BTreeMap<String, String>, BTreeMap<String, Vec<i64>>);

/// Scalars and strings as text, and the short integer arrays.
fn metadata(reader: &mut HeaderReader<impl Read>, entries: u64) -> Result<Metadata, HeaderFault> {
    const ARRAY_TYPE: u32 = 9;
    let (mut texts, mut arrays) = (BTreeMap::new(), BTreeMap::new());
    let mut remaining = MAX_KEPT_INTEGERS;
    for _ in 0..entries {
        let key = reader.string()?;
        match reader.u32()? {
            ARRAY_TYPE => {
                let integers = reader.array(remaining.min(MAX_LAYERS))?;
                remaining -= integers.len();
                if !integers.is_empty() {
                    arrays.insert(key, integers);
                }
            }
            kind => {
                let text = match reader.scalar(kind)? {
                    MetadataValue::Integer(number) => number.to_string(),
                    MetadataValue::Text(text) => text,
                };
                texts.insert(key, text);
            }
        }
    }
    Ok((texts, arrays))
}

/// The end of the last tensor, relative to the tensor data, and the bytes by position in the model.
fn tensor_infos(
    reader: &mut HeaderReader<impl Read>,
    tensor_count: u64,
    on_tensor: &mut dyn FnMut(TensorInfo),
) -> Result<(u64, WeightTotals), HeaderFault> {
    let overflow = || HeaderFault::Damaged("tensor sizes overflow".to_owned());
    let mut weights = WeightTotals::default();
    let mut end = 0u64;
    for _ in 0..tensor_count {
        let name = reader.string()?;
        let count = reader.u32()?;
        if count > 4 {
            return Err(HeaderFault::Damaged(format!("tensor `{name}` has {count} dimensions")));
        }
        let dimensions = (0..count).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
        let elements = dimensions.iter().try_fold(1u64, |elements, more| elements.checked_mul(*more));
        let elements = elements.ok_or_else(overflow)?;
        let ggml_type = reader.u32()?;
        let offset = reader.u64()?;
        // llama.cpp decides about an unknown type; its size counts as zero here.
        let (block_elements, block_bytes) = ggml_types::block_layout(ggml_type).unwrap_or((1, 0));
        let bytes = (elements / block_elements).checked_mul(block_bytes).ok_or_else(overflow)?;
        end = end.max(offset.checked_add(bytes).ok_or_else(overflow)?);
        weights.has_unknown_types |= block_bytes == 0;
        let tensor = TensorInfo { name, dimensions, ggml_type, offset, bytes };
        weights.add(&tensor).ok_or_else(overflow)?;
        on_tensor(tensor);
    }
    Ok((end, weights))
}
