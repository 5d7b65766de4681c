//! The header, byte by byte.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use super::recast::Recast;
use super::{Error, Header, Weights, kinds};

/// Metadata entries; models of today have some fifty.
const MAX_ENTRIES: u64 = 65_536;
/// Tensors; the largest mixtures of experts have some ten thousand.
const MAX_TENSORS: u64 = 1_000_000;
/// Bytes of one string; chat templates reach some hundred kilobytes.
const MAX_STRING: u64 = 16 << 20;
/// Elements of one array; vocabularies reach some 300,000.
const MAX_ARRAY: u64 = 16 << 20;
/// Layers; llama.cpp takes no more.
pub(super) const MAX_LAYERS: usize = 512;
/// Numbers of arrays that are kept, over all arrays; longer arrays than one for each layer are passed over anyway.
const MAX_NUMBERS: usize = 64 * MAX_LAYERS;

pub(super) enum Fault {
    NotGguf(Vec<u8>),
    Version(u32),
    Damaged(String),
    Read(io::Error),
}

impl Fault {
    pub(super) fn at(self, path: &Path, size: u64) -> Error {
        let path = path.to_owned();
        match self {
            Self::NotGguf(bytes) => Error::NotGguf { path, found: format!("`{}`", bytes.escape_ascii()) },
            Self::Version(version) => Error::Version { path, version },
            Self::Damaged(what) => Error::Damaged { path, what },
            Self::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Error::Truncated { path, needed: size + 1, actual: size }
            }
            Self::Read(source) => Error::Read { path, source },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        Self::Read(e)
    }
}

/// Counts the bytes that it passes on, since tensors begin at the next aligned byte after the header.
struct Reader<R> {
    inner: R,
    at: u64,
    size: u64,
}

impl<R: Read> Reader<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn count(&mut self, most: u64, what: &str) -> Result<u64, Fault> {
        match self.u64()? {
            count if count <= most => Ok(count),
            count => Err(Fault::Damaged(format!("it states {count} {what}, the limit is {most}"))),
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        let length = self.count(MAX_STRING, "bytes of a string")?;
        // What is not there need not be allocated.
        if length > self.size.saturating_sub(self.at) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut bytes = vec![0; length as usize];
        self.inner.read_exact(&mut bytes)?;
        self.at += length;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A scalar or a string of the metadata.
    fn scalar(&mut self, kind: u32) -> Result<Scalar, Fault> {
        Ok(match kind {
            0 => Scalar::Whole(u8::from_le_bytes(self.bytes()?).into()),
            1 => Scalar::Whole(i8::from_le_bytes(self.bytes()?).into()),
            2 => Scalar::Whole(u16::from_le_bytes(self.bytes()?).into()),
            3 => Scalar::Whole(i16::from_le_bytes(self.bytes()?).into()),
            4 => Scalar::Whole(self.u32()?.into()),
            5 => Scalar::Whole(i32::from_le_bytes(self.bytes()?).into()),
            6 => Scalar::Text(f32::from_le_bytes(self.bytes()?).to_string()),
            7 => Scalar::Text((self.bytes::<1>()?[0] != 0).to_string()),
            8 => Scalar::Text(self.string()?),
            10 => Scalar::Text(self.u64()?.to_string()),
            11 => Scalar::Whole(i64::from_le_bytes(self.bytes()?)),
            12 => Scalar::Text(f64::from_le_bytes(self.bytes()?).to_string()),
            9 => return Err(Fault::Damaged("an array of arrays".to_owned())),
            other => return Err(Fault::Damaged(format!("there is no value type {other}"))),
        })
    }

    /// An array: its numbers, if they are whole and at most `most`, or else none.
    fn array(&mut self, most: usize) -> Result<Vec<i64>, Fault> {
        let kind = self.u32()?;
        let count = self.count(MAX_ARRAY, "elements of an array")?;
        let mut numbers = Vec::new();
        for _ in 0..count {
            if let Scalar::Whole(number) = self.scalar(kind)?
                && count <= most as u64
            {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }
}

enum Scalar {
    Whole(i64),
    Text(String),
}

/// A tensor, as the header describes it.
pub(super) struct Tensor {
    pub(super) name: String,
    /// Elements in each direction; those of a row come first.
    pub(super) dimensions: Vec<u64>,
    pub(super) kind: u32,
    /// Where its bytes begin, counted from the first tensor's.
    pub(super) offset: u64,
    /// Bytes that it has.
    pub(super) length: u64,
}

impl Tensor {
    /// The layer that it belongs to.
    pub(super) fn layer(&self) -> Option<usize> {
        let layer = self.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
        layer.filter(|layer| *layer < MAX_LAYERS)
    }
}

/// Reads a header; `each` takes the tensors, in order.
pub(super) fn parse(inner: impl Read, size: u64, each: &mut dyn FnMut(Tensor)) -> Result<Header, Fault> {
    let mut reader = Reader { inner, at: 0, size };
    let mut magic = Vec::new();
    reader.inner.by_ref().take(4).read_to_end(&mut magic)?;
    reader.at = 4;
    if magic != b"GGUF" {
        return Err(Fault::NotGguf(magic));
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(Fault::Version(version));
    }
    let tensors = reader.count(MAX_TENSORS, "tensors")?;
    let entries = reader.count(MAX_ENTRIES, "metadata entries")?;
    let (metadata, numbers) = metadata(&mut reader, entries)?;
    let described = reader.at;
    let (end, weights) = tensor_infos(&mut reader, tensors, each)?;
    let alignment = metadata.get("general.alignment").and_then(|a| a.parse().ok()).unwrap_or(32u64);
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(Fault::Damaged(format!("an alignment of {alignment}")));
    }
    let data = reader.at.next_multiple_of(alignment);
    let needed = data.checked_add(end).ok_or_else(|| Fault::Damaged("tensor sizes overflow".to_owned()))?;
    let architecture = metadata.get("general.architecture").cloned();
    let architecture = architecture.ok_or_else(|| Fault::Damaged("it names no architecture".to_owned()))?;
    let needed = if tensors > 0 { needed } else { reader.at };
    Ok(Header { architecture, metadata, tensors, needed, size, described, data, alignment, numbers, weights })
}

type Metadata = (BTreeMap<String, String>, BTreeMap<String, Vec<i64>>);

/// Scalars and strings as text, and the short arrays of whole numbers.
fn metadata(reader: &mut Reader<impl Read>, entries: u64) -> Result<Metadata, Fault> {
    const ARRAY: u32 = 9;
    let (mut texts, mut arrays) = (BTreeMap::new(), BTreeMap::new());
    let mut left = MAX_NUMBERS;
    for _ in 0..entries {
        let key = reader.string()?;
        match reader.u32()? {
            ARRAY => {
                let numbers = reader.array(left.min(MAX_LAYERS))?;
                left -= numbers.len();
                if !numbers.is_empty() {
                    arrays.insert(key, numbers);
                }
            }
            kind => {
                let text = match reader.scalar(kind)? {
                    Scalar::Whole(number) => number.to_string(),
                    Scalar::Text(text) => text,
                };
                texts.insert(key, text);
            }
        }
    }
    Ok((texts, arrays))
}

/// Where the last tensor ends, counted from the beginning of the data, and whose the bytes are.
fn tensor_infos(
    reader: &mut Reader<impl Read>,
    tensors: u64,
    each: &mut dyn FnMut(Tensor),
) -> Result<(u64, Weights), Fault> {
    let overflow = || Fault::Damaged("tensor sizes overflow".to_owned());
    let mut weights = Weights::default();
    let mut end = 0u64;
    for _ in 0..tensors {
        let name = reader.string()?;
        let count = reader.u32()?;
        if count > 4 {
            return Err(Fault::Damaged(format!("tensor `{name}` has {count} dimensions")));
        }
        let dimensions = (0..count).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
        let elements = dimensions.iter().try_fold(1u64, |elements, more| elements.checked_mul(*more));
        let elements = elements.ok_or_else(overflow)?;
        let kind = reader.u32()?;
        let offset = reader.u64()?;
        // An unknown type is llama.cpp's to judge; its size counts as nothing here.
        let (block, bytes) = kinds::block(kind).unwrap_or((1, 0));
        let length = (elements / block).checked_mul(bytes).ok_or_else(overflow)?;
        end = end.max(offset.checked_add(length).ok_or_else(overflow)?);
        weights.unknown |= bytes == 0;
        let tensor = Tensor { name, dimensions, kind, offset, length };
        weights.add(&tensor).ok_or_else(overflow)?;
        each(tensor);
    }
    Ok((end, weights))
}

impl Weights {
    /// Adds a tensor where llama.cpp puts it. None if the sums overflow.
    fn add(&mut self, tensor: &Tensor) -> Option<()> {
        // Source: `LLM_TENSOR_LAYER_INPUT` in llama.cpp's llama-arch.cpp.
        const INPUT: [&str; 4] = ["token_embd.", "position_embd.", "token_types.", "per_layer_token_embd."];
        let (name, bytes) = (tensor.name.as_str(), tensor.length);
        self.own_output |= name == "output.weight";
        if name == "token_embd.weight" {
            (self.tokens, self.vocabulary) = (bytes, tensor.dimensions.last().copied().unwrap_or(1));
        }
        let sum = match tensor.layer() {
            Some(layer) => {
                let layers = self.layers.len().max(layer + 1);
                self.layers.resize(layers, 0);
                self.recast.resize(layers, 0);
                let recast = Recast::of(tensor).map(|recast| recast.bytes);
                self.recast[layer] = self.recast[layer].checked_add(recast.unwrap_or(bytes))?;
                let gains = recast.is_some() && kinds::is_slow(tensor.kind);
                self.slow = self.slow.checked_add(if gains { bytes } else { 0 })?;
                &mut self.layers[layer]
            }
            None if INPUT.iter().any(|prefix| name.starts_with(prefix)) => &mut self.input,
            None => &mut self.output,
        };
        *sum = sum.checked_add(bytes)?;
        Some(())
    }
}
