//! The header of a GGUF file, read in plain Rust with every size checked, so that a damaged file gives a descriptive error.
//!
//! Source: the GGUF specification, versions 2 and 3.

mod dequantize;
mod ggml_types;
mod header;
mod memory;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use dequantize::{HalfType, dequantize, remove_stale_files};
use header::{TensorInfo, parse};
pub use memory::{LayerMemory, MemoryEstimate, Unaccounted};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file does not exist.
    #[error("{path}: no such file; check `file` in the model's YAML or fetch the model into the models directory")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file has another format.
    #[error("{path}: not a GGUF file: it begins with {found} instead of `GGUF`")]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: String,
    },
    /// The GGUF version is newer or older than this crate supports.
    #[error("{path}: GGUF version {version} is not supported (supported: 2 and 3)")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in its header.
        version: u32,
    },
    /// The header is inconsistent.
    #[error("{path}: the GGUF header is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The inconsistency.
        reason: String,
    },
    /// The file is shorter than its header requires.
    #[error(
        "{path}: the file is truncated: it has {actual_bytes} bytes and needs at least {required_bytes}; fetch it again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The size that the header requires.
        required_bytes: u64,
        /// The size of the file.
        actual_bytes: u64,
    },
    /// The file cannot be written.
    #[error("{path}: cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file's SHA-256 differs from the expected one.
    #[error("{path}: its sha256 is {actual}, the YAML states {expected}: fetch it again or correct `sha256`")]
    HashMismatch {
        /// The file.
        path: PathBuf,
        /// The hash in the YAML.
        expected: String,
        /// The hash of the file.
        actual: String,
    },
    /// An adapter instead of a model or the reverse, an adapter for another architecture, or one part of a split model.
    #[error("{path}: {reason}")]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A parsed header.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufHeader {
    /// `general.architecture`, such as `llama` or `bert`.
    pub architecture: String,
    /// The scalars and strings of the metadata, as text.
    pub metadata: BTreeMap<String, String>,
    /// The number of tensors.
    pub tensor_count: u64,
    /// Bytes from the start of the file to the end of the last tensor.
    pub required_bytes: u64,
    /// The size of the file.
    pub file_bytes: u64,
    /// The offset of the tensor descriptions, where the metadata ends.
    tensor_info_offset: u64,
    /// The offset of the tensor data.
    data_offset: u64,
    /// The offset of each tensor is a multiple of this.
    alignment: u64,
    /// The short integer arrays of the metadata.
    integer_arrays: BTreeMap<String, Vec<i64>>,
    /// Sizes of the weights by position in the model.
    weights: WeightTotals,
}

/// Bytes of the tensors by position in the model.
#[derive(Debug, Clone, Default, PartialEq)]
struct WeightTotals {
    /// Per layer, as stored.
    layers: Vec<u64>,
    /// Per layer, after dequantization.
    dequantized: Vec<u64>,
    /// Over all layers, in types without a fast matrix product in llama.cpp.
    slow_matmul: u64,
    /// Before the first layer.
    input: u64,
    /// After the last layer, and all others outside of layers.
    output: u64,
    /// The token embedding.
    token_embedding: u64,
    /// Rows of the token embedding.
    vocabulary: u64,
    /// Whether the output has its own matrix instead of sharing the token embedding.
    has_own_output: bool,
    /// Whether some tensors have a type of unknown size.
    has_unknown_types: bool,
}

/// Reads and checks the header of a model's file.
pub fn inspect(path: &Path) -> Result<GgufHeader, Error> {
    let header = open(path)?;
    if header.metadata.get("general.type").is_some_and(|kind| kind == "adapter") {
        let reason = "this is an adapter; a model's `file` must name the base model".to_owned();
        return Err(Error::WrongKind { path: path.to_owned(), reason });
    }
    if let Some(parts) =
        header.metadata.get("split.count").filter(|count| count.parse().is_ok_and(|count: i64| count > 1))
    {
        let merge = "merge them with llama.cpp's `llama-gguf-split --merge` and name the merged file";
        return Err(Error::WrongKind {
            path: path.to_owned(),
            reason: format!("this is one of {parts} parts of a split model: {merge}"),
        });
    }
    Ok(header)
}

/// Reads and checks the header of an adapter's file for a model of `architecture`.
pub fn inspect_adapter(path: &Path, architecture: &str) -> Result<GgufHeader, Error> {
    let header = open(path)?;
    let wrong_kind = |reason: String| Err(Error::WrongKind { path: path.to_owned(), reason });
    if header.metadata.get("general.type").is_none_or(|kind| kind != "adapter") {
        return wrong_kind("not an adapter: its `general.type` is not `adapter`".to_owned());
    }
    if header.architecture != architecture {
        return wrong_kind(format!("this adapter is for `{}`, the model is `{architecture}`", header.architecture));
    }
    Ok(header)
}

/// Estimates the memory that a model takes from the header of its file.
pub fn estimate_memory(path: &Path) -> Result<MemoryEstimate, Error> {
    MemoryEstimate::from_header(&inspect(path)?).map_err(|reason| Error::Damaged { path: path.to_owned(), reason })
}

/// Compares a file's SHA-256 with the expected one, in hexadecimal.
pub fn verify_sha256(path: &Path, expected: &str) -> Result<(), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let actual: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if actual.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Error::HashMismatch { path: path.to_owned(), expected: expected.to_owned(), actual })
}

/// A hash of a file's size, its head and 64 evenly spaced samples: enough to tell models apart in milliseconds, where a hash of
/// the whole file would take minutes.
pub fn sampled_hash(path: &Path) -> Result<[u8; 32], Error> {
    const HEAD_BYTES: u64 = 1 << 20;
    const SAMPLE_BYTES: u64 = 1 << 16;
    const SAMPLES: u64 = 64;
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut add = |from: u64, length: u64| -> io::Result<()> {
        let mut bytes = Vec::new();
        file.seek(io::SeekFrom::Start(from))?;
        file.by_ref().take(length).read_to_end(&mut bytes)?;
        hash.update(&bytes);
        Ok(())
    };
    add(0, HEAD_BYTES).map_err(read)?;
    let step = size / SAMPLES;
    (1..SAMPLES).try_for_each(|n| add(n * step, SAMPLE_BYTES.min(step))).map_err(read)?;
    add(size.saturating_sub(SAMPLE_BYTES), SAMPLE_BYTES).map_err(read)?;
    Ok(hash.finalize().into())
}

fn open(path: &Path) -> Result<GgufHeader, Error> {
    open_with_tensors(path, &mut |_| ())
}

/// As [`open`]; `on_tensor` takes the tensors, in order.
fn open_with_tensors(path: &Path, on_tensor: &mut dyn FnMut(TensorInfo)) -> Result<GgufHeader, Error> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
        _ => Error::Read { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let header = parse(BufReader::new(file), size, on_tensor).map_err(|fault| fault.into_error(path, size))?;
    if header.required_bytes > size {
        let required_bytes = header.required_bytes;
        return Err(Error::Truncated { path: path.to_owned(), required_bytes, actual_bytes: size });
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// A model of one tensor of 64 floats.
    fn file() -> Vec<u8> {
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &1u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
        bytes.extend([string("general.architecture"), 8u32.to_le_bytes().to_vec(), string("llama")].concat());
        bytes.extend([string("t"), 1u32.to_le_bytes().to_vec(), 64u64.to_le_bytes().to_vec()].concat());
        bytes.extend([&0u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
        bytes.resize(bytes.len().next_multiple_of(32) + 256, 0);
        bytes
    }

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn a_complete_file_is_accepted_and_every_truncation_is_refused() {
        let whole = file();
        let (_dir, path) = written(&whole);
        assert_eq!(inspect(&path).unwrap().required_bytes, whole.len() as u64);
        for length in [0, 3, 4, 10, 30, 60, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(inspect(&path).is_err(), "truncated to {length} bytes");
        }
    }

    #[test]
    fn the_error_for_another_format_quotes_its_first_bytes() {
        let (_dir, path) = written(b"PK\x03\x04 zip");
        assert!(inspect(&path).unwrap_err().to_string().contains(r"begins with `PK\x03\x04`"));
        assert!(matches!(inspect(Path::new("/nowhere/m.gguf")), Err(Error::Missing { .. })));
    }

    #[test]
    fn the_error_for_a_part_of_a_split_model_says_to_merge_it() {
        let count = [string("split.count"), 2u32.to_le_bytes().to_vec(), 3u16.to_le_bytes().to_vec()].concat();
        let mut bytes = file();
        bytes[16] = 2;
        bytes.splice(24..24, count);
        bytes.resize(bytes.len() + 64, 0);
        let (_dir, path) = written(&bytes);
        assert!(inspect(&path).unwrap_err().to_string().contains("one of 3 parts of a split model: merge them"));
    }

    #[test]
    fn the_error_for_a_hash_mismatch_names_both_hashes() {
        let (_dir, path) = written(b"abc");
        verify_sha256(&path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert!(verify_sha256(&path, "00").unwrap_err().to_string().contains("ba7816bf"));
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0..200usize, byte: u8, cut in 0..400usize) {
            let mut bytes = file();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut.max(1));
            let size = bytes.len() as u64;
            let header = parse(&bytes[..], size, &mut |_| ());
            prop_assert!(header.map_or(true, |h| h.file_bytes == size));
        }
    }
}
