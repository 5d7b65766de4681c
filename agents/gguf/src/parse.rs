//! The parser of GGUF headers.

use std::io::BufRead;

use crate::ggml_types;
use crate::header::GgufHeader;
use crate::metadata;
use crate::reader::{HeaderFault, HeaderReader};
use crate::tensor::{TensorInfo, WeightTotals};

/// Metadata entries; current models have about fifty.
const MAX_ENTRIES: u64 = 65_536;
/// Tensors; the largest mixtures of experts have about ten thousand.
pub(crate) const MAX_TENSORS: u64 = 65_536;
/// Bytes of a tensor's name; ggml takes 63.
const MAX_TENSOR_NAME_BYTES: u64 = 255;
/// Bytes of `general.architecture`, which stands in messages; the longest name in llama.cpp has about twenty.
const MAX_ARCHITECTURE_BYTES: usize = 64;

/// What a piece of a model says of itself: which it is, from 0, and how many there are.
pub(crate) const SPLIT_NUMBER_KEY: &str = "split.no";
pub(crate) const SPLIT_COUNT_KEY: &str = "split.count";

/// Calls `take` with each token of the vocabulary, in order.
pub(crate) fn tokens(inner: impl BufRead, size: u64, take: &mut dyn FnMut(&str)) -> Result<(), HeaderFault> {
    let mut reader = HeaderReader::new(inner, size);
    let (_, entries) = counts(&mut reader, size)?;
    metadata::read(&mut reader, entries, Some(take)).map(drop)
}

/// The numbers of tensors and of metadata entries, with which a file begins.
fn counts(reader: &mut HeaderReader<impl BufRead>, size: u64) -> Result<(u64, u64), HeaderFault> {
    if size < 4 || reader.bytes()? != *b"GGUF" {
        return Err(HeaderFault::NotGguf);
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(HeaderFault::Version(version));
    }
    let tensor_count = reader.count(MAX_TENSORS, "tensors")?;
    Ok((tensor_count, reader.count(MAX_ENTRIES, "metadata entries")?))
}

/// Reads a header; `on_tensor` takes the tensors, in order. They are added to `weights`, which are those of the pieces before this one.
///
/// The architecture is empty in a piece of a model that is not the first one and leaves it out.
pub(crate) fn parse_piece(
    inner: impl BufRead,
    size: u64,
    mut weights: WeightTotals,
    on_tensor: &mut dyn FnMut(TensorInfo),
) -> Result<GgufHeader, HeaderFault> {
    let mut reader = HeaderReader::new(inner, size);
    let (tensor_count, entries) = counts(&mut reader, size)?;
    let metadata::Metadata { texts: metadata, integer_arrays } = metadata::read(&mut reader, entries, None)?;
    let tensor_info_offset = reader.offset();
    let end = tensor_infos(&mut reader, tensor_count, &mut weights, on_tensor)?;
    let alignment = metadata.get("general.alignment").and_then(|a| a.parse().ok()).unwrap_or(32u64);
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(HeaderFault::Damaged(format!("invalid alignment {alignment}")));
    }
    let data_offset = reader.offset().next_multiple_of(alignment);
    let required_bytes =
        data_offset.checked_add(end).ok_or_else(|| HeaderFault::Damaged("tensor sizes overflow".to_owned()))?;
    let number = |key: &str| metadata.get(key).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    let is_later_piece = number(SPLIT_NUMBER_KEY) > 0 && number(SPLIT_COUNT_KEY) > 1;
    let architecture = metadata.get("general.architecture").cloned().or_else(|| is_later_piece.then(String::new));
    let architecture =
        architecture.ok_or_else(|| HeaderFault::Damaged("`general.architecture` is missing".to_owned()))?;
    if architecture.len() > MAX_ARCHITECTURE_BYTES {
        let message = format!("`general.architecture` has more than {MAX_ARCHITECTURE_BYTES} bytes");
        return Err(HeaderFault::Damaged(message));
    }
    let required_bytes = if tensor_count > 0 { required_bytes } else { reader.offset() };
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

/// Reads the header of a whole file.
#[cfg(test)]
pub(crate) fn parse(
    inner: impl BufRead,
    size: u64,
    on_tensor: &mut dyn FnMut(TensorInfo),
) -> Result<GgufHeader, HeaderFault> {
    parse_piece(inner, size, WeightTotals::default(), on_tensor)
}

/// The end of the last tensor, relative to the tensor data; the bytes of all by position in the model are added to `weights`.
fn tensor_infos(
    reader: &mut HeaderReader<impl BufRead>,
    tensor_count: u64,
    weights: &mut WeightTotals,
    on_tensor: &mut dyn FnMut(TensorInfo),
) -> Result<u64, HeaderFault> {
    let overflow = || HeaderFault::Damaged("tensor sizes overflow".to_owned());
    let mut end = 0u64;
    for at in 0..tensor_count {
        let length = reader.count(MAX_TENSOR_NAME_BYTES, "bytes of a tensor's name")?;
        let name = reader.text(length)?;
        let count = reader.u32()?;
        if count > 4 {
            return Err(HeaderFault::Damaged(format!("tensor {at} has {count} dimensions")));
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
    Ok(end)
}
